"""What an experiment saw and found, as dataclasses, and as JSON. Nothing here is measured or decided.

Times are seconds; `start` since the epoch. Bytes are inner bytes, IP header included. None: not known.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from flowfast.compare.estimate import Estimate
from flowfast.model.reason import Reason

Arm = Literal["full", "fast"]
"""The path that a window's traffic was to take: the full L3 path, or the flowtable where a flow may be on it."""
WORDS: Mapping[Arm, str] = {"full": "full L3 path", "fast": "fast path"}

Way = tuple[str, str]
"""A tunnel's name, and "in" or "out" as this router sees it."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What one SA carried in a window; `spi` None: all of the tunnel's that are too many to list, together."""

    tunnel: str
    direction: str
    spi: int | None
    bytes: int
    packets: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that sampled packets took through the router: the median, the slowest percent, and of how many."""

    median: float
    p99: float
    packets: int


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a window: CPU seconds of interrupts and softirqs, and packets by tunnel."""

    softirq: float
    packets: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Window:
    """One window. `softirq`: CPU seconds of all CPUs in interrupts and softirqs; `process`: in programs.

    `busiest`: share of its time that the busiest CPU was busy. `slow_bytes`: inner bytes that took the full path
    although they need not, None on the full path. `drops` by what dropped them; `polls`: NET_RX softirqs; `spoiled`:
    why nothing in here counts.
    """

    arm: Arm
    start: float
    seconds: float
    softirq: float
    process: float
    busiest: float
    carried: tuple[Carried, ...] = ()
    slices: tuple[Slice, ...] = ()
    slow_bytes: int | None = None
    drops: Mapping[str, int] = field(default_factory=dict)
    polls: int = 0
    latency: Latency | None = None
    spoiled: str | None = None

    @property
    def bytes(self) -> int:
        """Of all tunnels, both directions."""
        return sum(each.bytes for each in self.carried)

    @property
    def packets(self) -> int:
        """Of all tunnels, both directions."""
        return sum(each.packets for each in self.carried)

    @property
    def dropped(self) -> int:
        """By anything."""
        return sum(self.drops.values())

    @property
    def fast_share(self) -> float | None:
        """Share of the bytes that passed the forward chain by, 0 to 1; None where it is not counted."""
        if self.arm == "full":
            return 0.0
        if self.slow_bytes is None or not self.bytes:
            return None
        return min(1.0, max(0.0, 1 - self.slow_bytes / self.bytes))

    def way(self, way: Way) -> Carried:
        """What a tunnel carried one way."""
        mine = [each for each in self.carried if (each.tunnel, each.direction) == way]
        return Carried(*way, None, sum(each.bytes for each in mine), sum(each.packets for each in mine))

    @property
    def seconds_per_packet(self) -> float | None:
        """Softirq CPU seconds for each packet."""
        return self.softirq / self.packets if self.packets else None

    @property
    def seconds_per_bit(self) -> float | None:
        """Softirq CPU seconds for each inner bit."""
        return self.softirq / (8 * self.bytes) if self.bytes else None


@dataclass(frozen=True, slots=True)
class OfTunnel:
    """Of one tunnel: how many times less CPU the fast path needs (full / fast), and by direction how many times more it
    carried (fast / full)."""

    tunnel: str
    cpu: Estimate | None
    throughput: Mapping[str, Estimate | None]
    why_not: Reason | None = None
    """Why there is no factor of CPU time."""


@dataclass(frozen=True, slots=True)
class Findings:
    """All factors: above 1 the fast path is better. `factor` is the verdict; where it is None, `reasons` say why.

    `per_packet`, `per_bit`: softirq CPU time, full / fast. `latency`: full / fast. `throughput`: fast / full.
    """

    factor: Estimate | None
    per_packet: Estimate | None
    per_bit: Estimate | None
    throughput: Estimate | None
    latency: Estimate | None
    tunnels: tuple[OfTunnel, ...] = ()
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The whole experiment."""

    version: str
    host: str
    started: float
    windows: tuple[Window, ...]
    findings: Findings
    settle: float
    seed: int
    fingerprint: Mapping[str, Any]
    fingerprint_hash: str
    ended: str | None = None
    """Why it ended before its last window; None: it did not."""


def to_json(result: Result) -> str:
    """For --json."""
    return json.dumps(asdict(result), indent=2)
