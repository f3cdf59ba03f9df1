"""A netlink socket as thin as can be: dumps and requests answered by memoryviews, and multicast groups to listen to.

For what pyroute2 lacks or decodes too slowly: nfnetlink (nf_tables, its hooks, conntrack) and events. Blocking calls
answer from the kernel at once, so that they need no event loop. Source: include/uapi/linux/netlink.h.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from struct import Struct, error
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from flowfast.kernel.events import Events
from flowfast.model.errors import DecodeError, KernelError

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_EXCL = 0x200
NLA_F_NESTED = 0x8000

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK = 270
_SO_RCVBUFFORCE = 33
_ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK = 1, 10, 11

_BUFFER = 1 << 16
"""With less than 32 KiB the kernel truncates dumps silently, once it has packed them larger (field-notes.md 0.8)."""
_EVENT_BUFFER = 1 << 20
_DUMP_ATTEMPTS = 20
_TIMEOUT_SECONDS = 30.0

_HEADER = Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = Struct("=HH")  # struct nlattr: length, type
_ERROR = Struct("=i")

Item = TypeVar("Item")


class Message(NamedTuple):
    """One netlink message; `body` is what follows the header, a view into the receive buffer."""

    type: int
    flags: int
    sequence: int
    body: memoryview


def messages(data: memoryview) -> Iterator[Message]:
    """The messages in what one recv() returned. Raises DecodeError."""
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < _HEADER.size:
            raise DecodeError(f"netlink: {end - offset} bytes left, less than a header")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > end:
            raise DecodeError(f"netlink: a message claims {length} bytes where {end - offset} are left")
        yield Message(kind, flags, sequence, data[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type (without flags) and payload of each attribute. Raises DecodeError."""
    offset, end = 0, len(data)
    while end - offset >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > end:
            raise DecodeError(f"netlink: an attribute claims {length} bytes where {end - offset} are left")
        yield kind & _NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def picked(data: memoryview, kinds: frozenset[int], offset: int = 0) -> dict[int, memoryview]:
    """The payloads of these types of attributes alone: half the time of attributes(), where most are not wanted."""
    found = {}
    end = len(data)
    while end - offset >= 4:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            raise DecodeError(f"netlink: an attribute claims {length} bytes where {end - offset} are left")
        kind &= _NLA_TYPE_MASK
        if kind in kinds:
            found[kind] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(inner))


def text(payload: memoryview) -> str:
    """A string attribute, up to its zero byte. Bytes that are not UTF-8 survive as surrogates, as in os.fsdecode()."""
    return bytes(payload).partition(b"\0")[0].decode(errors="surrogateescape")


def decoded(decode: Callable[[Message], Iterable[Item]], message: Message) -> list[Item]:
    """What the decoder makes of a message; whatever goes wrong in it is a DecodeError."""
    try:
        return list(decode(message))
    except (error, ValueError, LookupError) as wrong:
        raise DecodeError(f"netlink: message of type {message.type:#x}: {wrong}") from wrong


def _open(family: int) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    for option in (_CAP_ACK, _EXT_ACK):
        opened.setsockopt(_SOL_NETLINK, option, 1)
    return opened


class Netlink:
    """Blocking requests, in the network namespace of the thread that makes it. Use in a `with`."""

    def __init__(self, family: int) -> None:
        self._socket = _open(family)
        self._socket.settimeout(_TIMEOUT_SECONDS)
        self._socket.bind((0, 0))
        self._sequence = 0
        self._interrupted = False
        self._buffer = bytearray(_BUFFER)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._socket.close()

    def request(self, kind: int, body: bytes, *, flags: int = 0, what: str = "netlink request") -> list[bytes]:
        """Bodies of the answers, acknowledged. Raises KernelError, which begins with `what`."""
        self._send(kind, flags | NLM_F_ACK, body)
        return [bytes(message.body) for message in self._answers(what)]

    def dump(
        self,
        kind: int,
        body: bytes,
        decode: Callable[[Message], Iterable[Item]],
        *,
        what: str = "netlink dump",
    ) -> list[Item]:
        """Everything decoded, from one consistent dump. Raises KernelError, DecodeError."""
        for _ in range(_DUMP_ATTEMPTS):
            self._send(kind, NLM_F_DUMP, body)
            items: list[Item] = []
            for message in self._answers(what):
                items.extend(decoded(decode, message))
            if not self._interrupted:
                return items
        raise KernelError(f"{what}: changed {_DUMP_ATTEMPTS} times while it was read", errno.EINTR)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        self._interrupted = False
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)

    def _answers(self, what: str) -> Iterator[Message]:
        """Answers to the last request until its end; each is valid until the next is asked for."""
        view = memoryview(self._buffer)
        while True:
            size, _, flags, _ = self._socket.recvmsg_into([view])
            if flags & socket.MSG_TRUNC:
                raise DecodeError(f"{what}: the kernel sent more than {_BUFFER} bytes at once")
            for message in messages(view[:size]):
                if message.sequence != self._sequence:
                    continue
                self._interrupted |= bool(message.flags & NLM_F_DUMP_INTR)
                if message.type in (_NLMSG_ERROR, _NLMSG_DONE):
                    _raise(message, what)
                    return
                yield message


def _raise(end: Message, what: str) -> None:
    """Raises KernelError where the last message of an answer says so, with the kernel's extended ack."""
    if len(end.body) < _ERROR.size:
        return
    code = -_ERROR.unpack_from(end.body)[0]
    if code <= 0:
        return
    reason = os.strerror(code)
    if end.flags & _NLM_F_ACK_TLVS:
        skip = _ERROR.size + (_HEADER.size if end.type == _NLMSG_ERROR else 0)
        for kind, payload in attributes(end.body[skip:]):
            if kind == _NLMSGERR_ATTR_MSG:
                reason = f"{reason}: {text(payload)}"
    raise KernelError(f"{what}: {reason}", code)


class GroupEvents(Events[Item]):
    """Messages of multicast groups, decoded. `lost` is given where the kernel dropped some (ENOBUFS)."""

    def __init__(
        self, family: int, groups: Iterable[int], decode: Callable[[Message], Iterable[Item]], *, lost: Item
    ) -> None:
        self._decode = decode
        self._lost = lost
        self._pending: deque[Item] = deque()
        self._socket = _open(family)
        self._socket.setblocking(False)
        try:  # beyond net.core.rmem_max, which CAP_NET_ADMIN may
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _EVENT_BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _EVENT_BUFFER)
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    async def __anext__(self) -> Item:
        loop = asyncio.get_running_loop()
        while not self._pending:
            try:
                data = await loop.sock_recv(self._socket, _BUFFER)
            except OSError as failed:
                if failed.errno != errno.ENOBUFS:
                    raise
                self._pending.append(self._lost)
            else:
                for message in messages(memoryview(data)):
                    self._pending.extend(decoded(self._decode, message))
        return self._pending.popleft()

    def close(self) -> None:
        self._socket.close()
