"""Steering, decided: which SA's packets go to which CPU, and by what; and seen: where they really went."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from flowfast.model.reason import Reason
from flowfast.model.sa import Direction

SLOTS = 128
"""Of the table that shares the LAN's flows out (SPREAD in bpf/steer.bpf.c): fine enough for 64 CPUs."""


GENERIC = "generic "
"""Before a program's name in the value of a knob: it runs behind the driver, not in it."""


class Side(StrEnum):
    """Which way a device faces."""

    LAN = "lan"
    WAN = "wan"


class Backend(StrEnum):
    """What brings a packet to its CPU."""

    NTUPLE = "ntuple"  # the NIC, by a rule for each SPI
    RSS = "rss"  # the NIC, by hash, with an indirection table that has each SPI's slot where it belongs
    RPS = "rps"  # the kernel, by a hash that nobody can foresee
    XDP = "xdp"  # our program, by SPI (WAN) or flow (LAN), through cpumap


class SaId(NamedTuple):
    """An SA of a tunnel, or a part of one: EESP counts its sub SAs by session id, which an ESP SA has none of."""

    tunnel: str
    direction: Direction
    spi: int
    sub_id: int = 0


class Sighted(NamedTuple):
    """An SA by direction and SPI, as the kernel's own functions know it."""

    direction: Direction
    spi: int


Sightings = Mapping[tuple[Direction, int], Mapping[int, int]]
"""By SA (Sighted) and CPU: packets that were really processed there, while somebody looked."""


class Share(NamedTuple):
    """So many packets of so many."""

    some: int
    all: int

    @property
    def ratio(self) -> float | None:
        """0 to 1; None of nothing."""
        return self.some / self.all if self.all else None


class Owner(NamedTuple):
    """A tunnel's SAs of one direction and CPU: what outlives rekeys."""

    tunnel: str
    direction: Direction
    pcpu: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an SA's packets go. `pcpu` None: the fallback SA. `cpu` None: where a hash, or the sender, has it."""

    sa: SaId
    pcpu: int | None
    device: str | None = None
    backend: Backend | None = None
    queue: int | None = None
    irq: int | None = None
    cpu: int | None = None

    @property
    def exact(self) -> bool:
        """True where the SA's own CPU is certain to get its packets."""
        return self.pcpu is not None and self.cpu == self.pcpu


@dataclass(frozen=True, slots=True)
class Table:
    """What an XDP program on a device is to hold: CPUs by SPI (WAN), or by slot of the flow's hash (LAN)."""

    device: str
    cpus: tuple[int, ...]
    sas: Mapping[int, int] = field(default_factory=dict)
    spread: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Steering:
    """The plan: CPUs that carry SAs, what is used on each device, the place of each SA, and the programs' tables.

    `reasons`: what it could not do, or not as it should; they are among those of Desired, too.
    """

    cpus: tuple[int, ...] = ()
    backends: Mapping[str, Backend] = field(default_factory=dict)
    placements: tuple[Placement, ...] = ()
    tables: tuple[Table, ...] = ()
    reasons: tuple[Reason, ...] = ()
