"""The report: one HTML file that needs nothing but itself. jinja2 and matplotlib are an extra, and the host's only."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from flowfast.lab.demo import tables
from flowfast.lab.demo.result import Result, factor, geometric_mean, pairs, sa_rate
from flowfast.lab.demo.verdict import ENOUGH, WORDS, problems
from flowfast.page import check, page

__all__ = ["check", "headlines", "render"]

TEMPLATE = Path(__file__).with_name("report.html.j2")


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure in large type, and what it is."""

    figure: str
    words: str


def render(result: Result) -> str:
    """The page. Raises Unavailable as check() does."""
    check()
    return page(
        TEMPLATE,
        {
            "number": tables.number,
            "whole": tables.whole,
            "mbit": tables.mbit,
            "times": tables.times,
            "percent": lambda traffic: tables.share(traffic).plain,
            "enough": lambda traffic: (traffic.fast_share or 0) >= ENOUGH,
        },
        result=result,
        problems=problems(result),
        headlines=headlines(result),
        plots=import_module("flowfast.lab.demo.plots"),  # an extra of the host
        words=WORDS,
        pairs=pairs,
        factor=factor,
        sa_rate=sa_rate,
        remarks=tables.remarks,
    )


def headlines(result: Result) -> list[Headline]:
    """What to say in one line; only what was measured."""
    found = []
    for words, mean in (
        (
            "less work for the gateway itself, for each small packet (mean of topologies and directions)",
            geometric_mean(
                each
                for part in result.parts
                for cost in part.costs
                for each in (factor(cost.tx_fast, cost.tx_full), factor(cost.rx_fast, cost.rx_full))
            ),
        ),
        *(
            (
                f"throughput, {load} (both hosts, both gateways and iperf3 on one CPU)",
                geometric_mean(
                    factor(full.bits_per_second, fast.bits_per_second)
                    for part in result.parts
                    for full, fast in pairs(part)
                    if full.load == load
                ),
            )
            for load in dict.fromkeys(load for part in result.parts for load in part.loads)
        ),
    ):
        if mean is not None:
            found.append(Headline(f"{mean:.2f}x", words))
    worst = [
        share
        for part in result.parts
        for tunnel in part.tunnels
        for way in WORDS
        if (share := part.carried(tunnel, way, "fast").fast_share) is not None
    ]
    if worst:
        found.append(
            Headline(f"{min(worst):.2%}", "of the bytes on the fast path, in the tunnel and direction with the fewest")
        )
    wires = [wire for part in result.parts for wire in (part.full_wire, part.fast_wire)]
    inner, packets = sum(wire.inner for wire in wires), sum(wire.packets for wire in wires)
    found.append(Headline(f"{inner}", f"of {packets:,} packets on the WAN were a tunnel's and not encrypted"))
    return found
