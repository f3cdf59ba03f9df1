"""The report's plots as inline SVG, drawn by matplotlib. Colours are CSS variables, so that the page chooses them."""

from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from math import ceil
from typing import Any

from flowfast.lab.demo.result import WAYS, Part, Sample, Way, pairs
from flowfast.lab.demo.verdict import ENOUGH, PATHS, WORDS
from flowfast.page.figure import FAST, FULL, MARK, SOFT, WIDTH, figure_of

BIN = 0.05
"""Seconds of guest time that a point of a plot over time stands for."""


def timeline(part: Part) -> str:
    """Throughput over time, a panel for each path, and one for what came after the controllers were killed."""
    fast = [each for each in part.windows if each.route == "fast"]
    panels = {
        PATHS["full"]: [each for each in part.windows if each.route == "full"],
        PATHS["fast"]: [each for each in fast if each.start < part.killed],
        "kill -9": [each for each in fast if each.start >= part.killed],
    }
    spans = {
        words: (min(each.start for each in windows) - 0.1, max(each.end for each in windows) + 0.1)
        for words, windows in panels.items()
        if windows
    }
    with figure_of(WIDTH, 3.0) as (figure, save):
        widths = [end - start for start, end in spans.values()]
        row = figure.subplots(1, len(spans), sharey=True, squeeze=False, width_ratios=widths)[0]
        for axes, (words, (start, end)) in zip(row, spans.items(), strict=True):
            _areas(axes, part, start, end, unit=1e6)
            axes.set_title(words)
            axes.set_xticks(
                [*range(ceil(start), ceil(end))][:: ceil((end - start) / 8)] or [round((start + end) / 2, 1)]
            )
        row[0].set_ylabel("Mbit/s of inner packets")
        figure.supxlabel("seconds of guest time", fontsize=9)
        _ways(row[0])
        return save(f"Throughput over time on both paths, {part.topology}")


def switch_over(part: Part) -> str:
    """The streams while flowfast started, by path."""
    with figure_of(WIDTH, 2.3) as (figure, save):
        axes = figure.subplots()
        _areas(axes, part, part.started - 0.25, part.applied + 0.45, unit=1e3, step=0.1, room=1.5)
        _mark(axes, part.started, "flowfast run starts")
        _legend(axes)
        _ways(axes, right=True)
        axes.set_ylabel("kbit/s of inner packets")
        axes.set_xlabel("seconds of guest time")
        return save(f"Traffic by path while flowfast started, {part.topology}")


def throughput(part: Part) -> str:
    """Bars of both paths, a panel for each load, a pair of bars for each tunnel, family and direction."""
    found = list(pairs(part))
    with figure_of(WIDTH, 0.55 + 0.42 * len(part.lanes)) as (figure, save):
        panels = figure.subplots(1, len({full.load for full, _ in found}), sharey=True, squeeze=False)[0]
        for axes, load in zip(panels, dict.fromkeys(full.load for full, _ in found), strict=True):
            mine = [(full, fast) for full, fast in found if full.load == load]
            for row, (full, fast) in enumerate(mine):
                _pair(axes, row, full.bits_per_second, fast.bits_per_second, 1e6, better_is_more=True)
            _rows(axes, [_lane(full.lane.tunnel, full.lane.family, full.lane.way) for full, _ in mine])
            axes.set_title(load)
            axes.set_xlabel("Mbit/s")
        return save(f"Throughput on both paths, {part.topology}")


def cost(parts: Sequence[Part]) -> str:
    """Bars of what a packet costs the gateway on both paths."""
    rows = [
        (f"{c.of}, {WORDS[way]}", *((c.tx_full, c.tx_fast) if way == "tx" else (c.rx_full, c.rx_fast)))
        for part in parts
        for c in part.costs
        for way in WAYS
    ]
    with figure_of(WIDTH, 0.5 + 0.42 * len(rows)) as (figure, save):
        axes = figure.subplots()
        for row, (_, full, fast) in enumerate(rows):
            _pair(axes, row, full, fast, 1e3, better_is_more=False)
        _rows(axes, [label for label, _, _ in rows])
        axes.set_xlabel("thousand instructions of gw1 for one packet")
        return save("What one packet costs the gateway on both paths")


def shares(parts: Sequence[Part]) -> str:
    """How the bytes of each tunnel and direction were divided between the paths while flowfast ran."""
    rows = [
        (f"{tunnel}, {WORDS[way]}", part.carried(tunnel, way, "fast").fast_share)
        for part in parts
        for tunnel in part.tunnels
        for way in WAYS
    ]
    with figure_of(WIDTH, 0.5 + 0.3 * len(rows)) as (figure, save):
        axes = figure.subplots()
        for row, (_, share) in enumerate(rows):
            if share is not None:
                axes.barh(row, share * 100, color=FAST, height=0.55)
                axes.barh(row, 100 - share * 100, left=share * 100, color=FULL, height=0.55)
                axes.text(101, row, f"{share:.2%}", va="center", fontsize=8)
        _rows(axes, [label for label, _ in rows])
        axes.set_xlim(0, 110)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.axvline(ENOUGH * 100, color=MARK, linewidth=1, linestyle=(0, (2, 2)))
        axes.text(ENOUGH * 100 - 0.5, -0.6, f"{ENOUGH:.0%} wanted", ha="right", va="bottom", fontsize=8, color=MARK)
        axes.set_xlabel("% of the bytes on the flowtable, while flowfast ran")
        return save("Share of the bytes on the fast path")


# --- pieces ----------------------------------------------------------------------------------------------------------


def _lane(tunnel: str, family: int, way: Way) -> str:
    return f"{tunnel} IPv{family}\n{WORDS[way]}"


def _rows(axes: Any, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def _pair(axes: Any, row: int, full: float | None, fast: float | None, unit: float, *, better_is_more: bool) -> None:
    """Two bars, and the factor between them at the end of the second."""
    for at, value, color in ((row - 0.19, full, FULL), (row + 0.19, fast, FAST)):
        if value is not None:
            axes.barh(at, value / unit, height=0.34, color=color)
    if full and fast:
        factor = fast / full if better_is_more else full / fast
        axes.annotate(
            f"{factor:.2f}x", (fast / unit, row + 0.19), (3, 0), textcoords="offset points", va="center", fontsize=8
        )
        axes.margins(x=0.16)


def _areas(
    axes: Any, part: Part, start: float, end: float, *, unit: float, step: float = BIN, room: float = 1.0
) -> None:
    """Stacked areas of both paths, one way up and one way down; `room` for words above and below."""
    for way in WAYS:
        sign = 1 if way == "tx" else -1
        at, full, fast = series(part, way, start, end, step)
        low = [sign * value / unit for value in full]
        high = [sign * (one + other) / unit for one, other in zip(full, fast, strict=True)]
        axes.fill_between(at, low, step="post", color=FULL, linewidth=0)
        axes.fill_between(at, high, low, step="post", color=FAST, linewidth=0)
    most = room * max(abs(value) for value in axes.get_ylim())
    axes.set_ylim(-most, most)
    axes.set_xlim(start, end)
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.grid(axis="y")


def _ways(axes: Any, right: bool = False) -> None:
    """Says what is up and what is down, in the corners of one side."""
    x, ha = (0.995, "right") if right else (0.006, "left")
    for y, va, way in ((0.97, "top", WAYS[0]), (0.03, "bottom", WAYS[1])):
        axes.text(x, y, WORDS[way], transform=axes.transAxes, fontsize=8, ha=ha, va=va, weight="bold")


def _mark(axes: Any, at: float, words: str) -> None:
    """A moment, and what happened then."""
    axes.axvline(at, color=MARK, linewidth=1, linestyle=(0, (2, 2)))
    where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    axes.annotate(words, (at, 0.97), (3, 0), **where, ha="left", va="top", fontsize=8, color=MARK)


def _legend(axes: Any) -> None:
    patch = import_module("matplotlib.patches").Patch
    patches = [patch(color=FULL, label=PATHS["full"]), patch(color=FAST, label=PATHS["fast"])]
    axes.legend(handles=patches, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1, fontsize=8)


def series(
    part: Part, way: Way, start: float, end: float, step: float = BIN
) -> tuple[list[float], list[float], list[float]]:
    """Moments, and bits a second on the full path and on the flowtable from each moment to the next.

    Until flowfast was started everything took the full path: what GRO saves there in headers is no fast path.
    """
    moments = [start + number * step for number in range(int((end - start) / step) + 1)]
    totals = [_at(part.samples, moment, way) for moment in moments]
    full, fast = [], []
    for moment, (before, after) in zip(moments, pairwise(totals), strict=False):
        total, forward = after[0] - before[0], after[1] - before[1]
        slow = total if moment + step <= part.started else min(forward, total)
        full.append(slow * 8 / step)
        fast.append((total - slow) * 8 / step)
    return moments[:-1], full, fast


def _at(samples: Sequence[Sample], moment: float, way: Way) -> tuple[float, float]:
    """Totals at a moment, between two samples in proportion: all bytes, and those that the forward chain saw."""

    def values(sample: Sample) -> tuple[int, int]:
        return (sample.tx, sample.forward_tx) if way == "tx" else (sample.rx, sample.forward_rx)

    for before, after in pairwise(samples):
        if before.at <= moment < after.at:
            part = (moment - before.at) / (after.at - before.at)
            (total, forward), (more, more_forward) = values(before), values(after)
            return total + (more - total) * part, forward + (more_forward - forward) * part
    edge = samples[0] if moment < samples[0].at else samples[-1]
    return values(edge)
