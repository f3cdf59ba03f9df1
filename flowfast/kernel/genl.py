"""Generic netlink: families by name, on the thin socket of netlink.py. Source: include/uapi/linux/genetlink.h."""

import sys
from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import Self, TypeVar

from flowfast.kernel.netlink import Message, Netlink, attribute, attributes
from flowfast.model.errors import KernelError

NETLINK_GENERIC = 16

_CTRL, _GETFAMILY, _FAMILY_ID, _FAMILY_NAME, _OPS = 16, 3, 1, 2, 6
_OP_ID = 1
_GENLMSG = Struct("=BBxx")  # struct genlmsghdr: command, version
_U16 = Struct("=H")

Item = TypeVar("Item")
Attributes = dict[int, memoryview]


class Genl:
    """A family's commands, in the network namespace of the thread that makes it. Use in a `with`.

    Raises KernelError (ENOENT) where the kernel has no such family.
    """

    def __init__(self, family: str) -> None:
        self._name = family
        self._netlink = Netlink(NETLINK_GENERIC)
        try:
            body = _GENLMSG.pack(_GETFAMILY, 1) + attribute(_FAMILY_NAME, family.encode() + b"\0")
            (answer,) = self._netlink.request(_CTRL, body, what=f"generic netlink family {family}")
            found = dict(attributes(memoryview(answer)[_GENLMSG.size :]))
        except BaseException:
            self._netlink.__exit__(None, None, None)
            raise
        (self._id,) = _U16.unpack(found[_FAMILY_ID])
        self.commands = frozenset(_commands(found.get(_OPS, memoryview(b""))))
        """The commands that this kernel knows."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.__exit__(None, None, None)

    def request(self, command: int, body: bytes) -> list[Attributes]:
        """The attributes of each answer. Raises KernelError."""
        answers = self._netlink.request(self._id, _GENLMSG.pack(command, 1) + body, what=self._what(command))
        return [dict(attributes(memoryview(answer)[_GENLMSG.size :])) for answer in answers]

    def dump(self, command: int, body: bytes, decode: Callable[[Attributes], Iterable[Item]]) -> list[Item]:
        """Everything, decoded from each message's attributes. Raises KernelError, DecodeError."""

        def each(message: Message) -> Iterable[Item]:
            return decode(dict(attributes(message.body[_GENLMSG.size :])))

        return self._netlink.dump(self._id, _GENLMSG.pack(command, 1) + body, each, what=self._what(command))

    def _what(self, command: int) -> str:
        return f"{self._name} netlink, command {command}"


def _commands(operations: memoryview) -> Iterator[int]:
    for _, one in attributes(operations):
        yield int.from_bytes(dict(attributes(one))[_OP_ID], sys.byteorder)


def absent(refused: KernelError) -> bool:
    """Whether it says that there is no such thing here, rather than that asking went wrong."""
    return refused.code in _ABSENT


_ABSENT = frozenset((2, 19, 22, 95))  # ENOENT, ENODEV, EINVAL (a driver without the attribute), EOPNOTSUPP
