"""What the demo measured, as dataclasses, and their way through JSON. The guest writes it, the host reads it.

Everything is seen from gw1: `tx` is LAN to tunnel, `rx` tunnel to LAN. Seconds are guest time since the scenario
began; with --icount one of them is 10^9 instructions of the guest's only CPU. Bytes are inner bytes, IP header
included. None: the kernel did not tell, or it was not measured.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Way = Literal["tx", "rx"]
Route = Literal["full", "fast"]
"""Which path the router was set up for: "full" before flowfast ran, "fast" since."""

WAYS: tuple[Way, ...] = ("tx", "rx")
ROUTES: tuple[Route, ...] = ("full", "fast")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Inner bytes and packets, as an SA counted them; and what of it the forward chain saw, by the firewall's counter.

    A packet of the forward chain may be several of the SA's: GRO makes one of many, and counts their headers once.
    """

    bytes: int = 0
    packets: int = 0
    forward_bytes: int = 0
    forward_packets: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.bytes + other.bytes,
            self.packets + other.packets,
            self.forward_bytes + other.forward_bytes,
            self.forward_packets + other.forward_packets,
        )

    @property
    def fast_share(self) -> float | None:
        """Share of the bytes that passed the forward chain by, 0 to 1; None if there were none."""
        return max(0.0, 1 - self.forward_bytes / self.bytes) if self.bytes else None


@dataclass(frozen=True, slots=True)
class Lane:
    """One tunnel, one family, one way: what loads and rows are by."""

    tunnel: str
    family: Literal[4, 6]
    way: Way


@dataclass(frozen=True, slots=True)
class Window:
    """One load on one lane over one path. `bits_per_second` of inner bytes; `lost` packets of `sent` (UDP only)."""

    lane: Lane
    load: str
    route: Route
    start: float
    end: float
    tx: Traffic
    rx: Traffic
    bits_per_second: float | None
    sent: int | None = None
    lost: int | None = None

    @property
    def traffic(self) -> Traffic:
        """What went the load's own way; the other way go acknowledgements."""
        return self.tx if self.lane.way == "tx" else self.rx


@dataclass(frozen=True, slots=True)
class SaTraffic:
    """One SA of gw1, and what it carried in the windows of each path."""

    tunnel: str
    way: Way
    spi: int
    algorithm: str
    cpu: int | None
    full: Traffic
    fast: Traffic


@dataclass(frozen=True, slots=True)
class Sample:
    """Running totals at one moment: inner bytes by way, and of them those that the forward chain saw."""

    at: float
    tx: int
    rx: int
    forward_tx: int
    forward_rx: int


@dataclass(frozen=True, slots=True)
class Wire:
    """What left through both ends of the WAN. `esp` as the SAs counted them; `unencrypted`: neither ESP nor IKE, ARP,
    neighbour discovery; `inner` of them are from or to a tunnel's networks, `examples` in words; `missed`: unencrypted
    packets that the capture had no room for."""

    packets: int
    esp: int
    unencrypted: int
    missed: int
    examples: tuple[str, ...] = ()
    inner: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """Instructions that gw1's CPU spends on one 60-byte UDP packet (IPv4), from NIC to NIC; `of`: whose packet."""

    of: str
    tx_full: float | None = None
    tx_fast: float | None = None
    rx_full: float | None = None
    rx_fast: float | None = None


@dataclass(frozen=True, slots=True)
class EspWork:
    """One SA of gw1, where a NIC can do ESP: whether it should, the device that the SA is in, if it is in one, and how
    many ESP packets the CPU encrypted or decrypted; of one in a device, by the sequence numbers that it gave or saw."""

    tunnel: str
    way: Way
    spi: int
    wanted: bool
    device: str | None
    packets: int
    by_cpu: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Numbered UDP packets, sent and echoed while flowfast started; every payload was compared."""

    tunnel: str
    family: Literal[4, 6]
    sent: int
    lost: int
    reordered: int
    corrupt: int


@dataclass(frozen=True, slots=True)
class Part:
    """One guest: one topology, its tunnels, everything measured there."""

    name: str
    topology: str
    windows: tuple[Window, ...]
    sas: tuple[SaTraffic, ...]
    samples: tuple[Sample, ...]
    started: float
    """When `flowfast run` was started, and when all gateways had applied; then, when the controllers were killed."""
    applied: float
    killed: float
    streams: tuple[Stream, ...]
    full_wire: Wire
    fast_wire: Wire
    costs: tuple[Cost, ...]
    offloaded: tuple[str, ...]
    """Connections as conntrack lists them."""
    ruleset: str
    config: str
    metrics: str
    versions: dict[str, str]
    esp: tuple[EspWork, ...] = ()
    """Only where a NIC does some of it."""

    @property
    def lanes(self) -> list[Lane]:
        """In the order in which they were first loaded."""
        return list(dict.fromkeys(window.lane for window in self.windows))

    @property
    def tunnels(self) -> list[str]:
        """In the same order."""
        return list(dict.fromkeys(lane.tunnel for lane in self.lanes))

    @property
    def loads(self) -> list[str]:
        """In the same order."""
        return list(dict.fromkeys(window.load for window in self.windows))

    def window(self, lane: Lane, load: str, route: Route) -> Window | None:
        """The first window of that kind."""
        return next((w for w in self.windows if (w.lane, w.load, w.route) == (lane, load, route)), None)

    def carried(self, tunnel: str, way: Way, route: Route) -> Traffic:
        """What a tunnel carried one way in all windows of a path, acknowledgements included."""
        mine = [each for each in self.windows if each.lane.tunnel == tunnel and each.route == route]
        return sum((each.tx if way == "tx" else each.rx for each in mine), Traffic())


@dataclass(frozen=True, slots=True)
class Result:
    """The whole demo. `failures`: parts that did not come to their end, each with a line that says why."""

    version: str
    date: str
    image: str
    kernel: str
    host: str
    seconds: float
    parts: tuple[Part, ...] = ()
    failures: tuple[str, ...] = field(default=())


def to_json(result: Result | Part) -> str:
    """On one line."""
    return json.dumps(asdict(result), separators=(",", ":"))


def part_of(data: Any) -> Part:
    """A Part from what json.loads gave. Raises ValueError (pydantic's) if it is none."""
    # Here and not above: the guest writes and never reads, and each import costs it seconds under emulation.
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(Part).validate_python(data)


def result_of(data: Any) -> Result:
    """A Result from what json.loads gave. Raises ValueError (pydantic's) if it is none."""
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(Result).validate_python(data)


def factor(full: float | None, fast: float | None) -> float | None:
    """How many times `fast` is of `full`; None where either is unknown or there was nothing."""
    return fast / full if full and fast is not None else None


def pairs(part: Part) -> Iterator[tuple[Window, Window]]:
    """Windows of the same lane and load on both paths: (full, fast)."""
    for lane in part.lanes:
        for load in part.loads:
            full, fast = part.window(lane, load, "full"), part.window(lane, load, "fast")
            if full is not None and fast is not None:
                yield full, fast


def geometric_mean(factors: Iterable[float | None]) -> float | None:
    """The mean of factors that are known; None without one."""
    known = [each for each in factors if each]
    product = 1.0
    for each in known:
        product *= each
    return product ** (1 / len(known)) if known else None


def sa_rate(part: Part, sa: SaTraffic, route: Route) -> float | None:
    """Bits a second of an SA over all loads of its own way, each for as long as it took. None if one is unknown.

    Loads that ran on one path only are left out, so that both paths carried the same.
    """
    paired = [pair[ROUTES.index(route)] for pair in pairs(part)]
    mine = [each for each in paired if (each.lane.tunnel, each.lane.way) == (sa.tunnel, sa.way)]
    bits, seconds = 0.0, 0.0
    for window in mine:
        if not window.bits_per_second:
            return None
        bits += window.traffic.bytes * 8
        seconds += window.traffic.bytes * 8 / window.bits_per_second
    return bits / seconds if seconds else None
