"""Devices with ESP offload: their features over ethtool netlink, their hardware over devlink; and a fake of them.

Two dumps, whatever the number of devices: features come as bit maps, whose names are asked for once. Sources:
include/uapi/linux/ethtool_netlink.h (features since 5.7), devlink.h (ipsec_crypto and ipsec_packet since 6.7).
"""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from struct import Struct
from typing import Any

from flowfast.kernel.genl import Attributes, Genl, absent
from flowfast.kernel.netlink import attribute, attributes, nested, text
from flowfast.model.errors import KernelError
from flowfast.model.link import Link
from flowfast.model.nic import ESP_FEATURES, Eswitch, Nic

_STRSET_GET, _FEATURES_GET = 1, 11
_HEADER, _HEADER_DEV_INDEX, _HEADER_FLAGS = 1, 1, 3
_COMPACT = 1  # ETHTOOL_FLAG_COMPACT_BITSETS
_FEATURES_HW, _FEATURES_ACTIVE = 2, 4
_BITSET_VALUE = 4
_STRSET_SETS, _STRINGSETS_SET, _SET_ID, _SET_STRINGS = 2, 1, 1, 3
_STRINGS_STRING, _STRING_INDEX, _STRING_VALUE = 1, 1, 2
_SS_FEATURES = 4

_PORT_GET, _ESWITCH_GET = 5, 29
_BUS, _DEV, _PORT_INDEX, _PORT_IFINDEX = 1, 2, 3, 6
_ESWITCH_MODE, _ESWITCH_ENCAP, _PORT_FUNCTION = 25, 62, 145
_FUNCTION_CAPS = 4
_CAP_CRYPTO, _CAP_PACKET = 1 << 2, 1 << 3
_ESWITCHES = (Eswitch.LEGACY, Eswitch.SWITCHDEV, Eswitch.INACTIVE)

_U8, _U16, _U32 = Struct("=B"), Struct("=H"), Struct("=I")
_BITFIELD = Struct("=II")  # struct nla_bitfield32: value, selector


class RealNics:
    """The devices of the network namespace in which it is called."""

    def __init__(self) -> None:
        self._bits: dict[str, int] = {}

    async def nics(self, links: Iterable[Link]) -> tuple[Nic, ...]:
        """Those of `links` that have an ESP feature, on or off; none where the kernel does not say. KernelError."""
        try:
            ethtool = Genl("ethtool")  # here, for the namespace of this thread; the work in one of its own
        except KernelError as refused:
            if absent(refused):
                return ()
            raise
        with ethtool:
            features = await asyncio.to_thread(self._features, ethtool)
        if not features:
            return ()
        ports = _devlink_ports()
        return tuple(_nic(link, features[link.ifindex], ports) for link in links if link.ifindex in features)

    def _features(self, ethtool: Genl) -> dict[int, tuple[int, int]]:
        """By ifindex: ESP features that are there, and those of them that are on, as bits of ESP_FEATURES' order."""
        if not self._bits:
            self._bits = _feature_bits(ethtool)
        header = nested(_HEADER, attribute(_HEADER_FLAGS, _U32.pack(_COMPACT)))
        wanted = [self._bits.get(name) for name in ESP_FEATURES]

        def decode(found: Attributes) -> Iterator[tuple[int, tuple[int, int]]]:
            active, changeable = _bits(found[_FEATURES_ACTIVE], wanted), _bits(found[_FEATURES_HW], wanted)
            if active or changeable:
                (ifindex,) = _U32.unpack(dict(attributes(found[_HEADER]))[_HEADER_DEV_INDEX])
                yield ifindex, (active | changeable, active)

        try:
            return dict(ethtool.dump(_FEATURES_GET, header, decode))
        except KernelError as refused:  # a kernel before 5.7
            if absent(refused):
                return {}
            raise


def _bits(bitset: memoryview, wanted: list[int | None]) -> int:
    """The wanted bits of a compact bitset, the first of them lowest. Words of 32 bits in the machine's order."""
    words = dict(attributes(bitset)).get(_BITSET_VALUE, memoryview(b""))
    value = sum(_U32.unpack_from(words, at)[0] << 8 * at for at in range(0, len(words), 4))
    return sum(1 << to for to, at in enumerate(wanted) if at is not None and value >> at & 1)


def _feature_bits(ethtool: Genl) -> dict[str, int]:
    """Name of a feature -> its bit: differs from kernel to kernel."""
    asked = nested(_STRINGSETS_SET, attribute(_SET_ID, _U32.pack(_SS_FEATURES)))
    try:
        (answer,) = ethtool.request(_STRSET_GET, nested(_HEADER) + nested(_STRSET_SETS, asked))
    except KernelError as refused:
        if absent(refused):
            return {}
        raise
    found = {}
    for _, one in attributes(answer[_STRSET_SETS]):
        for _, entry in attributes(dict(attributes(one))[_SET_STRINGS]):
            parts = dict(attributes(entry))
            found[text(parts[_STRING_VALUE])] = int.from_bytes(parts.get(_STRING_INDEX, b""), sys.byteorder)
    return {name: found[name] for name in ESP_FEATURES if name in found}


@dataclass(frozen=True, slots=True)
class _Port:
    handle: str
    port: int
    caps: tuple[int, int]  # bits that are set, and bits that the port has
    eswitch: Eswitch | None = None
    encap: bool | None = None


def _devlink_ports() -> dict[int, _Port]:
    """Devlink's ports by the ifindex of their device; none where there is no devlink."""
    try:
        with Genl("devlink") as devlink:
            ports = dict(devlink.dump(_PORT_GET, b"", _port))
            switches = {port.handle: _eswitch(devlink, port.handle) for port in ports.values()}
    except KernelError as refused:
        if absent(refused):
            return {}
        raise
    return {
        ifindex: replace(port, eswitch=switches[port.handle][0], encap=switches[port.handle][1])
        for ifindex, port in ports.items()
    }


def _port(found: Attributes) -> Iterator[tuple[int, _Port]]:
    if _PORT_IFINDEX not in found:  # no device, or one of another network namespace
        return
    function = dict(attributes(found[_PORT_FUNCTION])) if _PORT_FUNCTION in found else {}
    value, selector = _BITFIELD.unpack(function[_FUNCTION_CAPS]) if _FUNCTION_CAPS in function else (0, 0)
    handle = f"{text(found[_BUS])}/{text(found[_DEV])}"
    yield _U32.unpack(found[_PORT_IFINDEX])[0], _Port(handle, _U32.unpack(found[_PORT_INDEX])[0], (value, selector))


def _eswitch(devlink: Genl, handle: str) -> tuple[Eswitch | None, bool | None]:
    """The mode of the hardware's switch, and whether its encap-mode is basic."""
    bus, _, name = handle.partition("/")
    body = attribute(_BUS, bus.encode() + b"\0") + attribute(_DEV, name.encode() + b"\0")
    try:
        (found,) = devlink.request(_ESWITCH_GET, body)
    except KernelError as refused:
        if absent(refused):
            return None, None
        raise
    mode = _U16.unpack(found[_ESWITCH_MODE])[0] if _ESWITCH_MODE in found else len(_ESWITCHES)
    encap = bool(_U8.unpack(found[_ESWITCH_ENCAP])[0]) if _ESWITCH_ENCAP in found else None
    return _ESWITCHES[mode] if mode < len(_ESWITCHES) else None, encap


def _nic(link: Link, features: tuple[int, int], ports: dict[int, _Port]) -> Nic:
    there, on = features
    named = [(name, 1 << bit) for bit, name in enumerate(ESP_FEATURES)]
    nic = Nic(
        link.name,
        link.ifindex,
        link.driver,
        on=frozenset(name for name, bit in named if on & bit),
        off=frozenset(name for name, bit in named if there & ~on & bit),
    )
    port = ports.get(link.ifindex)
    if port is None:
        return nic
    value, selector = port.caps
    return replace(
        nic,
        handle=port.handle,
        port=port.port,
        eswitch=port.eswitch,
        encap=port.encap,
        port_crypto=bool(value & _CAP_CRYPTO) if selector & _CAP_CRYPTO else None,
        port_packet=bool(value & _CAP_PACKET) if selector & _CAP_PACKET else None,
    )


class FakeNics:
    """Devices that a test sets, by name; each is there only as long as its link is."""

    def __init__(self, nics: Iterable[Nic] = ()) -> None:
        self._nics = {nic.name: nic for nic in nics}

    async def nics(self, links: Iterable[Link]) -> tuple[Nic, ...]:
        """Those of `links` that were set, with the link's ifindex."""
        return tuple(replace(self._nics[link.name], ifindex=link.ifindex) for link in links if link.name in self._nics)

    def set(self, nic: Nic) -> None:
        """The device appears, or changes."""
        self._nics[nic.name] = nic

    def change(self, name: str, **values: Any) -> None:
        """The device's named fields change."""
        self.set(replace(self._nics[name], **values))
