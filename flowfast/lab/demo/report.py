"""The report: one HTML file that needs nothing but itself. jinja2 and matplotlib are an extra, and the host's only."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from flowfast.lab.demo import tables
from flowfast.lab.demo.result import Result, factor, geometric_mean, pairs, sa_rate
from flowfast.lab.demo.verdict import ENOUGH, WORDS, problems
from flowfast.model.errors import Unavailable

TEMPLATE = Path(__file__).with_name("report.html.j2")


def check() -> None:
    """Raises Unavailable where what draws the report is not installed."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise Unavailable(
            f"the report needs {' and '.join(missing)}: pip install 'flowfast[report]' (or `make setup-lab`)"
        )


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure in large type, and what it is."""

    figure: str
    words: str


def render(result: Result) -> str:
    """The page. Raises Unavailable as check() does."""
    check()
    # Extras of the host: imported only where they are used.
    jinja2 = import_module("jinja2")
    plots = import_module("flowfast.lab.demo.plots")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(
        number=tables.number,
        whole=tables.whole,
        mbit=tables.mbit,
        times=tables.times,
        percent=lambda traffic: tables.share(traffic).plain,
        enough=lambda traffic: (traffic.fast_share or 0) >= ENOUGH,
    )
    page: str = environment.from_string(TEMPLATE.read_text()).render(
        result=result,
        problems=problems(result),
        headlines=headlines(result),
        plots=plots,
        words=WORDS,
        pairs=pairs,
        factor=factor,
        sa_rate=sa_rate,
        remarks=tables.remarks,
    )
    return page


def headlines(result: Result) -> list[Headline]:
    """What to say in one line; only what was measured."""
    found = []
    for words, mean in (
        (
            "less work for the gateway itself, for each small packet (mean of topologies and directions)",
            geometric_mean(
                each
                for part in result.parts
                for each in (factor(part.cost.tx_fast, part.cost.tx_full), factor(part.cost.rx_fast, part.cost.rx_full))
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
