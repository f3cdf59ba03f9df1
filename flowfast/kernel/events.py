"""A stream of events of the kernel: listening from the moment it is made, until it is closed."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Generic, Self, TypeVar

Event = TypeVar("Event")


class Events(AsyncIterator[Event], ABC, Generic[Event]):
    """`async for event in events`. Nothing is missed between making it and the first wait for an event.

    Close it (or leave its `with`) only when no task waits for an event any more: cancel the task first.
    """

    @abstractmethod
    async def __anext__(self) -> Event: ...

    @abstractmethod
    def close(self) -> None:
        """Stops listening. Twice is no error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class FakeEvents(Events[Event]):
    """Events that a fake puts in, from any thread."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._ready = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    def put(self, event: Event) -> None:
        """Hands an event to whoever waits for the next."""
        self._events.append(event)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ready.set)

    async def __anext__(self) -> Event:
        self._loop = asyncio.get_running_loop()
        while not self._events:
            self._ready.clear()
            await self._ready.wait()
        return self._events.popleft()

    def close(self) -> None:
        self.closed = True


class FakeSource(Generic[Event]):
    """All that listen to one fake: each gets every event that is sent while it listens."""

    def __init__(self) -> None:
        self._listeners: list[FakeEvents[Event]] = []

    def listen(self) -> FakeEvents[Event]:
        """A new listener."""
        events: FakeEvents[Event] = FakeEvents()
        self._listeners.append(events)
        return events

    def send(self, event: Event) -> None:
        """Tells all of them."""
        self._listeners = [listener for listener in self._listeners if not listener.closed]
        for listener in self._listeners:
            listener.put(event)
