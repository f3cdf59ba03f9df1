"""The leaves of the schema that say which packets are meant: ports, marks, DSCP values, zones, names of tunnels.

Each type is the Python type, how to read it from a Scalar (or from Python code), and its JSON Schema. Lists of them may
overlap in a file; what the planner reads of ports and prefixes does not (an nft set refuses elements that do).
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

from flowfast.config.problem import faulty, quoted
from flowfast.config.values import U32, is_glob, is_number, whole, words

_PORTS = re.compile(r"([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?")
_NUMBER = r"(0|[1-9][0-9]{0,9}|0x[0-9a-fA-F]{1,8})"
_MARK = re.compile(rf"{_NUMBER}(?:/{_NUMBER})?")
_TUNNEL = re.compile(r"[A-Za-z0-9_.:*?\[\]!-]{1,128}")

DSCP_NAMES = {
    "df": 0,
    "be": 0,
    "le": 1,
    "lephb": 1,
    "va": 44,
    "ef": 46,
    **{f"cs{level}": level << 3 for level in range(8)},
    **{f"af{level}{drop}": (level << 3) + (drop << 1) for level in range(1, 5) for drop in range(1, 4)},
}
"""DSCP values by name: RFC 2474 (cs), 2597 (af), 3246 (ef), 5865 (va), 8622 (le), and nft's other words for them."""


class Ports(NamedTuple):
    """TCP or UDP ports from `first` to `last`, both included; one port has both the same."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class Mark(NamedTuple):
    """A packet mark: a packet has it where its meta mark, under `mask`, is `value`. Both are 32 bits."""

    value: int
    mask: int = U32

    def __str__(self) -> str:
        return f"{self.value:#x}" if self.mask == U32 else f"{self.value:#x}/{self.mask:#x}"


def ports(value: object) -> Ports:
    """A port, or a range of them as "5000-5100"."""
    if isinstance(value, Ports):
        return value
    if is_number(value):
        port = whole(value, "a port", 1, 65535)
        return Ports(port, port)
    text = words(value, "a port or a range of ports")
    parts = _PORTS.fullmatch(text)
    if parts is None or int(parts[1]) > 65535 or int(parts[2] or 0) > 65535:
        raise faulty(f"{quoted(text)} is not a port or a range of ports", "from 1 to 65535, such as 443 or 5000-5100")
    first, last = int(parts[1]), int(parts[2] or parts[1])
    if first > last:
        raise faulty(f"the range {text} ends before it begins", f"write {last}-{first}")
    return Ports(first, last)


def mark(value: object) -> Mark:
    """A packet mark as VALUE or VALUE/MASK."""
    if isinstance(value, Mark):
        return value
    text = words(value, "a packet mark", loose=True)
    parts = _MARK.fullmatch(text)
    numbers = [int(part, 0) for part in parts.groups() if part is not None] if parts else []
    if not numbers or max(numbers) > U32:
        raise faulty(f"{quoted(text)} is not a packet mark", "a number of 32 bits, or one with its mask as 0x10/0xff")
    found = Mark(*numbers)
    if found.mask == 0:
        raise faulty(f"the mark {text} matches every packet", "give a mask that is not 0, or leave the mark out")
    if found.value & ~found.mask:
        remedy = f"write {Mark(found.value & found.mask, found.mask)}"
        raise faulty(f"the mark {text} matches no packet: it has bits outside of its mask", remedy)
    return found


def dscp(value: object) -> int:
    """A DSCP value, by name or by number."""
    if is_number(value):
        return whole(value, "a DSCP value", 0, 63)
    text = words(value, "a DSCP value")
    if (known := DSCP_NAMES.get(text.lower())) is not None:
        return known
    raise faulty(f"{quoted(text)} is not a DSCP value", "a number from 0 to 63, or a name such as ef, af41, cs1")


def tunnel_pattern(value: object) -> str:
    """The name of a tunnel, found ones included, or a glob of names."""
    name = words(value, "the name of a tunnel or a glob")
    if not _TUNNEL.fullmatch(name):
        what = "a glob of tunnel names" if is_glob(name) else "the name of a tunnel"
        raise faulty(f"{quoted(name)} cannot be {what}", "`flowfast status` shows the names")
    return name


def _apart(items: tuple[Ports, ...]) -> tuple[Ports, ...]:
    """The same ports, in ranges that do not overlap, sorted."""
    merged: list[Ports] = []
    for one in sorted(items):
        if merged and one.first <= merged[-1].last:
            merged[-1] = Ports(merged[-1].first, max(merged[-1].last, one.last))
        else:
            merged.append(one)
    return tuple(merged)


def _widest(items: tuple[IPv4Network | IPv6Network, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    """The prefixes that no other one is around, in the order given."""
    there = {(one.version, one.prefixlen, int(one.network_address)) for one in items}
    return tuple(one for one in items if not any(above in there for above in _above(one)))


def _above(prefix: IPv4Network | IPv6Network) -> Iterable[tuple[int, int, int]]:
    for length in range(prefix.prefixlen):
        bits = prefix.max_prefixlen - length
        yield prefix.version, length, int(prefix.network_address) >> bits << bits


APART = AfterValidator(_apart)
WIDEST = AfterValidator(_widest)

_RANGE = r"^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$"
PortRange = Annotated[
    Ports,
    PlainValidator(ports),
    PlainSerializer(Ports.__str__),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "pattern": _RANGE}]}
    ),
]
PacketMark = Annotated[
    Mark,
    PlainValidator(mark),
    PlainSerializer(Mark.__str__),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": U32},
                {"type": "string", "pattern": f"^{_MARK.pattern}$"},
            ]
        }
    ),
]
Dscp = Annotated[
    int,
    PlainValidator(dscp),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 63}, {"enum": sorted(DSCP_NAMES)}]}),
]
Zone = Annotated[
    int,
    PlainValidator(lambda value: whole(value, "a conntrack zone", 0, 65535)),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 65535}),
]
PacketCount = Annotated[
    int,
    PlainValidator(lambda value: whole(value, "a number of packets", 0, U32)),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": U32}),
]
TunnelPattern = Annotated[
    str, PlainValidator(tunnel_pattern), WithJsonSchema({"type": "string", "pattern": f"^{_TUNNEL.pattern}$"})
]
