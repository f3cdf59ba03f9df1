"""From a socket to a decoder: a buffer that is wiped after each datagram, and the reply that a request waits for.

pyroute2's own transport hands each datagram on as a new bytes object, which nobody can wipe. Ours receives into one
bytearray, has it decoded on the spot, and zeroes what was received before anything else runs.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import MSG_TRUNC, socket
from typing import Generic, TypeVar

from flowfast.kernel.xfrm import uapi
from flowfast.kernel.xfrm.attributes import I32, U32, attributes, corrupt, messages, payload_size
from flowfast.model.errors import DecodeError

T = TypeVar("T")

BUFFER_SIZE = 1 << 20
"""Bytes. The kernel packs a dump into datagrams of up to 32 KiB, and cuts off what a smaller buffer cannot take."""


_MAX_ERRNO = 4095  # include/linux/err.h


class Truncated(Exception):
    """A datagram was longer than the buffer, and its end is lost. The buffer has grown to that length since."""


class WipedBuffer:
    """Memory for one datagram at a time, zeroed after each use."""

    def __init__(self, size: int = BUFFER_SIZE) -> None:
        self._data = bytearray(size)

    def __len__(self) -> int:
        return len(self._data)

    @contextmanager
    def datagram(self, sock: socket) -> Iterator[memoryview]:
        """The next datagram from the kernel, until the block is left; empty if another process sent it.

        Raises Truncated, and OSError as recvmsg() does (BlockingIOError where there is none).
        """
        size, _, flags, sender = sock.recvmsg_into([self._data], 0, MSG_TRUNC)
        view = memoryview(self._data)[: min(size, len(self._data))]
        try:
            if flags & MSG_TRUNC:
                self._data = bytearray(max(size, 2 * len(self._data)))
                raise Truncated
            from_kernel = not isinstance(sender, tuple) or sender[0] == 0  # a netlink address is (port, groups)
            yield view if from_kernel else view[:0]
        finally:
            view[:] = bytes(len(view))


class Reply(Generic[T]):
    """What comes back for one request: items of one message type, then an end, an acknowledgement or an error."""

    def __init__(self, kind: int | None = None, read: Callable[[memoryview], T] | None = None) -> None:
        self._kind = kind
        self._read = read
        self.items: list[T] = []
        self.interrupted = False
        self.failure: DecodeError | None = None
        self.code = 0
        self.text = ""

    def take(self, datagram: memoryview) -> bool:
        """Reads one datagram; True where it ends the reply. A corrupt one ends it with `failure`."""
        try:
            return any(self._message(kind, flags, body) for kind, flags, body in messages(datagram))
        except DecodeError as exc:
            self.failure = exc.with_traceback(None)  # its frames hold the buffer
            return True

    def fail(self, code: int, text: str = "") -> None:
        """Ends the reply with an errno."""
        self.code = code
        self.text = text or os.strerror(code)

    def _message(self, kind: int, flags: int, body: memoryview) -> bool:
        if flags & uapi.NLM_F_DUMP_INTR and kind != uapi.NLMSG_ERROR:
            self.interrupted = True
        if kind == uapi.NLMSG_ERROR:
            self._end(flags, body, 4 + _request_length(flags, body))
            return True
        if kind == uapi.NLMSG_DONE:
            self._end(flags, body, 4)
            return True
        if kind != self._kind or self._read is None:
            raise corrupt(f"a message of type {kind} in answer to a request for type {self._kind}")
        self.items.append(self._read(body))
        return False

    def _end(self, flags: int, body: memoryview, begin: int) -> None:
        """An errno, and from `begin` on the attributes of an extended ack, whose text is the kernel's own."""
        if len(body) < 4:
            raise corrupt("an end without its number")
        (code,) = I32.unpack_from(body)
        if code == 0:
            return
        if not -_MAX_ERRNO <= code < 0:
            raise corrupt("an error's number is none")
        text = ""
        if flags & uapi.NLM_F_ACK_TLVS:
            found = attributes(body, begin, lengths=())
            if at := found.get(uapi.NLMSGERR_ATTR_MSG):
                raw = bytes(body[at : at + payload_size(body, at)])
                text = raw.rstrip(b"\0").decode("ascii", "backslashreplace")
        self.fail(-code, text)


def _request_length(flags: int, body: memoryview) -> int:
    """Bytes of the request that an error quotes: its header (NETLINK_CAP_ACK), or all of it."""
    if flags & uapi.NLM_F_CAPPED or len(body) < 8:
        return uapi.NLMSGHDR.size
    (length,) = U32.unpack_from(body, 4)
    return int(length) + 3 & ~3


class Reader:
    """Calls `readable` whenever the socket has something: the place of an asyncio transport in pyroute2's socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket, readable: Callable[[], None]) -> None:
        self._loop = loop
        self._descriptor = sock.fileno()
        sock.setblocking(False)
        loop.add_reader(self._descriptor, readable)

    def abort(self) -> None:
        """Stops reading."""
        if not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)

    close = abort
