"""NAPIs over netdev netlink, each with its own settings since 6.13; before, sysfs has one of each for the device.

To write a device's file would write all its NAPIs' settings over (netdev_set_gro_flush_timeout, net/core/dev.h), so
that one or the other is used, never both. A NAPI is known by its ID, which no other one gets: a driver that makes its
NAPIs anew (channels, XDP, down and up) gives new IDs, and they begin as the device's files say; those of one that has
netif_napi_add_config() keep both. Source: include/uapi/linux/netdev.h.
"""

from collections.abc import Iterable, Iterator, Mapping
from socket import if_nametoindex
from struct import Struct
from sys import byteorder

from flowfast.kernel.genl import Attributes, Genl, absent
from flowfast.kernel.netlink import attribute
from flowfast.model.bulk import napi_setting
from flowfast.model.errors import KernelError
from flowfast.model.knob import HIDDEN, Knob

_GET, _SET = 11, 14
_IFINDEX, _ID = 1, 2
_SETTINGS = {"napi_defer_hard_irqs": 5, "gro_flush_timeout": 6, "threaded": 8}
"""By the names of their files in sysfs; threaded since 6.17."""
_U32, _U64 = Struct("=I"), Struct("=Q")


def napis(ifindexes: Iterable[int] | None = None) -> Mapping[int, Mapping[str, str]] | None:
    """By ifindex the settings of its NAPIs ("napi 8193 gro_flush_timeout"); of those devices, or of all that are up.

    None before 6.13. NAPIs that only send, and those of gro_cells, have no ID and are not there. Raises KernelError.
    """
    try:
        with Genl("netdev") as netdev:
            if _SET not in netdev.commands:
                return None
            asked = [b""] if ifindexes is None else [attribute(_IFINDEX, _U32.pack(index)) for index in ifindexes]
            found: dict[int, dict[str, str]] = {}
            for body in asked:
                for index, settings in netdev.dump(_GET, body, _decode):
                    found.setdefault(index, {}).update(settings)
            return found
    except KernelError as refused:
        if absent(refused):
            return None
        raise


def _one(number: int) -> dict[int, dict[str, str]]:
    """The settings of one NAPI by its device's ifindex; empty where it is not there, or its device is down."""
    with Genl("netdev") as netdev:
        try:
            return dict(found for answer in netdev.request(_GET, _of(number)) for found in _decode(answer))
        except KernelError as refused:
            if absent(refused):
                return {}
            raise


def _of(number: int) -> bytes:
    return attribute(_ID, _U32.pack(number))


def _decode(found: Attributes) -> Iterator[tuple[int, dict[str, str]]]:
    number = _number(found[_ID])
    settings = {napi_setting(number, name): str(_number(found[at])) for name, at in _SETTINGS.items() if at in found}
    yield _number(found[_IFINDEX]), settings


def _number(payload: memoryview) -> int:
    """The kernel writes a number of any size in four bytes where it fits (nla_put_uint)."""
    return int.from_bytes(payload, byteorder)


class NapiKnob:
    """One setting of one NAPI."""

    def read(self, knob: Knob) -> str | None:
        """HIDDEN where the device shows no NAPI at all: it is down. None where it has others by now."""
        try:
            index = if_nametoindex(knob.object)
            found = _one(int(knob.name.split()[1])).get(index)
            if found is None:
                every = napis([index])
                return None if every is None or every else HIDDEN
        except OSError:
            return None
        except KernelError as refused:
            if absent(refused):
                return None
            raise
        return found.get(knob.name)

    def write(self, knob: Knob, value: str) -> None:
        """Sets it. Raises KernelError."""
        _, number, name = knob.name.split()
        wide = name == "gro_flush_timeout"
        setting = attribute(_SETTINGS[name], (_U64 if wide else _U32).pack(int(value)))
        with Genl("netdev") as netdev:
            netdev.request(_SET, _of(int(number)) + setting)
