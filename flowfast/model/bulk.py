"""Packet bulking: stages, the knobs of a device, what the lab qualified, and how packets arrive."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from flowfast.model.knob import Knob, KnobKind


def kernel_id(release: str) -> str:
    """A kernel's release (uname -r) without what does not change its code: 7.2.12+deb14 of 7.2.12+deb14-cloud-amd64."""
    return re.sub(r"(-cloud)?-[a-z][a-z0-9_]*$", "", release)


class Stage(StrEnum):
    """Where packets of a flow are put together before the stack sees them; each includes the ones before it."""

    OFF = "off"
    GRO = "gro"  # TCP only
    UDP = "udp-gro-forwarding"  # UDP too: payloads put together, taken apart at the way out
    LIST = "gro-list"  # UDP and TCP, as a list of packets that stay as they are


class Side(StrEnum):
    """Whose packets a stage puts together."""

    LAN = "lan"  # those that go into ESP afterwards
    WAN = "wan"  # those that came out of it


class Verdict(StrEnum):
    """What became of the packets of one kind."""

    WHOLE = "whole"  # all arrived, once, in order, byte for byte
    LOST = "lost"
    CORRUPT = "corrupt"
    PANIC = "panic"  # the kernel died
    UNKNOWN = "unknown"  # not tried


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """What a cell of the table is about. `driver` of the device that the stage is on; `outer` is ESP's IP version.

    `esp_offload`: esp4_offload and esp6_offload were loaded before the SAs were made. `finished`: packets arrive with
    finished checksums.
    """

    driver: str
    finished: bool
    topology: str
    outer: Literal[4, 6]
    side: Side
    stage: Stage
    esp_offload: bool
    shield: bool = False
    """Our XDP program is on the device (kernel/shield.py)."""

    def __str__(self) -> str:
        module = "with" if self.esp_offload else "without"
        shielded = ", shielded" if self.shield else ""
        unfinished = "" if self.finished else ", unfinished checksums"
        return (
            f"{self.stage} on {self.driver}, {self.side}, {self.topology}, {module} esp_offload{unfinished}{shielded}"
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """One case in the lab: the verdict for each kind of packet.

    `merged`: UDP packets that travelled as one on average, over all sizes. None: nothing was counted.
    """

    case: Case
    date: str
    verdicts: Mapping[str, Verdict]
    merged: float | None = None

    def failing(self) -> dict[str, Verdict]:
        """Kinds that did not arrive whole, the worst first; those not tried are among them."""
        worst = [Verdict.PANIC, Verdict.CORRUPT, Verdict.LOST, Verdict.UNKNOWN]
        failed = {kind: verdict for kind, verdict in self.verdicts.items() if verdict is not Verdict.WHOLE}
        return dict(sorted(failed.items(), key=lambda item: worst.index(item[1])))


ENOUGH = 100
"""Packets below which nothing is said of how many travel as one."""
FEATURES = ("rx-gro", "rx-gro-list", "rx-udp-gro-forwarding", "rx-gro-hw", "rx-lro", "rx-checksum")
"""ethtool features that have to do with bulking, by the kernel's names (net/ethtool/common.c)."""
OFFLOADS = ("tx-esp-segmentation", "esp-hw-offload", "esp-tx-csum-hw-offload", "tx-gso-list")
"""ethtool features on the way out, that only an override turns."""
NAPI = ("gro_flush_timeout", "napi_defer_hard_irqs", "threaded")
"""Attributes in /sys/class/net/DEVICE: nanoseconds (3.19), a count (5.8), 0 or 1 (5.12). From 6.13 on each NAPI has its
own, "napi 8193 gro_flush_timeout" (threaded: 6.17)."""
SIZES = ("gro_max_size", "gro_ipv4_max_size", "gso_max_size", "gso_ipv4_max_size")
"""rtnetlink's limits of packets that travel as one, in bytes."""
NIC = ("rings ", "channels ", "coalesce ")
"""How the names of what drivers have begin: "rings rx", "coalesce adaptive-rx"."""
SYSCTLS = (
    "net.core.gro_normal_batch",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.dev_weight",
    "net.core.netdev_max_backlog",
    "net.core.qdisc_max_burst",
)
"""Of the whole machine; seen in the first network namespace alone. netdev_max_backlog bounds gro_cells, too."""
MODULES = ("esp4_offload", "esp6_offload")


def napi_setting(number: int, name: str) -> str:
    """The name of a setting of one NAPI, by its ID."""
    return f"napi {number} {name}"


def knob_of(device: str, name: str) -> Knob:
    """The knob behind a name in DeviceKnobs."""
    if name == "shield":
        return Knob(KnobKind.SHIELD, device, name)
    if name.startswith("napi "):
        return Knob(KnobKind.NAPI, device, name)
    if name in NAPI:
        return Knob(KnobKind.DEVICE, device, name)
    if name in SIZES:
        return Knob(KnobKind.SIZE, device, name)
    return Knob(KnobKind.NIC if name.startswith(NIC) else KnobKind.FEATURE, device, name)


HELD = "shield-held"
"""Whether nobody can take the shield off by a slip."""


@dataclass(frozen=True, slots=True)
class DeviceKnobs:
    """Everything of a device that has to do with bulking, as it is: "on", "off", a number. What it does not have is not
    there. The names: FEATURES, OFFLOADS, NAPI (or each NAPI's own), SIZES, NIC's, "shield" and HELD.

    `fixed` are those that the driver does not let anybody turn.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()

    @property
    def stage(self) -> Stage:
        """The stage that is on: the kernel prefers the list where both are (udp_gro_receive, udp_offload.c)."""
        if self.values.get("rx-gro") != "on":
            return Stage.OFF
        if self.values.get("rx-gro-list") == "on":
            return Stage.LIST
        return Stage.UDP if self.values.get("rx-udp-gro-forwarding") == "on" else Stage.GRO

    def napi(self, setting: str) -> list[str]:
        """The names that a NAPI's setting has here: one for each NAPI, or the device's for all of them; or none."""
        if setting in self.values:
            return [setting]
        return [name for name in self.values if name.startswith("napi ") and name.endswith(f" {setting}")]


@dataclass(frozen=True, slots=True)
class Bulked:
    """A device on which bulking matters to IPsec. `stage` is on; `best` of those that leave all packets whole here, or
    whose risk is accepted."""

    device: str
    side: Side
    driver: str | None
    profile: str
    stage: Stage
    best: Stage
    shielded: bool


@dataclass(frozen=True, slots=True)
class Arrival:
    """How packets arrived at a device while somebody looked. `unfinished`: their checksum was not finished.

    `wire`: packets that its driver received meanwhile; `stack`: those that the stack saw of them, without the outer
    packets of tunnels. `received`: packets that its driver ever received. None: not counted.
    """

    seen: int
    unfinished: int
    wire: int | None = None
    stack: int | None = None
    received: int | None = None

    @property
    def factor(self) -> float | None:
        """How many packets travelled as one. None: too few were seen to say."""
        if self.wire is None or not self.stack or self.wire < ENOUGH:
            return None
        return self.wire / self.stack


class Figures(NamedTuple):
    """What was seen of a stage while it was tried: packets that travelled as one, seconds of softirq for each on the
    wire (None: too few to say)."""

    factor: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """A stage that the governor wants, and the figures that speak for it; none while it is trying."""

    stage: Stage
    why: str = ""
    tried: Mapping[Stage, Figures] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BulkState:
    """What the router has to do with bulking. `esp_offload`: None where it is not known."""

    release: str = ""
    esp_offload: bool | None = None
    knobs: Mapping[str, DeviceKnobs] = field(default_factory=dict)
    arrivals: Mapping[str, Arrival] = field(default_factory=dict)
    table: tuple[Cell, ...] = ()
    """The cells of this kernel."""
    tested: tuple[str, ...] = ()
    """Kernels that the table knows."""
    turned_back: Mapping[Knob, int] = field(default_factory=dict)
    """How often something else turned a knob back that flowfast had turned."""
    chosen: Mapping[str, Choice] = field(default_factory=dict)
    """Devices of profile auto: the stage that their traffic is found to want (plan/governor.py)."""
    modules: Mapping[str, bool] = field(default_factory=dict)
    """MODULES: which are loaded, or built in."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """SYSCTLS that are there."""
