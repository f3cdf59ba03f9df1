"""The devices that a config means, among those that are there."""

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

from flowfast.config.hints import instead
from flowfast.config.load import LoadedConfig
from flowfast.config.problem import Path, Problem
from flowfast.config.selectors import Device, Traits
from flowfast.config.values import is_glob

Drivers = Mapping[str, str | None]
"""Name of a device -> its driver, where it has one."""
Features = Mapping[str, Collection[str]]
"""Name of a device -> its ethtool features that are on."""


def matching(
    wanted: Iterable[Device],
    existing: Iterable[str],
    *,
    drivers: Drivers | None = None,
    features: Features | None = None,
) -> tuple[str, ...]:
    """The devices among `existing` that an entry of `wanted` means, sorted.

    A device of which no driver or no features are given has none.
    """
    entries, there = tuple(wanted), set(existing)
    names = there.intersection(entry for entry in entries if isinstance(entry, str) and not is_glob(entry))
    globs = tuple(entry for entry in entries if isinstance(entry, str) and is_glob(entry))
    traits = tuple(entry for entry in entries if isinstance(entry, Traits))
    return tuple(
        sorted(
            name
            for name in there
            if name in names
            or any(fnmatchcase(name, glob) for glob in globs)
            or any(_has(name, one, drivers or {}, features or {}) for one in traits)
        )
    )


def _has(name: str, traits: Traits, drivers: Drivers, features: Features) -> bool:
    if traits.name is not None and not fnmatchcase(name, traits.name):
        return False
    if traits.driver is not None and not fnmatchcase(drivers.get(name) or "", traits.driver):
        return False
    return traits.feature is None or traits.feature in features.get(name, ())


def check_devices(
    loaded: LoadedConfig, existing: Iterable[str], *, drivers: Drivers | None = None, features: Features | None = None
) -> list[Problem]:
    """What cannot work with the devices that are there: a name without a device, a device on both sides by two entries.

    A glob, a driver or a feature that matches nothing (yet) is fine. xfrm interfaces of tunnels are not looked for: the
    IKE daemon may make them later.
    """
    there, devices = sorted(set(existing)), loaded.config.devices
    problems = []
    for side, entries in (("lan", devices.lan), ("wan", devices.wan)):
        for at, name in enumerate(entries):
            if isinstance(name, str) and not is_glob(name) and name not in there:
                remedy = instead(name, there)
                path: Path = ("devices", side, at)
                problems.append(loaded.problem(path, f'no device named "{name}"', remedy, about=path[:-1]))
    lan = set(matching(devices.lan, there, drivers=drivers, features=features))
    for at, entry in enumerate(devices.wan):
        for name in sorted(lan.intersection(matching([entry], there, drivers=drivers, features=features))):
            sentence, remedy = f'the device "{name}" is matched by devices.lan too', "make one of the two narrower"
            problems.append(loaded.problem(("devices", "wan", at), sentence, remedy, about=("devices", "wan")))
    return problems
