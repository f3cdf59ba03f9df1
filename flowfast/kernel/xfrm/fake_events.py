"""The event stream of FakeXfrm: the same interface as Monitor, fed by hand."""

import asyncio
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from flowfast.kernel.xfrm import events as ev
from flowfast.kernel.xfrm.uapi import Group

_GROUPS: dict[type[object], Group] = {
    ev.SaAdded: Group.SA,
    ev.SaUpdated: Group.SA,
    ev.SaDeleted: Group.SA,
    ev.SaFlushed: Group.SA,
    ev.SaExpired: Group.EXPIRE,
    ev.PolicyExpired: Group.EXPIRE,
    ev.PolicyAdded: Group.POLICY,
    ev.PolicyUpdated: Group.POLICY,
    ev.PolicyDeleted: Group.POLICY,
    ev.PoliciesFlushed: Group.POLICY,
    ev.DefaultChanged: Group.POLICY,
    ev.Acquire: Group.ACQUIRE,
    ev.AsyncEvent: Group.AEVENTS,
    ev.Migrated: Group.MIGRATE,
    ev.Mapping: Group.MAPPING,
    ev.Report: Group.REPORT,
}


class FakeEvents:
    """Events of some groups, from the moment it was made. A Resync belongs to all groups."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self._groups = frozenset(groups)
        self._pending: deque[ev.Event] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ev.Event:
        while not self._pending:
            if self._closed:
                raise StopAsyncIteration
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._pending.popleft()

    def close(self) -> None:
        """Ends the iteration once what is pending is read."""
        self._closed = True
        self._wake()

    def emit(self, event: ev.Event) -> None:
        """Delivers an event, if it is of the groups that were asked for."""
        group = _GROUPS.get(type(event))
        if not self._closed and (group is None or group in self._groups):
            self._pending.append(event)
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
