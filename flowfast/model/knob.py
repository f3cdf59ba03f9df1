"""Knob: one setting of the machine beside nftables, that is turned only after its old value is in the journal."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import NamedTuple


class KnobKind(StrEnum):
    """Where a knob is, and how its value is written."""

    DEVICE = "device"  # a file under /sys/class/net/OBJECT: "queues/rx-0/rps_cpus"
    FEATURE = "feature"  # the ethtool feature NAME of device OBJECT: "on" or "off"
    SHIELD = "shield"  # our XDP program against what ESP does to merged packets on device OBJECT: "on" or "off"
    IRQ = "irq"  # a file under /proc/irq/OBJECT: "smp_affinity_list"
    SYSCTL = "sysctl"  # the sysctl NAME; no object
    XDP = "xdp"  # the XDP program on device OBJECT, by its name; "none"
    RSS = "rss"  # of device OBJECT: "indirection", queues in the order of their slots; "rx-flow-hash KIND", as "sdfn"
    NTUPLE = "ntuple"  # the ntuple rule at location NAME of device OBJECT, in ethtool's words; "none"
    NAPI = "napi"  # a setting of one NAPI of device OBJECT: "napi 8193 gro_flush_timeout"
    SIZE = "size"  # a limit that rtnetlink has for device OBJECT: "gro_max_size"
    NIC = "nic"  # a setting of device OBJECT's driver over ethtool netlink: "rings rx", "coalesce rx-usecs"
    MODULE = "module"  # the kernel module NAME: "loaded" or "absent"; no object


class Knob(NamedTuple):
    """One setting: kind, the object that has it ("lan0", "24"), and its name there. Values are strings.

    A set of CPUs is a list ("0-3,8") whatever the file wants, so that equal sets are equal strings.
    """

    kind: KnobKind
    object: str
    name: str

    def __str__(self) -> str:
        return f"{self.object} {self.name}" if self.object else self.name


HIDDEN = "?"
"""Value of a knob that is there, and that the kernel does not show now: one of a NAPI while its device is down."""


@dataclass(frozen=True, slots=True)
class Turned:
    """A knob that was turned: what it was before flowfast, and what flowfast made of it.

    Two values in `ours`: it was to be turned from one to the other, and nobody has said yet that it was.
    `made`: what it was found to be after the last turn, which is not always what was asked for: drivers round. None:
    nobody has looked yet.
    """

    before: str
    ours: tuple[str, ...]
    made: str | None = None

    def is_ours(self, knob: Knob, held: str) -> bool:
        """Whether the value is flowfast's doing. What a driver made of a turn that nobody looked at is, too."""
        unseen = self.made is None and knob.kind is KnobKind.NIC
        return held in self.ours or held == self.made or unseen


class Denial(NamedTuple):
    """A value of a knob that the kernel would not have, and what it said."""

    value: str
    words: str


Settings = Mapping[Knob, str]
"""Knobs with the values that are wanted, or held."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One change of a knob. `back`: to what it was before flowfast."""

    knob: Knob
    value: str
    held: str
    back: bool = False

    def __str__(self) -> str:
        ending = ", as before flowfast" if self.back else ""
        if self.knob.kind is KnobKind.RSS and "," in self.value:  # hundreds of slots: that some change says more
            held, value = self.held.split(","), self.value.split(",")
            changed = sum(was != now for was, now in zip_longest(held, value))
            return f"{self.knob}: {changed} of {len(value)} slots to other queues{ending}"
        return f"{self.knob}: {self.held or 'none'} -> {self.value or 'none'}{ending}"
