"""Knob: one setting of the machine beside nftables, that is turned only after its old value is in the journal."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
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


class Knob(NamedTuple):
    """One setting: kind, the object that has it ("lan0", "24"), and its name there. Values are strings.

    A set of CPUs is a list ("0-3,8") whatever the file wants, so that equal sets are equal strings.
    """

    kind: KnobKind
    object: str
    name: str

    def __str__(self) -> str:
        return f"{self.object} {self.name}" if self.object else self.name


@dataclass(frozen=True, slots=True)
class Turned:
    """A knob that was turned: what it was before flowfast, and what flowfast made of it.

    Two values in `ours`: it was to be turned from one to the other, and nobody has said yet that it was.
    """

    before: str
    ours: tuple[str, ...]


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
        return f"{self.knob}: {self.held or 'none'} -> {self.value or 'none'}{ending}"
