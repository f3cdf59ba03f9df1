"""ethtool's features over generic netlink: one as a knob, and all that bulking has to do with; and a fake of them.

Sources: Documentation/networking/ethtool-netlink.rst, include/uapi/linux/ethtool_netlink.h (features since 5.7).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from flowfast.kernel.genl import Genl
from flowfast.kernel.napi import napis
from flowfast.kernel.netlink import attribute, attributes, nested, text
from flowfast.kernel.nic_settings import nic_settings, of_device
from flowfast.kernel.shield import ShieldKnob
from flowfast.kernel.sizes import sizes
from flowfast.model.bulk import FEATURES, HELD, NAPI, OFFLOADS, DeviceKnobs, knob_of
from flowfast.model.errors import KernelError
from flowfast.model.knob import Knob, KnobKind, Settings
from flowfast.model.link import Link

_FEATURES_GET, _FEATURES_SET = 11, 12
_HW, _WANTED, _ACTIVE, _NOCHANGE = 2, 3, 4, 5
_NOMASK, _BITS = 1, 3
_BIT, _BIT_NAME, _BIT_VALUE = 1, 2, 3

MOST_INTERFACES = 256
"""xfrm interfaces above which none is asked: a third of a millisecond each, thousands would hold up every round."""
SYSFS = Path("/sys/class/net")


class Bulk(Protocol):
    """What devices do about bulking."""

    def look(self, links: Iterable[Link]) -> Mapping[str, DeviceKnobs]:
        """The stages of these devices and what belongs to them. A device that is gone is not there."""


class Features:
    """The features of devices of the network namespace in which it is called."""

    def read(self, device: str) -> tuple[dict[str, str], frozenset[str]]:
        """Features "on" or "off", by name, and which of them the driver lets nobody turn. Raises KernelError."""
        with Genl("ethtool") as ethtool:
            return _features(ethtool, device)

    def write(self, device: str, name: str, on: bool) -> None:
        """Turns one. Raises KernelError, also where the kernel took the request and left the feature as it was."""
        bit = [attribute(_BIT_NAME, name.encode() + b"\0")]
        if on:
            bit.append(attribute(_BIT_VALUE, b""))
        with Genl("ethtool") as ethtool:
            ethtool.request(_FEATURES_SET, of_device(device) + nested(_WANTED, nested(_BITS, nested(_BIT, *bit))))
            found = _features(ethtool, device)[0]
        if (found.get(name) == "on") is not on:
            raise KernelError(
                f"{device}: {name} stays {'off' if on else 'on'}: the driver does not let it be turned", 95
            )


def _features(ethtool: Genl, device: str) -> tuple[dict[str, str], frozenset[str]]:
    for sets in ethtool.request(_FEATURES_GET, of_device(device)):
        able, active, fixed = (set(_bits(sets[kind])) for kind in (_HW, _ACTIVE, _NOCHANGE))
        known = able | active | fixed | {*FEATURES, *OFFLOADS}
        values = {name: "on" if name in active else "off" for name in known}
        return values, frozenset(name for name in known if name in fixed or name not in able)
    raise KernelError(f"ethtool: {device}: no answer about its features", 0)


def _bits(bitset: memoryview) -> Iterator[str]:
    """Names of the bits that are set, of a verbose bitset."""
    found = list(attributes(bitset))
    nomask = any(kind == _NOMASK for kind, _ in found)
    for kind, bits in found:
        if kind == _BITS:
            for _, bit in attributes(bits):
                parts = dict(attributes(bit))
                if nomask or _BIT_VALUE in parts:
                    yield text(parts[_BIT_NAME])


class FeatureKnob:
    """One feature, "on" or "off", as a knob."""

    def __init__(self) -> None:
        self._features = Features()

    def read(self, knob: Knob) -> str | None:
        """None where the device is not there, or not of a kind that has features."""
        try:
            return self._features.read(knob.object)[0].get(knob.name)
        except KernelError:
            return None

    def lists(self, device: str) -> bool:
        """Whether fraglist GRO is on there."""
        return all(self.read(Knob(KnobKind.FEATURE, device, name)) == "on" for name in ("rx-gro", "rx-gro-list"))

    def write(self, knob: Knob, value: str) -> None:
        """Turns it. Raises KernelError."""
        self._features.write(knob.object, knob.name, value == "on")


class RealBulk:
    """The machine's."""

    def __init__(self) -> None:
        self._features, self._shield = Features(), ShieldKnob()

    def look(self, links: Iterable[Link]) -> Mapping[str, DeviceKnobs]:
        """Asks for all NAPIs and what drivers have at once, for features and limits of each, and its files."""
        every = list(links)
        few = sum(link.is_xfrm for link in every) <= MOST_INTERFACES
        shown, settings = napis(), nic_settings()
        found = {}
        for link in every if few else [link for link in every if not link.is_xfrm]:
            try:
                values, fixed = self._features.read(link.name)
                limits = sizes(link.ifindex)
            except KernelError:
                continue  # gone since, or without features
            ours = {name: values[name] for name in (*FEATURES, *OFFLOADS)} | dict(limits)
            own = shown.get(link.ifindex, {}) if shown is not None else {}
            ours |= {**own, **settings.get(link.ifindex, {})}
            ours |= _files(link, NAPI if shown is None else NAPI[2:] if own and not _threads(own) else ())
            shield = self._shield.read(Knob(KnobKind.SHIELD, link.name, "shield")) if not link.is_xfrm else None
            ours |= {"shield": shield} if shield else {}
            if shield == "on":
                ours[HELD] = "on" if self._shield.held(link.name) else "off"
            found[link.name] = DeviceKnobs(ours, fixed & {*FEATURES, *OFFLOADS})
        return found


def _threads(napi: Iterable[str]) -> bool:
    return any(name.endswith(" threaded") for name in napi)


def _files(link: Link, names: Iterable[str]) -> dict[str, str]:
    """What sysfs has of the device; nothing where /sys is of another network namespace."""
    folder = SYSFS / link.name
    try:
        if int((folder / "ifindex").read_text()) != link.ifindex:
            return {}
    except OSError:
        return {}
    found = {}
    for name in names:
        try:
            found[name] = (folder / name).read_text().strip()
        except OSError:  # before the kernel that has it, or a device without NAPI
            continue
    return found


class FakeBulk:
    """Devices as a test has them. `held`: knobs as they were turned since, of a FakeKnobs."""

    def __init__(self, knobs: Mapping[str, DeviceKnobs] | None = None) -> None:
        self.knobs = dict(knobs or {})
        self.held: Settings = {}

    def look(self, links: Iterable[Link]) -> Mapping[str, DeviceKnobs]:
        """What was set, of devices that are there, and turned since."""
        return {link.name: self._now(link.name) for link in links if link.name in self.knobs}

    def _now(self, device: str) -> DeviceKnobs:
        made = self.knobs[device]
        held = {knob.name: value for knob, value in self.held.items() if knob == knob_of(device, knob.name)}
        renewed = any(name.startswith("napi ") for name in held)
        values = {name: value for name, value in made.values.items() if not (renewed and name.startswith("napi "))}
        return replace(made, values=values | held)
