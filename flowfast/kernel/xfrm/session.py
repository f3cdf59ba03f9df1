"""One request and its reply, on pyroute2's asyncio socket.

pyroute2 gives the socket its network namespace, its options, sequence numbers, queues and end; it lacks the XFRM
family, and its generic decoding takes 33 us an SA. So datagrams are received and decoded in place, by receive.py, and
pyroute2's queue learns only that a reply has ended.

**Keys.** A dump carries the keys of all SAs. They are in one bytearray from recvmsg() until that datagram is decoded,
then zeroed, whatever happened; no other Python object ever holds them. NETLINK_CAP_ACK keeps the kernel from quoting
a refused request. Keys in a request are copied into its message, which is zeroed once it is sent. Not promised:
memory that the allocator moved while a request grew, the caller's own objects, and what the kernel does.
"""

import asyncio
import errno
import os
import struct
from collections.abc import Callable
from socket import SOL_SOCKET
from typing import Any, TypeVar

from pyroute2.netlink.nlsocket import AsyncNetlinkSocket, NetlinkRequest

from flowfast.kernel.netns import within
from flowfast.kernel.xfrm import uapi
from flowfast.kernel.xfrm.receive import BUFFER_SIZE, Reader, Reply, Truncated, WipedBuffer
from flowfast.kernel.xfrm.uapi import Msg
from flowfast.model.errors import DecodeError, KernelError, Unavailable

T = TypeVar("T")
Read = Callable[[memoryview], T]

ATTEMPTS = 5
"""How often a dump or a query is tried, when it was interrupted (NLM_F_DUMP_INTR), cut off, or met another dump."""

_END = uapi.NLMSGHDR.pack(16, uapi.NLMSG_DONE, 0, 0, 0)
_SO_RCVBUFFORCE = 33
_REMEDIES = {
    errno.EPERM: "needs CAP_NET_ADMIN in this network namespace: run as root",
    errno.EPROTONOSUPPORT: "load the kernel modules esp4 and esp6",
}


def kernel_error(what: str, code: int, text: str = "") -> KernelError:
    """The one line of a refusal: what was asked, and the kernel's own words or those of its errno."""
    line = f"xfrm: {what}: {text or os.strerror(code)}"
    remedy = _REMEDIES.get(code)
    return KernelError(f"{line} ({remedy})" if remedy else line, code)


class _Request:
    """A request as pyroute2's NetlinkRequest fills it in and sends it, around a body that is encoded already."""

    def __init__(self, body: bytes | bytearray) -> None:
        self.header: dict[str, int] = {}
        self.body = body
        self.data = bytearray()

    def __getitem__(self, part: str) -> dict[str, int]:
        return {"header": self.header}[part]

    def reset(self) -> None:
        """Forgets what was encoded."""
        self.data = bytearray()

    def encode(self) -> None:
        """Makes `data`, in one piece, so that no part of it is left behind elsewhere."""
        size = uapi.NLMSGHDR.size + len(self.body)
        head = self.header
        self.data = bytearray(size)
        uapi.NLMSGHDR.pack_into(self.data, 0, size, head["type"], head["flags"], head["sequence_number"], head["pid"])
        self.data[uapi.NLMSGHDR.size :] = self.body

    def wipe(self) -> None:
        """Zeroes the message and, where it can be, its body."""
        self.data[:] = bytes(len(self.data))
        if isinstance(self.body, bytearray):
            self.body[:] = bytes(len(self.body))


class XfrmSession(AsyncNetlinkSocket):  # type: ignore[misc]  # pyroute2 has no type hints
    """A NETLINK_XFRM socket that asks and is answered. `netns`: the name or path of a network namespace, or None.

    `rcvbuf`: bytes that the kernel may queue for it, beyond net.core.rmem_max where we are privileged. `buffer_size`:
    bytes of its receive buffer. Use it as an async context manager, in one event loop.
    """

    def __init__(
        self,
        netns: str | None = None,
        *,
        rcvbuf: int = 8 << 20,
        buffer_size: int = BUFFER_SIZE,
        use_socket: Any = None,
    ) -> None:
        self.netns = netns
        super().__init__(family=uapi.NETLINK_XFRM, ext_ack=True, rcvbuf=rcvbuf, use_socket=use_socket)
        self._buffer = WipedBuffer(buffer_size)
        self._replies: dict[int, Reply[Any]] = {}
        self._dumping = asyncio.Lock()

    def setup_socket(self) -> Any:
        """The socket, with its options. Raises Unavailable."""
        make = super().setup_socket
        try:
            sock = make() if self.netns is None else within(self.netns, make)
        except OSError as exc:
            if exc.errno == errno.EPROTONOSUPPORT:
                raise Unavailable("xfrm: this kernel has no XFRM netlink: load the module xfrm_user") from exc
            place = f"network namespace {self.netns!r}" if self.netns else "socket"
            raise Unavailable(f"xfrm: {place}: {exc.strerror or exc}") from exc
        sock.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_CAP_ACK, 1)
        try:
            sock.setsockopt(SOL_SOCKET, _SO_RCVBUFFORCE, self.status["rcvbuf"])
        except PermissionError:
            return sock  # without CAP_NET_ADMIN in the first user namespace, net.core.rmem_max stands
        return sock

    async def setup_endpoint(self) -> None:
        """Starts to read: in the place of pyroute2's asyncio transport, which keeps what it received."""
        if getattr(self.local, "transport", None) is None:
            self.local.transport = Reader(self.event_loop, self.socket, self._readable)
            self.local.protocol = None

    def close(self, code: int = errno.ECONNRESET) -> None:
        """Closes the socket. Requests that still wait fail with KernelError."""
        self._fail_all(code)
        super().close(code)

    def _readable(self) -> None:
        try:
            with self._buffer.datagram(self.socket) as view:
                self.enqueue(view, None)
        except BlockingIOError:
            return
        except Truncated:
            for sequence, reply in self._replies.items():
                reply.interrupted = True
                self._finish(sequence)
        except OSError as exc:
            self._fail_all(exc.errno or errno.EIO)

    def enqueue(self, data: memoryview, addr: object) -> None:
        """Hands a datagram to the reply that waits for it; what belongs to no request is dropped."""
        if len(data) < uapi.NLMSGHDR.size:
            return
        (sequence,) = struct.unpack_from("=I", data, 8)
        reply = self._replies.get(sequence)
        if reply is not None and reply.take(data):
            self._finish(sequence)

    def _finish(self, sequence: int) -> None:
        self.msg_queue.put_nowait(sequence, _END)

    def _fail_all(self, code: int) -> None:
        for sequence, reply in self._replies.items():
            reply.fail(code)
            self._finish(sequence)

    async def _exchange(self, message: Msg, flags: int, body: bytes | bytearray, reply: Reply[T]) -> None:
        request = _Request(body)
        sent = NetlinkRequest(self, request, msg_type=int(message), msg_flags=uapi.NLM_F_REQUEST | flags)
        self._replies[sent.msg_seq] = reply
        try:
            await sent.send()
            request.wipe()
            async for _ in sent.response():
                pass
        finally:
            request.wipe()
            del self._replies[sent.msg_seq]

    async def ask(
        self,
        what: str,
        message: Msg,
        body: bytes | bytearray,
        *,
        kind: Msg | None = None,
        read: Read[T] | None = None,
        flags: int = 0,
        repeat: bool = False,
    ) -> list[T]:
        """Sends a request, waits for its acknowledgement, and returns what came before that.

        `what` names it in errors; `kind` and `read` say what is expected; with `repeat` it may be asked again when its
        reply was cut off. Raises KernelError, DecodeError.
        """
        for _ in range(ATTEMPTS):
            reply = Reply(kind, read)
            await self._exchange(message, uapi.NLM_F_ACK | flags, body, reply)
            if not (reply.interrupted and repeat):
                break
        if reply.interrupted:
            raise DecodeError(f"xfrm: {what}: the reply was longer than the receive buffer")
        return _items(what, reply)

    async def dump(self, what: str, message: Msg, body: bytes, kind: Msg, read: Callable[[], Read[T]]) -> list[T]:
        """All objects of a kind; `read()` makes the reader of one attempt. One dump at a time, as the kernel wants.

        A dump that was interrupted, cut off by too small a buffer (which has grown then), or that met the rest of an
        abandoned one, is repeated up to ATTEMPTS times. Raises KernelError, DecodeError.
        """
        async with self._dumping:
            for attempt in range(ATTEMPTS):
                reply = Reply(kind, read())
                await self._exchange(message, uapi.NLM_F_DUMP, body, reply)
                if reply.code == errno.EBUSY:
                    await asyncio.sleep(0.01 * 2**attempt)
                elif not reply.interrupted:
                    return _items(what, reply)
        raise kernel_error(what, errno.EINTR, f"changed or was cut off {ATTEMPTS} times while it was read")


def _items(what: str, reply: Reply[T]) -> list[T]:
    if reply.failure is not None:
        raise reply.failure
    if reply.code:
        raise kernel_error(what, reply.code, reply.text)
    return reply.items
