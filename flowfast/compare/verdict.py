"""From the windows to factors, and whether they may be believed. Pure.

A factor compares like with like or not at all: where the traffic of the two paths differed too much, where there was
too little of it, or where hardly any of it was fast, there is no verdict, but a Reason that says what to do.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from flowfast.compare.estimate import Estimate, factor
from flowfast.compare.result import WORDS, Arm, Findings, OfTunnel, Way, Window
from flowfast.compare.split import tunnels_apart
from flowfast.model.reason import Reason, Severity

LEAST_PAIRS = 2
LEAST_SOFTIRQ = 0.05
"""CPU seconds of a window, below which /proc/stat (hundredths of a second) is too coarse."""
LEAST_PACKETS = 500
RATE, SIZE, MIX = 1.25, 1.1, 0.15
"""What traffic may differ by: times as many packets a second, times as large, share that went elsewhere."""
SATURATED = 0.95
"""Of a CPU's time: the router had no more to give, so that it carried more on one path because it could."""
LEAST_FAST, MOST_FAST = 0.1, 0.8
"""Share of the bytes on the flowtable in fast windows: below the first nothing is compared, below the second a mix."""
UNSURE = 1.25
"""Times the factor: an interval that reaches further wants a longer experiment."""

Pair = tuple[Window, Window]
Number = Callable[[Window], float | None]


def find(windows: Sequence[Window]) -> Findings:
    """All factors, the verdict, and every reason that says no or wants a grain of salt."""
    pairs = pairs_of(windows)
    per_packet = _cost(pairs, lambda window: window.seconds_per_packet)
    refusals = _refusals(pairs)
    return Findings(
        factor=None if refusals else per_packet,
        per_packet=per_packet,
        per_bit=_cost(pairs, lambda window: window.seconds_per_bit),
        throughput=_gain(pairs, lambda window: window.bytes / window.seconds),
        latency=_cost(pairs, lambda window: window.latency.median if window.latency else None),
        tunnels=_tunnels(pairs, refused=bool(refusals)),
        reasons=(*refusals, *_remarks(windows, pairs, per_packet, refused=bool(refusals))),
    )


def pairs_of(windows: Sequence[Window]) -> list[Pair]:
    """Neighbours, (full, fast), both of them sound; a window without its neighbour is left out."""
    pairs = []
    for one, other in zip(windows[::2], windows[1::2], strict=False):
        if one.spoiled is None and other.spoiled is None and one.arm != other.arm:
            pairs.append((one, other) if one.arm == "full" else (other, one))
    return pairs


def _cost(pairs: Iterable[Pair], number: Number) -> Estimate | None:
    return factor([(number(full), number(fast)) for full, fast in pairs])


def _gain(pairs: Iterable[Pair], number: Number) -> Estimate | None:
    return factor([(number(fast), number(full)) for full, fast in pairs])


def ways_of(windows: Iterable[Window]) -> list[Way]:
    """Tunnels and directions that carried anything, the busiest first."""
    total: Counter[Way] = Counter()
    for window in windows:
        for each in window.carried:
            total[each.tunnel, each.direction] += each.bytes
    return [way for way, _ in total.most_common()]


def _tunnels(pairs: Sequence[Pair], *, refused: bool) -> tuple[OfTunnel, ...]:
    ways = ways_of(window for pair in pairs for window in pair)
    names = list(dict.fromkeys(tunnel for tunnel, _ in ways))
    costs = tunnels_apart(pairs, names) if not refused else dict.fromkeys(names)
    found = []
    for name in names:
        throughput = {way[1]: _gain(pairs, _rate(way)) for way in ways if way[0] == name}
        why = None if costs[name] or refused else _not_apart(name)
        found.append(OfTunnel(name, costs[name], throughput, why))
    return tuple(found)


def _rate(way: Way) -> Number:
    return lambda window: window.way(way).bytes / window.seconds


def _not_apart(name: str) -> Reason:
    sentence = "its CPU time cannot be told from that of other tunnels: they rise and fall together, or it is small"
    return Reason("NOT_APART", name, sentence, "more --seconds, or a time at which it carries more", Severity.INFO)


def _refusals(pairs: Sequence[Pair]) -> list[Reason]:
    if len(pairs) < LEAST_PAIRS:
        sentence = f"{len(pairs)} whole pairs of windows, and it takes {LEAST_PAIRS} to know how sure a factor is"
        return [Reason("TOO_FEW_WINDOWS", "compare", sentence, "let it run to its end, or give it more --seconds")]
    windows = [window for pair in pairs for window in pair]
    softirq = min(fmean(window.softirq for window in each) for each in zip(*pairs, strict=True))
    packets = min(window.packets for window in windows)
    if softirq < LEAST_SOFTIRQ or packets < LEAST_PACKETS:
        sentence = f"{packets} packets in the quietest window, {softirq:.3f} s of CPU time in one on average"
        remedy = "longer windows (--seconds, --windows), or a time of day with more traffic in the tunnels"
        return [Reason("TOO_LITTLE_TRAFFIC", "compare", sentence, remedy)]
    return [*_differences(pairs), *_not_fast(pairs)]


def _differences(pairs: Sequence[Pair]) -> list[Reason]:
    """Why the traffic of the two paths cannot be compared."""
    fulls, fasts = [full for full, _ in pairs], [fast for _, fast in pairs]
    said = []
    rate = _gain(pairs, lambda window: window.packets / window.seconds)
    if rate and _far(rate.value, RATE) and not saturated(fulls):
        said.append(f"{rate.value:.2f} times as many packets a second on the fast path, and no CPU was at its limit")
    size = _gain(pairs, lambda window: window.bytes / window.packets if window.packets else None)
    if size and _far(size.value, SIZE):
        said.append(f"packets {size.value:.2f} times as large on the fast path")
    mix = _distance(_shares(fulls), _shares(fasts))
    if mix > MIX:
        said.append(f"{mix:.0%} of the bytes were other tunnels' or directions'")
    remedy = "repeat it with more --windows, or when the traffic is steadier"
    return [Reason("TRAFFIC_DIFFERED", "compare", sentence, remedy) for sentence in said]


def _not_fast(pairs: Sequence[Pair]) -> list[Reason]:
    share = fast_share([fast for _, fast in pairs])
    if share is None or share >= LEAST_FAST:
        return []
    sentence = f"{share:.0%} of the bytes were on the flowtable in the windows of the fast path"
    return [Reason("NOTHING_FAST", "compare", sentence, "flowfast explain says why a connection is not fast")]


def _remarks(windows: Sequence[Window], pairs: Sequence[Pair], cost: Estimate | None, *, refused: bool) -> list[Reason]:
    """What to know beside the verdict."""
    found = [
        Reason("WINDOW_SPOILED", f"window {number}", window.spoiled, severity=Severity.INFO)
        for number, window in enumerate(windows, 1)
        if window.spoiled is not None
    ]
    if refused:
        return found
    share = fast_share([fast for _, fast in pairs])
    if share is not None and LEAST_FAST <= share < MOST_FAST:
        sentence = f"{share:.0%} of the bytes were on the flowtable in its windows: the factor is of this mix"
        remedy = "flowfast explain says why a connection is not fast"
        found.append(Reason("PARTLY_FAST", "compare", sentence, remedy, Severity.INFO))
    if saturated([full for full, _ in pairs]):
        sentence = "a CPU was at its limit on the full path: throughput is what the router could, not what was asked"
        found.append(Reason("SATURATED", "compare", sentence, severity=Severity.INFO))
    if cost and cost.low and cost.high and max(cost.high / cost.value, cost.value / cost.low) > UNSURE:
        sentence = f"the factor is known from {cost.low:.2f} to {cost.high:.2f} only"
        found.append(Reason("UNSURE", "compare", sentence, "more --seconds", Severity.INFO))
    return found + _dropped("full", [full for full, _ in pairs]) + _dropped("fast", [fast for _, fast in pairs])


def _dropped(arm: Arm, windows: Sequence[Window]) -> list[Reason]:
    drops: Counter[str] = Counter()
    for window in windows:
        drops.update(window.drops)
    listed = ", ".join(f"{name} {count:,}" for name, count in drops.most_common(4) if count)
    return [Reason("DROPS", WORDS[arm], f"dropped: {listed}", severity=Severity.INFO)] if listed else []


def saturated(windows: Sequence[Window]) -> bool:
    """True where a CPU had hardly any idle time in most of these windows."""
    return bool(windows) and fmean(window.busiest for window in windows) >= SATURATED


def fast_share(windows: Sequence[Window]) -> float | None:
    """Share of the bytes on the flowtable; None where it is not counted."""
    known = [window for window in windows if window.fast_share is not None]
    total = sum(window.bytes for window in known)
    return sum((window.fast_share or 0) * window.bytes for window in known) / total if total else None


def _far(value: float, most: float) -> bool:
    return abs(math.log(value)) > math.log(most)


def _shares(windows: Iterable[Window]) -> dict[Way, float]:
    total: Counter[Way] = Counter()
    for window in windows:
        for each in window.carried:
            total[each.tunnel, each.direction] += each.bytes
    everything = sum(total.values())
    return {way: part / everything for way, part in total.items()} if everything else {}


def _distance(one: dict[Way, float], other: dict[Way, float]) -> float:
    """Share of the bytes that would have to go elsewhere to make one of the other, 0 to 1."""
    return sum(abs(one.get(way, 0) - other.get(way, 0)) for way in {*one, *other}) / 2
