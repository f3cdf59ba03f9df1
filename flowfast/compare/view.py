"""A result in words and rows, the same for the terminal and the report. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from flowfast.compare.estimate import Estimate
from flowfast.compare.result import Findings, Result, Way, Window
from flowfast.compare.verdict import Pair, fast_share
from flowfast.model.sa import Direction

MOST_SAS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: what it is about, its figure on both paths, and how many times the fast path is better."""

    what: str
    full: str
    fast: str
    factor: Estimate | None = None


@dataclass(frozen=True, slots=True)
class TunnelRow:
    """One direction of a tunnel: bits and packets a second on both paths; CPU time is of both directions together."""

    tunnel: str
    direction: str
    full: str
    fast: str
    throughput: Estimate | None
    cpu: Estimate | None


@dataclass(frozen=True, slots=True)
class SaRow:
    """One SA, bits and packets a second on both paths."""

    tunnel: str
    direction: str
    spi: int | None
    full: str
    fast: str


def verdict(result: Result) -> str:
    """One sentence."""
    factor = result.findings.factor
    if factor is None:
        return "No verdict."
    if not factor.differs:
        return f"No difference shows: on the full path a packet costs {times(factor)} the CPU time ({sure(factor)})."
    if factor.value < 1:
        return f"On the fast path a packet costs {1 / factor.value:.2f}x the CPU time ({sure(factor)})."
    return f"On the full L3 path a packet costs {times(factor)} the CPU time of the fast path ({sure(factor)})."


def times(factor: Estimate | None) -> str:
    """ "2.03x"; "-" where it is unknown."""
    return "-" if factor is None else f"{factor.value:.2f}x"


def sure(factor: Estimate | None) -> str:
    """The interval."""
    if factor is None or factor.low is None or factor.high is None:
        return "-"
    return f"{factor.low:.2f} to {factor.high:.2f}, 95 %"


def rows(pairs: Sequence[Pair], findings: Findings) -> list[Row]:
    """What is said of the whole router; `pairs` is not empty."""
    fulls, fasts = _arms(pairs)

    def row(what: str, text: Callable[[Sequence[Window]], str], factor: Estimate | None = None) -> Row:
        return Row(what, text(fulls), text(fasts), factor)

    found = [
        row("CPU seconds for a million packets", _mean("seconds_per_packet", 1e6), findings.per_packet),
        row("CPU seconds for a gigabit", _mean("seconds_per_bit", 1e9), findings.per_bit),
        row("carried", _carried, findings.throughput),
    ]
    if findings.latency:
        found.append(row("through the router, median", _latency("median"), findings.latency))
        found.append(row("through the router, slowest percent", _latency("p99")))
    return [
        *found,
        row("busiest CPU", lambda windows: f"{fmean(window.busiest for window in windows):.0%}"),
        row("dropped packets", lambda windows: f"{sum(window.dropped for window in windows):,}"),
        row("bytes on the flowtable", _share),
    ]


def tunnel_rows(pairs: Sequence[Pair], findings: Findings) -> list[TunnelRow]:
    """A row for each tunnel and direction that carried anything."""
    fulls, fasts = _arms(pairs)
    found = []
    for each in findings.tunnels:
        for direction, throughput in sorted(each.throughput.items(), key=lambda item: item[0] != Direction.OUT):
            way = (each.tunnel, direction)
            found.append(TunnelRow(*way, _way(fulls, way), _way(fasts, way), throughput, each.cpu))
    return found


def sa_rows(pairs: Sequence[Pair]) -> list[SaRow]:
    """The busiest SAs."""
    fulls, fasts = _arms(pairs)
    keys: dict[tuple[str, str, int | None], int] = {}
    for window in (*fulls, *fasts):
        for each in window.carried:
            key = (each.tunnel, each.direction, each.spi)
            keys[key] = keys.get(key, 0) + each.bytes
    busiest = sorted(keys, key=lambda key: -keys[key])[:MOST_SAS]
    return [SaRow(*key, _sa(fulls, key), _sa(fasts, key)) for key in busiest]


def _arms(pairs: Sequence[Pair]) -> tuple[list[Window], list[Window]]:
    return [full for full, _ in pairs], [fast for _, fast in pairs]


def _mean(number: str, unit: float) -> Callable[[Sequence[Window]], str]:
    def text(windows: Sequence[Window]) -> str:
        known = [value for window in windows if (value := getattr(window, number)) is not None]
        return f"{fmean(known) * unit:.3g}" if known else "-"

    return text


def _carried(windows: Sequence[Window]) -> str:
    return _rates(sum(each.bytes for each in windows), sum(each.packets for each in windows), windows)


def _way(windows: Sequence[Window], way: Way) -> str:
    carried = [window.way(way) for window in windows]
    return _rates(sum(each.bytes for each in carried), sum(each.packets for each in carried), windows)


def _sa(windows: Sequence[Window], key: tuple[str, str, int | None]) -> str:
    carried = [each for window in windows for each in window.carried if (each.tunnel, each.direction, each.spi) == key]
    return _rates(sum(each.bytes for each in carried), sum(each.packets for each in carried), windows)


def _rates(octets: int, packets: int, windows: Sequence[Window]) -> str:
    seconds = sum(window.seconds for window in windows)
    return f"{rate(8 * octets / seconds, 'bit/s')}, {rate(packets / seconds, 'packets/s')}"


def rate(value: float, unit: str) -> str:
    """Three digits: "1.23 Gbit/s", "45.6 kpackets/s"."""
    for prefix in ("", "k", "M"):
        if value < 999.5:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} G{unit}"


def _latency(which: str) -> Callable[[Sequence[Window]], str]:
    def text(windows: Sequence[Window]) -> str:
        known = [getattr(window.latency, which) for window in windows if window.latency]
        return f"{fmean(known) * 1e6:.3g} us" if known else "-"

    return text


def _share(windows: Sequence[Window]) -> str:
    share = fast_share(windows)
    return "-" if share is None else f"{share:.1%}"
