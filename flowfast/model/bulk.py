"""Packet bulking: stages, the knobs of a device, what the lab qualified, and how packets arrive."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


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
NAPI = ("gro_flush_timeout", "napi_defer_hard_irqs", "threaded")
"""Attributes in /sys/class/net/DEVICE: nanoseconds (3.19), a count (5.8), 0 or 1 (5.12)."""


@dataclass(frozen=True, slots=True)
class DeviceKnobs:
    """FEATURES, NAPI and "shield" of a device as they are: "on", "off", a number. What it does not have is not there.

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


@dataclass(frozen=True, slots=True)
class Choice:
    """A stage that the governor wants, and the figures that speak for it; none while it is trying."""

    stage: Stage
    why: str = ""


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
    contested: frozenset[tuple[str, str]] = frozenset()
    """Device and knob: something else turned them back as often as flowfast turned them."""
    chosen: Mapping[str, Choice] = field(default_factory=dict)
    """Devices of profile auto: the stage that their traffic is found to want (plan/governor.py)."""
