"""Rings, channels and interrupt coalescing of NICs, over ethtool netlink; each setting as a knob.

A dump asks all devices at once; a device whose driver has none of them is not in it. Sources:
Documentation/networking/ethtool-netlink.rst, include/uapi/linux/ethtool_netlink.h (rings, channels, coalescing: 5.7).
"""

from collections.abc import Iterator, Mapping
from functools import partial
from struct import Struct
from sys import byteorder
from typing import NamedTuple

from flowfast.kernel.genl import Attributes, Genl, absent
from flowfast.kernel.netlink import attribute, attributes, nested
from flowfast.model.errors import KernelError
from flowfast.model.knob import Knob

_HEADER, _DEV_INDEX, _DEV_NAME = 1, 1, 2
_U8, _U32 = Struct("=B"), Struct("=I")


class _Group(NamedTuple):
    """Settings that one message has: the commands to get and set them, their attributes, those of their limits."""

    get: int
    set: int
    numbers: Mapping[str, int]
    limits: Mapping[str, int] = {}
    switches: Mapping[str, int] = {}


GROUPS = {
    "rings": _Group(15, 16, {"rx": 6, "tx": 9}, {"rx": 2, "tx": 5}),
    "channels": _Group(17, 18, {"rx": 6, "tx": 7, "combined": 9}, {"rx": 2, "tx": 3, "combined": 5}),
    "coalesce": _Group(
        19,
        20,
        {"rx-usecs": 2, "rx-frames": 3, "tx-usecs": 6, "tx-frames": 7},
        switches={"adaptive-rx": 11, "adaptive-tx": 12},
    ),
}
"""By the first word of a knob's name: "rings rx", "coalesce adaptive-rx". Names as in ethtool(8)."""


def nic_settings() -> Mapping[int, Mapping[str, str]]:
    """By ifindex what the device's driver has of these; "on" or "off", or a number. Raises KernelError."""
    found: dict[int, dict[str, str]] = {}
    try:
        with Genl("ethtool") as ethtool:
            for name, group in GROUPS.items():
                for index, settings in ethtool.dump(group.get, nested(_HEADER), partial(_decode, name, group)):
                    found.setdefault(index, {}).update(settings)
    except KernelError as refused:
        if not absent(refused):
            raise
    return found


def _decode(name: str, group: _Group, found: Attributes) -> Iterator[tuple[int, dict[str, str]]]:
    header = dict(attributes(found[_HEADER]))
    yield int.from_bytes(header[_DEV_INDEX], byteorder), dict(_settings(name, group, found))


def _settings(name: str, group: _Group, found: Attributes) -> Iterator[tuple[str, str]]:
    """What the driver can set: one whose limit is 0 it cannot."""
    for word, at in group.numbers.items():
        limit = group.limits.get(word)
        if at in found and (limit is None or any(found.get(limit, b""))):
            yield f"{name} {word}", str(int.from_bytes(found[at], byteorder))
    for word, at in group.switches.items():
        if at in found:
            yield f"{name} {word}", "on" if any(found[at]) else "off"


class NicKnob:
    """One of the settings."""

    def read(self, knob: Knob) -> str | None:
        """None where the device is not there, or its driver has no such setting."""
        name = knob.name.partition(" ")[0]
        group = GROUPS[name]
        try:
            with Genl("ethtool") as ethtool:
                (found,) = ethtool.request(group.get, of_device(knob.object))
        except KernelError:
            return None
        return dict(_settings(name, group, found)).get(knob.name)

    def write(self, knob: Knob, value: str) -> None:
        """Sets it; the driver keeps the others. Raises KernelError."""
        name, _, word = knob.name.partition(" ")
        group = GROUPS[name]
        if word in group.switches:
            wanted = attribute(group.switches[word], _U8.pack(value == "on"))
        else:
            wanted = attribute(group.numbers[word], _U32.pack(int(value)))
        with Genl("ethtool") as ethtool:
            ethtool.request(group.set, of_device(knob.object) + wanted)


def of_device(device: str) -> bytes:
    """The header of a request about one device."""
    return nested(_HEADER, attribute(_DEV_NAME, device.encode() + b"\0"))
