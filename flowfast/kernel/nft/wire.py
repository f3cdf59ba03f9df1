"""What libnftables' JSON leaves out, decoded from netlink: hooks' devices, flowtables' flags, who stands on ingress.

Debian 12's nft 1.0.6 prints no device of a netdev chain on a kernel of 6.18, and no version prints a flowtable's flags.
Source: include/uapi/linux/netfilter/{nf_tables,nfnetlink,nfnetlink_hook}.h (6.18).
"""

import errno
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from flowfast.kernel.netlink import NETLINK_NETFILTER, Message, Netlink, attribute, attributes, text
from flowfast.model.errors import KernelError, Unavailable
from flowfast.model.nftables import Flowtable, Hook, Table
from flowfast.model.state import CounterValue

NFNLGRP_NFTABLES = 7

_SUBSYS_NFTABLES, _SUBSYS_HOOK = 10 << 8, 12 << 8
_GETCHAIN, _NEWGEN, _GETGEN, _GETOBJ, _GETFLOWTABLE = (_SUBSYS_NFTABLES | kind for kind in (4, 15, 16, 19, 23))
_HOOK_GET = _SUBSYS_HOOK
_OBJECT_COUNTER = 1

_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_NUMBERS = {name: number for number, name in _FAMILIES.items()}
_NETDEV = _NUMBERS["netdev"]
_HOOKS = {
    "netdev": ("ingress", "egress"),
    "inet": ("prerouting", "input", "forward", "output", "postrouting", "ingress"),
}
_HOOK_TYPE_CHAIN, _HOOK_TYPE_FLOWTABLE = 1, 3
_FLOWTABLE_OFFLOAD, _FLOWTABLE_COUNTER = 1, 2

_U32, _I32, _U64 = Struct(">I"), Struct(">i"), Struct(">Q")


class Generation(NamedTuple):
    """The ruleset's generation, and who made it: a *thread's* id, in the init pid namespace, and its name."""

    number: int
    pid: int | None
    process: str | None


class OnIngress(NamedTuple):
    """What stands on a device's ingress hook; of a chain or (since 6.17) a flowtable with its table and name."""

    function: str
    priority: int
    table: str | None
    name: str | None


def _request(family: str | int, *attrs: bytes) -> bytes:
    """struct nfgenmsg, and attributes."""
    number = family if isinstance(family, int) else _NUMBERS[family]
    return bytes((number, 0, 0, 0)) + b"".join(attrs)


def _string(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode(errors="surrogateescape") + b"\0")


def _attrs(body: memoryview) -> dict[int, memoryview]:
    return dict(attributes(body))


def _family(message: Message) -> str:
    number = message.body[0]
    return _FAMILIES.get(number, str(number))


# generation


def generation_of(message: Message) -> Iterator[Generation]:
    """NFT_MSG_NEWGEN; nothing for any other message."""
    if message.type != _NEWGEN:
        return
    attrs = _attrs(message.body[4:])
    pid = _U32.unpack(attrs[2])[0] if 2 in attrs else None
    yield Generation(_U32.unpack(attrs[1])[0], pid, text(attrs[3]) if 3 in attrs else None)


def generation() -> int:
    """The ruleset's generation now."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        answer = netlink.request(_GETGEN, _request(0), what="nf_tables: generation")
    return int(_U32.unpack(_attrs(memoryview(answer[0])[4:])[1])[0])


# base chains and flowtables


def base_chains(table: Table) -> dict[str, Hook]:
    """The hooks of the table's base chains, by chain."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        what = f"nf_tables: chains of {table}"
        return dict(netlink.dump(_GETCHAIN, _request(table.family), lambda m: decode_base_chain(m, table), what=what))


def decode_base_chain(message: Message, table: Table) -> Iterator[tuple[str, Hook]]:
    """The chain and its hook; nothing for a chain without one, or of another table."""
    attrs = _attrs(message.body[4:])
    if 4 not in attrs or text(attrs[1]) != table.name or _family(message) != table.family:
        return
    hook = _attrs(attrs[4])
    number = _U32.unpack(hook[1])[0]
    names = _HOOKS.get(table.family, _HOOKS["inet"])
    devices = _devices(hook[4]) if 4 in hook else [text(hook[3])] if 3 in hook else []
    place = Hook(
        type=text(attrs[7]),
        hook=names[number] if number < len(names) else str(number),
        priority=_I32.unpack(hook[2])[0],
        policy="drop" if 5 in attrs and _U32.unpack(attrs[5])[0] == 0 else "accept",
        device=", ".join(sorted(devices)) or None,
    )
    yield text(attrs[3]), place


def flowtables(table: Table) -> dict[str, Flowtable]:
    """The table's flowtables with flags and devices, by name. Empty too where this kernel has no flowtable."""
    request = _request(table.family, _string(1, table.name))
    with Netlink(NETLINK_NETFILTER) as netlink:
        what = f"nf_tables: flowtables of {table}"
        found = netlink.dump(_GETFLOWTABLE, request, lambda m: decode_flowtable(m, table), what=what)
    return {flowtable.name: flowtable for flowtable in found}


def decode_flowtable(message: Message, table: Table) -> Iterator[Flowtable]:
    """The flowtable; nothing for one of another table."""
    attrs = _attrs(message.body[4:])
    if text(attrs[1]) != table.name or _family(message) != table.family:
        return
    hook = _attrs(attrs[3])
    flags = _U32.unpack(attrs[7])[0] if 7 in attrs else 0
    yield Flowtable(
        name=text(attrs[2]),
        devices=frozenset(_devices(hook[3])) if 3 in hook else frozenset(),
        priority=_I32.unpack(hook[2])[0],
        counter=bool(flags & _FLOWTABLE_COUNTER),
        offload=bool(flags & _FLOWTABLE_OFFLOAD),
    )


def _devices(nested: memoryview) -> list[str]:
    """NFTA_DEVICE_NAME, and since 6.18 NFTA_DEVICE_PREFIX, which nft writes with an asterisk."""
    return [text(name) + ("*" if kind == 2 else "") for kind, name in attributes(nested)]


# counters


def counters(table: Table) -> dict[str, CounterValue]:
    """Every named counter of the table."""
    request = _request(table.family, _string(1, table.name), attribute(3, _U32.pack(_OBJECT_COUNTER)))
    with Netlink(NETLINK_NETFILTER) as netlink:
        what = f"nf_tables: counters of {table}"
        return dict(netlink.dump(_GETOBJ, request, lambda m: decode_counter(m, table), what=what))


def decode_counter(message: Message, table: Table) -> Iterator[tuple[str, CounterValue]]:
    """The counter's name and value; nothing for another object, or of another table."""
    attrs = _attrs(message.body[4:])
    if text(attrs[1]) != table.name or _U32.unpack(attrs[3])[0] != _OBJECT_COUNTER:
        return
    data = _attrs(attrs[4])
    yield text(attrs[2]), CounterValue(packets=_U64.unpack(data[2])[0], bytes=_U64.unpack(data[1])[0])


# hooks


def on_ingress(device: str) -> list[OnIngress]:
    """What stands on the device's ingress hook, first to run first; empty where there is no such device.

    Raises Unavailable where the kernel does not tell (nfnetlink_hook, since 5.14, CONFIG_NETFILTER_NETLINK_HOOK).
    """
    request = _request(_NETDEV, attribute(1, _U32.pack(0)), _string(3, device))
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            return netlink.dump(_HOOK_GET, request, decode_on_ingress, what=f"netfilter: hooks of {device}")
    except KernelError as refused:
        if refused.code == errno.ENODEV:
            return []
        if refused.code in (errno.EINVAL, errno.EOPNOTSUPP):  # no such nfnetlink subsystem, even after request_module()
            raise Unavailable("nfnetlink_hook: this kernel cannot tell what stands on ingress") from refused
        raise


def decode_on_ingress(message: Message) -> Iterator[OnIngress]:
    """One hook of those on a device."""
    attrs = _attrs(message.body[4:])
    table = name = None
    if 6 in attrs:  # NFNLA_HOOK_CHAIN_INFO: description and its type, which may be a BPF program's
        info = _attrs(attrs[6])
        if _U32.unpack(info[2])[0] in (_HOOK_TYPE_CHAIN, _HOOK_TYPE_FLOWTABLE):
            described = _attrs(info[1])
            table, name = text(described[1]), text(described[3])
    yield OnIngress(
        function=text(attrs[4]) if 4 in attrs else "",
        priority=_I32.unpack(attrs[2])[0],
        table=table,
        name=name,
    )


def is_flowtable(hook: OnIngress, table: Table, flowtable: Flowtable) -> bool:
    """True where this is that flowtable. Before 6.17 nothing tells it from another one of equal priority."""
    if hook.table is not None:
        return (hook.table, hook.name) == (table.name, flowtable.name)
    return hook.priority == flowtable.priority and "flow_offload" in hook.function
