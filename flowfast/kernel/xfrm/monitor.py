"""Notifications as they come: an async iterator over events, which says so when some were lost."""

import asyncio
import errno
from collections import deque
from types import TracebackType
from typing import Self

from flowfast.kernel.xfrm.events import Event, Resync, decode_events
from flowfast.kernel.xfrm.receive import BUFFER_SIZE, Truncated, WipedBuffer
from flowfast.kernel.xfrm.session import XfrmSession
from flowfast.model.errors import DecodeError


class Monitor:
    """Events from the moment it is made. What is not read waits in the kernel, up to the socket's `rcvbuf`.

    When that overflows (ENOBUFS), all that the kernel still holds comes first, and then a Resync: after it, and a dump,
    the state is known again. A datagram that cannot be read is a Resync too, so that iterating raises nothing for it.
    Keys in notifications are treated as in dumps (session.py).
    """

    def __init__(self, session: XfrmSession, mask: int, buffer_size: int = BUFFER_SIZE) -> None:
        self._session = session
        self._socket = session.socket
        self._socket.setblocking(False)
        self._socket.bind((0, mask))
        self._buffer = WipedBuffer(buffer_size)
        self._pending: deque[Event] = deque()
        self._lost = ""
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

    async def __anext__(self) -> Event:
        while not self._pending:
            if self._closed:
                raise StopAsyncIteration
            if not self._receive():
                await self._readable()
        return self._pending.popleft()

    def close(self) -> None:
        """Ends the iteration, also of a task that waits for the next event."""
        self._closed = True
        self._wake()
        self._session.close()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _receive(self) -> bool:
        """Takes one datagram; False where there is none, once what was lost has been told."""
        try:
            with self._buffer.datagram(self._socket) as view:
                self._pending.extend(decode_events(view))
        except BlockingIOError:
            if not self._lost:
                return False
            self._pending.append(Resync(self._lost))
            self._lost = ""
        except Truncated:
            self._lost = "a notification was longer than the receive buffer"
        except DecodeError as exc:
            self._lost = str(exc)
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                raise
            self._lost = "notifications came faster than they were read (ENOBUFS)"
        return True

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        waiting = self._waiting = loop.create_future()
        descriptor = self._socket.fileno()
        loop.add_reader(descriptor, self._wake)
        try:
            await waiting
        finally:
            loop.remove_reader(descriptor)
            self._waiting = None
