"""Device names and globs of a config against the devices that are there."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from flowfast.config.hints import nearest
from flowfast.config.load import LoadedConfig
from flowfast.config.problem import Path, Problem
from flowfast.config.values import is_glob


def matching(patterns: Iterable[str], existing: Iterable[str]) -> tuple[str, ...]:
    """The devices among `existing` that a name or glob of `patterns` means, sorted."""
    wanted = tuple(patterns)
    names = {name for name in wanted if not is_glob(name)}
    globs = tuple(name for name in wanted if is_glob(name))
    return tuple(
        sorted(name for name in set(existing) if name in names or any(fnmatchcase(name, one) for one in globs))
    )


def check_devices(loaded: LoadedConfig, existing: Iterable[str]) -> list[Problem]:
    """What cannot work with the devices that are there: a name without a device, a device on both sides by two globs.

    A glob that matches nothing (yet) is fine. xfrm interfaces of tunnels are not looked for: the IKE daemon may make
    them later.
    """
    there, devices = sorted(set(existing)), loaded.config.devices
    problems = []
    for side, patterns in (("lan", devices.lan), ("wan", devices.wan)):
        for at, name in enumerate(patterns):
            if not is_glob(name) and name not in there:
                near = nearest(name, there)
                remedy = f'did you mean "{near}"?' if near else f"there are: {', '.join(there) or 'none'}"
                path: Path = ("devices", side, at)
                problems.append(loaded.problem(path, f'no device named "{name}"', remedy, about=path[:-1]))
    for at, pattern in enumerate(devices.wan):
        for name in sorted(set(matching([pattern], there)) & set(matching(devices.lan, there))):
            sentence, remedy = f'the device "{name}" is matched by devices.lan too', "make one of the globs narrower"
            problems.append(loaded.problem(("devices", "wan", at), sentence, remedy, about=("devices", "wan")))
    return problems
