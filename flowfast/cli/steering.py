"""Steering as tables: the plan ({SA -> queue -> interrupt -> CPU}), what was seen of it, and both as JSON."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowfast.cli.columns import Column, Row
from flowfast.model.cpu import cpu_list
from flowfast.model.reason import Reason, Severity
from flowfast.model.steering import Placement, Sightings, Steering
from flowfast.plan.steering.verify import elsewhere, misplaced

if TYPE_CHECKING:
    from flowfast.plan.case import Sight


MOST = 100
"""Rows of a plan."""


def print_steering(out: Console, steering: Steering | None) -> None:
    """Where each SA's packets are to go, and by what; nothing where steering is off."""
    if steering is None:
        return
    by = ", ".join(f"{device} by {backend}" for device, backend in sorted(steering.backends.items())) or "nothing"
    out.print(f"steering {by}; flows go to CPUs {cpu_list(steering.cpus) or 'none'}", style="bold")
    listed = Table(
        "tunnel", "dir", "SPI", "SA's CPU", "device", "queue", "interrupt", "goes to CPU", box=None, pad_edge=False
    )
    shown = steering.placements
    if len(shown) > MOST:  # those that are where they should be say the least
        shown = tuple(sorted(shown, key=lambda place: place.exact or place.pcpu is None))[:MOST]
    for each in shown:
        listed.add_row(*_row(each))
    if listed.row_count:
        out.print(listed)
    if rest := len(steering.placements) - len(shown):
        out.print(f"and {rest} more (flowfast show steering --limit 0 shows all)")


def _row(place: Placement) -> tuple[str | Text, ...]:
    if place.pcpu is None:
        goes = Text("fallback: any", style="dim")
    elif place.cpu is None:
        goes = Text("by hash", style="yellow")
    else:
        goes = Text(str(place.cpu), style="green" if place.exact else "yellow")
    where = f"{place.device} ({place.backend})" if place.device else "-"
    return (
        place.sa.tunnel,
        str(place.sa.direction),
        f"0x{place.sa.spi:08x}",
        "any" if place.pcpu is None else str(place.pcpu),
        where,
        "-" if place.queue is None else str(place.queue),
        "-" if place.irq is None else str(place.irq),
        goes,
    )


STEERING = (
    Column("tunnel", "tunnel"),
    Column("dir", "direction"),
    Column("SPI", "spi", lambda value: f"{value:#010x}"),
    Column("SA's CPU", "owner"),
    Column("device", "device"),
    Column("by", "backend"),
    Column("queue", "queue"),
    Column("interrupt", "irq"),
    Column("wanted", "cpu"),
    Column("seen", "seen"),
    Column("own CPU", "own_share", lambda value: f"{value:.1%}"),
)


def steering_rows(sight: "Sight", sighted: Sightings | Reason) -> Iterator[Row]:
    """Each SA of the plan, and the CPUs that processed its packets while somebody looked; None where nobody could."""
    steering = sight.desired.steering if sight.desired else None
    for place in steering.placements if steering else ():
        by_cpu = None if isinstance(sighted, Reason) else sighted.get((place.sa.direction, place.sa.spi), {})
        total = sum(by_cpu.values()) if by_cpu else 0
        own = None if not by_cpu or place.pcpu is None else by_cpu.get(place.pcpu, 0) / total
        yield {
            **placement_json(place),
            "owner": "any" if place.pcpu is None else str(place.pcpu),
            "seen": None if not by_cpu else _seen(by_cpu),
            "packets": None if by_cpu is None else {str(cpu): packets for cpu, packets in sorted(by_cpu.items())},
            "own_share": own,
        }


def steering_reasons(sight: "Sight", sighted: Sightings | Reason) -> list[Reason]:
    """What is to be said beside the rows: why there are none, what the plan could not do, what went elsewhere."""
    if sight.config is None or sight.desired is None:
        return []
    if not sight.config.steering.on:
        remedy = "in the config, steering: {wan: auto, lan: auto}"
        return [Reason("STEERING_OFF", "steering", "it is off: nothing is planned", remedy, Severity.INFO)]
    steering = sight.desired.steering
    if steering is None:
        return [reason for reason in sight.desired.reasons if reason.object == "steering"]
    if isinstance(sighted, Reason):
        return [*steering.reasons, sighted]
    return [*steering.reasons, *misplaced(elsewhere(steering, sighted))]


def _seen(by_cpu: Mapping[int, int]) -> str:
    """ "2 (1,234), 0 (5)": CPUs with their packets, the busiest first."""
    return ", ".join(f"{cpu} ({packets:,})" for cpu, packets in sorted(by_cpu.items(), key=lambda each: -each[1]))


def steering_json(steering: Steering) -> dict[str, object]:
    """The plan for --json."""
    return {
        "cpus": list(steering.cpus),
        "backends": {device: str(backend) for device, backend in steering.backends.items()},
        "placements": [placement_json(each) for each in steering.placements],
    }


def placement_json(place: Placement) -> dict[str, object]:
    """One SA's place."""
    return {
        "tunnel": place.sa.tunnel,
        "direction": str(place.sa.direction),
        "spi": place.sa.spi,
        "pcpu": place.pcpu,
        "device": place.device,
        "backend": None if place.backend is None else str(place.backend),
        "queue": place.queue,
        "irq": place.irq,
        "cpu": place.cpu,
        "exact": place.exact,
    }
