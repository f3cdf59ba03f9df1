"""How a config names devices: by name, by glob, or by what they are (driver, ethtool feature).

The planner's question - which of the devices that are there does this mean? - is answered in devices.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import PlainValidator, WithJsonSchema

from flowfast.config.problem import Fault, Faulty, faulty, quoted
from flowfast.config.scalar import Kind, scalar
from flowfast.config.values import DEVICE_TEXT, device_pattern, is_glob, words

_DRIVER = re.compile(r"[A-Za-z0-9_.*?\[\]!-]{1,32}")
_FEATURE = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")  # ETH_GSTRING_LEN is 32, with the zero (include/uapi/linux/ethtool.h)


@dataclass(frozen=True, slots=True)
class Traits:
    """Devices by what they are. Everything given must hold; `name` and `driver` may be globs."""

    name: str | None = None
    driver: str | None = None
    feature: str | None = None
    """An ethtool feature, as `ethtool -k` calls it, that is on."""

    def __str__(self) -> str:
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return "{" + ", ".join(f"{key}: {value}" for key, value in given if value is not None) + "}"


Device = str | Traits
"""One entry of devices.lan or devices.wan; a str is a name or a glob."""


def driver_pattern(value: object) -> str:
    """The name of a driver, or a glob of names."""
    name = words(value, "the name of a driver or a glob")
    if not _DRIVER.fullmatch(name):
        raise faulty(f"{quoted(name)} cannot be the name of a driver", "`ethtool -i DEVICE` shows it")
    return name


def feature_name(value: object) -> str:
    """The name of an ethtool feature."""
    name = words(value, "the name of an ethtool feature")
    if not _FEATURE.fullmatch(name):
        raise faulty(f"{quoted(name)} cannot be the name of an ethtool feature", "`ethtool -k DEVICE` shows them")
    return name


_READERS = {"name": device_pattern, "driver": driver_pattern, "feature": feature_name}


def device(value: object) -> Device:
    """A name, a glob, or a mapping with `driver`, `feature`, and a `name` to narrow them down."""
    if isinstance(value, Traits):
        return value
    return _traits(value) if isinstance(value, Mapping) else device_pattern(value)


def _traits(value: Mapping[str, object]) -> Traits:
    faults: list[Fault] = []
    read: dict[str, str] = {}
    for key, item in value.items():
        if key not in _READERS:
            near = get_close_matches(key[:64], _READERS, n=1)
            remedy = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(_READERS)}"
            faults.append(Fault("unknown key", remedy, (key, "[key]")))
            continue
        one = scalar(item)
        if one is not None and one.kind is Kind.NOTHING:
            continue
        try:
            read[key] = _READERS[key](item)
        except Faulty as error:
            faults += [Fault(each.sentence, each.remedy, (key, *each.path)) for each in error.faults]
    if not faults and not read:
        faults.append(Fault("nothing says which devices these are", "give a driver, a feature, or both"))
    if faults:
        raise Faulty(*faults)
    return Traits(**read)


def same(one: Device, other: Device) -> bool:
    """True where both surely name one device: equal, or a name and a glob that it matches.

    Of two globs, or of drivers and features, only the devices that are there can tell: see devices.check_devices.
    """
    if not isinstance(one, str) or not isinstance(other, str):
        return one == other
    return one == other or (is_glob(one) is not is_glob(other) and (fnmatchcase(one, other) or fnmatchcase(other, one)))


DeviceSelector = Annotated[
    Device,
    PlainValidator(device),
    WithJsonSchema(
        {
            "anyOf": [
                {**DEVICE_TEXT, "maxLength": 64},
                {
                    "type": "object",
                    "description": "Devices by what they are; everything given must hold.",
                    "properties": {
                        "name": {**DEVICE_TEXT, "maxLength": 64, "description": "Name or glob."},
                        "driver": {
                            "type": "string",
                            "pattern": f"^{_DRIVER.pattern}$",
                            "description": "Driver, as `ethtool -i` says it, or a glob of drivers.",
                        },
                        "feature": {
                            "type": "string",
                            "pattern": f"^{_FEATURE.pattern}$",
                            "description": "An ethtool feature that is on, as `ethtool -k` calls it.",
                        },
                    },
                    "additionalProperties": False,
                    "minProperties": 1,
                },
            ]
        }
    ),
]
