"""The connection tracking table over ctnetlink, decoded from the buffer; and a fake of it.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c (6.18). An offloaded
entry has neither timeout nor protoinfo, and every attribute but the tuples may be missing.
"""

import asyncio
import errno
from collections.abc import Iterable
from functools import lru_cache
from socket import inet_ntop, inet_pton
from struct import Struct

from flowfast.kernel.netlink import (
    NETLINK_NETFILTER,
    NLA_F_NESTED,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Netlink,
    attribute,
    attributes,
    nested,
    picked,
    text,
)
from flowfast.model.errors import DecodeError, KernelError
from flowfast.model.state import Flow, Status

AF_INET, AF_INET6 = 2, 10  # plain numbers: socket's are enumerations, which print as such

_SUBSYS = 1 << 8
_NEW, _GET, _DELETE = _SUBSYS, _SUBSYS | 1, _SUBSYS | 2

_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _HELP, _TIMEOUT, _MARK = 1, 2, 3, 4, 5, 7, 8
_COUNTERS_ORIG, _COUNTERS_REPLY, _ZONE, _STATUS_MASK = 9, 10, 18, 26
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_PACKETS, _BYTES = 1, 2
_PROTOINFO_TCP, _TCP_STATE, _HELP_NAME = 1, 1, 1

# plain numbers: an enumeration's operators cost more than all the rest of a flow
SEEN_REPLY, ASSURED, CONFIRMED = Status.SEEN_REPLY.value, Status.ASSURED.value, Status.CONFIRMED.value
OFFLOAD, HARDWARE = Status.OFFLOAD.value, Status.HW_OFFLOAD.value

_DECODED = frozenset(
    (_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _HELP, _MARK, _COUNTERS_ORIG, _COUNTERS_REPLY, _ZONE)
)

_U16, _U32, _U64 = Struct(">H"), Struct(">I"), Struct(">Q")

Tuple = tuple[int, str, str, int, int, int]
"""Family, source, destination, protocol, source port, destination port."""


class RealConntrack:
    """The table of the network namespace in which it is called. Entries of another zone than 0 cannot be deleted."""

    async def flows(self, *, offloaded: bool = False) -> list[Flow]:
        """All tracked connections, or those with IPS_OFFLOAD alone. Raises KernelError, DecodeError."""
        netlink = Netlink(NETLINK_NETFILTER)  # here, for the namespace of this thread; the work in one of its own
        status = OFFLOAD if offloaded else 0
        return await asyncio.to_thread(_flows, netlink, status, status)

    async def delete(self, flow: Flow) -> bool:
        """Forgets one connection, by its original tuple. False where it was gone. Raises KernelError."""
        body = _nfgenmsg(flow.family) + _tuple_attribute(_TUPLE_ORIG, original(flow))
        try:
            with Netlink(NETLINK_NETFILTER) as netlink:
                netlink.request(_DELETE, body, what=f"conntrack: delete {flow.src} -> {flow.dst}")
        except KernelError as refused:
            if refused.code == errno.ENOENT:
                return False
            raise
        return True


def original(flow: Flow) -> Tuple:
    """The tuple by which the kernel knows the flow."""
    return flow.family, flow.src, flow.dst, flow.proto, flow.sport, flow.dport


def dump(status: int = 0, *, trust: bool = False) -> list[Flow]:
    """The flows that have all bits of `status`; with `trust` what the kernel makes of that. Raises KernelError."""
    return _flows(Netlink(NETLINK_NETFILTER), status, 0 if trust else status)


def _flows(netlink: Netlink, status: int, checked: int) -> list[Flow]:
    """Kernels before 5.15 do not filter by status, so that it is checked again."""
    wanted = b""
    if status:
        wanted = attribute(_STATUS, _U32.pack(status)) + attribute(_STATUS_MASK, _U32.pack(status))

    def decode(message: Message) -> Iterable[Flow]:
        flow, has = decode_flow(message.body)
        return (flow,) if has & checked == checked else ()

    with netlink:
        return netlink.dump(_GET, _nfgenmsg(0) + wanted, decode, what="conntrack: dump")


def _nfgenmsg(family: int) -> bytes:
    return bytes((family, 0, 0, 0))


# decoding


def decode_flow(body: memoryview) -> tuple[Flow, int]:
    """The entry in a message, and its status. Raises DecodeError, struct.error where the message is damaged."""
    found = picked(body, _DECODED, offset=4)
    if _TUPLE_ORIG not in found or _TUPLE_REPLY not in found:
        raise DecodeError("conntrack: an entry without its tuples")
    family, src, dst, proto, sport, dport = _tuple(found[_TUPLE_ORIG])
    _, reply_src, reply_dst, _, reply_sport, reply_dport = _tuple(found[_TUPLE_REPLY])
    said = _U32.unpack(found[_STATUS])[0] if _STATUS in found else None
    status = said or 0
    packets = octets = None
    if _COUNTERS_ORIG in found and _COUNTERS_REPLY in found:
        forth, back = _counters(found[_COUNTERS_ORIG]), _counters(found[_COUNTERS_REPLY])
        packets, octets = (forth[0], back[0]), (forth[1], back[1])
    # By position, in the order of the class: names would cost as much as the decoding of two attributes.
    flow = Flow(
        family,
        proto,
        src,
        dst,
        sport,
        dport,
        reply_src,
        reply_dst,
        reply_sport,
        reply_dport,
        bool(status & OFFLOAD),
        bool(status & HARDWARE),
        bool(status & SEEN_REPLY),
        octets,
        packets,
        said,
        _tcp_state(found[_PROTOINFO]) if _PROTOINFO in found else None,
        _helper(found[_HELP]) if _HELP in found else None,
        _U32.unpack(found[_MARK])[0] if _MARK in found else None,
        _U16.unpack(found[_ZONE])[0] if _ZONE in found else 0,
    )
    return flow, status


_TCP, _TCP_LAYOUT = Struct(">2x6sB"), nested(_PROTOINFO_TCP, attribute(_TCP_STATE, b"\0"))[2:8]


def _tcp_state(payload: memoryview) -> int | None:
    """The state of a TCP connection, which comes first; None for what other protocols have to say (SCTP, DCCP)."""
    if len(payload) >= _TCP.size:
        layout, state = _TCP.unpack_from(payload)
        if layout == _TCP_LAYOUT:
            return int(state)
    nest = dict(attributes(payload)).get(_PROTOINFO_TCP)
    found = dict(attributes(nest)).get(_TCP_STATE) if nest is not None else None
    return found[0] if found is not None else None


def _helper(payload: memoryview) -> str | None:
    name = dict(attributes(payload)).get(_HELP_NAME)
    return text(name) if name is not None else None


def _header(size: int, kind: int) -> bytes:
    return attribute(kind, bytes(size))[:4]


def _layout(address_size: int, src: int, dst: int) -> tuple[bytes, ...]:
    """The attribute headers of a tuple with ports, as the kernel always writes them."""
    addresses = 2 * (4 + address_size)
    return (
        _header(addresses, _TUPLE_IP | NLA_F_NESTED) + _header(address_size, src),
        _header(address_size, dst),
        _header(24, _TUPLE_PROTO | NLA_F_NESTED) + _header(1, _PROTO_NUM),
        _header(2, _PROTO_SRC_PORT),
        _header(2, _PROTO_DST_PORT),
    )


_V4, _V4_LAYOUT = Struct(">8s4s4s4s8sB3x4sH2x4sH2x"), _layout(4, _V4_SRC, _V4_DST)
_V6, _V6_LAYOUT = Struct(">8s16s4s16s8sB3x4sH2x4sH2x"), _layout(16, _V6_SRC, _V6_DST)


def _tuple(payload: memoryview) -> Tuple:
    """One unpack for what nearly every entry looks like; attribute by attribute for the rest."""
    if len(payload) == _V4.size:
        a, src, b, dst, c, proto, d, sport, e, dport = _V4.unpack(payload)
        if (a, b, c, d, e) == _V4_LAYOUT:
            return AF_INET, _address(src), _address(dst), proto, sport, dport
    elif len(payload) == _V6.size:
        a, src, b, dst, c, proto, d, sport, e, dport = _V6.unpack(payload)
        if (a, b, c, d, e) == _V6_LAYOUT:
            return AF_INET6, _address(src), _address(dst), proto, sport, dport
    return _other_tuple(payload)


def _other_tuple(payload: memoryview) -> Tuple:
    """A tuple of any shape; ports are 0 where the protocol has none."""
    parts = dict(attributes(payload))
    address, proto = dict(attributes(parts[_TUPLE_IP])), dict(attributes(parts[_TUPLE_PROTO]))
    version4 = _V4_SRC in address
    src, dst = (_V4_SRC, _V4_DST) if version4 else (_V6_SRC, _V6_DST)
    sport, dport = (_U16.unpack(proto[kind])[0] if kind in proto else 0 for kind in (_PROTO_SRC_PORT, _PROTO_DST_PORT))
    return (
        AF_INET if version4 else AF_INET6,
        _address(bytes(address[src])),
        _address(bytes(address[dst])),
        proto[_PROTO_NUM][0],
        sport,
        dport,
    )


@lru_cache(maxsize=1 << 16)
def _address(packed: bytes) -> str:
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


_COUNTERS, _COUNTERS_LAYOUT = Struct(">4sQ4sQ"), (_header(8, _PACKETS), _header(8, _BYTES))


def _counters(payload: memoryview) -> tuple[int, int]:
    """Packets and bytes."""
    if len(payload) == _COUNTERS.size:
        a, packets, b, size = _COUNTERS.unpack(payload)
        if (a, b) == _COUNTERS_LAYOUT:
            return packets, size
    values = dict(attributes(payload))  # padded for 64 bit alignment, on some architectures
    return _U64.unpack(values[_PACKETS])[0], _U64.unpack(values[_BYTES])[0]


# encoding


def _tuple_attribute(kind: int, of: Tuple) -> bytes:
    family, src, dst, proto, sport, dport = of
    kinds = (_V4_SRC, _V4_DST) if family == AF_INET else (_V6_SRC, _V6_DST)
    addresses = [attribute(each, inet_pton(family, text)) for each, text in zip(kinds, (src, dst), strict=True)]
    ports = attribute(_PROTO_SRC_PORT, _U16.pack(sport)) + attribute(_PROTO_DST_PORT, _U16.pack(dport))
    return nested(
        kind, nested(_TUPLE_IP, *addresses), nested(_TUPLE_PROTO, attribute(_PROTO_NUM, bytes((proto,))), ports)
    )


def create(flow: Flow, *, seconds: int) -> None:
    """Makes an entry that times out by itself, as `conntrack -I` does: for the probe and for tests. Raises KernelError.

    UDP only: TCP would want its protoinfo. The kernel does not let IPS_OFFLOAD be set from outside.
    """
    back = (flow.family, flow.reply_src, flow.reply_dst, flow.proto, flow.reply_sport, flow.reply_dport)
    body = (
        _nfgenmsg(flow.family)
        + _tuple_attribute(_TUPLE_ORIG, original(flow))
        + _tuple_attribute(_TUPLE_REPLY, back)
        + attribute(_TIMEOUT, _U32.pack(seconds))
        + attribute(_STATUS, _U32.pack(CONFIRMED | (SEEN_REPLY | ASSURED if flow.established else 0)))
    )
    with Netlink(NETLINK_NETFILTER) as netlink:
        netlink.request(_NEW, body, flags=NLM_F_CREATE | NLM_F_EXCL, what=f"conntrack: create {flow.src} -> {flow.dst}")


class FakeConntrack:
    """Connections that a test sets."""

    def __init__(self, flows: Iterable[Flow] = ()) -> None:
        self.held = list(flows)
        self.deleted: list[Flow] = []

    async def flows(self, *, offloaded: bool = False) -> list[Flow]:
        """All, or the offloaded ones."""
        return [flow for flow in self.held if flow.offloaded or not offloaded]

    async def delete(self, flow: Flow) -> bool:
        """Forgets the connection of the same original tuple."""
        rest = [held for held in self.held if original(held) != original(flow)]
        found = len(rest) < len(self.held)
        self.held = rest
        if found:
            self.deleted.append(flow)
        return found
