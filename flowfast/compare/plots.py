"""The report's plots: what every window cost, the factors with their intervals, throughput over the experiment."""

from collections.abc import Callable, Sequence

from flowfast.compare.estimate import Estimate
from flowfast.compare.result import WORDS, Arm, Result, Window
from flowfast.page.figure import FAST, FULL, INK, SOFT, WIDTH, figure_of

_COLOURS: dict[Arm, str] = {"full": FULL, "fast": FAST}


def cost(result: Result) -> str:
    """CPU time of a packet, a point a window, in the order in which they ran."""
    return _points(
        result.windows,
        lambda window: None if window.seconds_per_packet is None else window.seconds_per_packet * 1e6,
        "CPU seconds\nfor a million packets",
        "CPU time of a packet in every window",
    )


def carried(result: Result) -> str:
    """Packets a second, the same way: whether both paths saw the same traffic."""
    return _points(
        result.windows,
        lambda window: window.packets / window.seconds / 1e3 if window.seconds else None,
        "thousand packets\na second",
        "Packets a second in every window",
    )


def factors(result: Result) -> str:
    """Every factor with its interval, on a logarithmic scale: right of 1 the fast path is better."""
    found = result.findings
    rows: list[tuple[str, Estimate]] = [
        (words, estimate)
        for words, estimate in (
            ("CPU time of a packet", found.per_packet),
            ("CPU time of a bit", found.per_bit),
            ("carried", found.throughput),
            ("through the router", found.latency),
            *((f"{each.tunnel}: CPU time of a packet", each.cpu) for each in found.tunnels[:16]),
        )
        if estimate is not None
    ]
    with figure_of(WIDTH, 0.8 + 0.34 * len(rows)) as (figure, save):
        axes = figure.subplots()
        axes.axvline(1, color=SOFT, linewidth=1)
        for at, (_, estimate) in enumerate(rows):
            if estimate.low is not None and estimate.high is not None:
                axes.plot([estimate.low, estimate.high], [at, at], color=FAST, linewidth=2)
            axes.plot([estimate.value], [at], "o", color=FAST, markersize=6)
            where = {"xy": (estimate.value, at), "xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
            axes.annotate(f"{estimate.value:.2f}x", **where)
        axes.set_yticks(range(len(rows)), [words for words, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.8)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, 0.8), max(high, 1.25))
        ticks = [each for each in (0.25, 0.5, 0.8, 1, 1.25, 1.5, 2, 3, 4, 6, 8) if low <= each <= high or each == 1]
        axes.set_xticks(ticks, [f"{each:g}x" for each in ticks])
        axes.minorticks_off()
        return save("Factors of the fast path over the full path")


def _points(windows: Sequence[Window], number: Callable[[Window], float | None], label: str, title: str) -> str:
    with figure_of(WIDTH, 2.4) as (figure, save):
        axes = figure.subplots()
        most = 0.0
        for at, window in enumerate(windows, 1):
            value = number(window)
            if value is None:
                continue
            most = max(most, value)
            filled = window.spoiled is None
            colour = _COLOURS[window.arm]
            axes.plot([at], [value], "o", color=colour, markersize=8, markerfacecolor=colour if filled else "none")
        for arm, colour in _COLOURS.items():
            axes.plot([], [], "o", color=colour, label=WORDS[arm])
        axes.set_ylim(0, most * 1.15 or 1)
        axes.set_xlim(0.5, len(windows) + 0.5)
        axes.set_xlabel("window")
        axes.set_ylabel(label)
        axes.grid(axis="y")
        axes.legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.16), labelcolor=INK)
        return save(title)
