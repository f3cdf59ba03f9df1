"""Steering as tables: the plan ({SA -> queue -> interrupt -> CPU}), and as JSON."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowfast.model.cpu import cpu_list
from flowfast.model.steering import Placement, Steering


def print_steering(out: Console, steering: Steering | None) -> None:
    """Where each SA's packets are to go, and by what; nothing where steering is off."""
    if steering is None:
        return
    by = ", ".join(f"{device} by {backend}" for device, backend in sorted(steering.backends.items())) or "nothing"
    out.print(f"steering {by}; flows go to CPUs {cpu_list(steering.cpus) or 'none'}", style="bold")
    listed = Table(
        "tunnel", "dir", "SPI", "SA's CPU", "device", "queue", "interrupt", "goes to CPU", box=None, pad_edge=False
    )
    for each in steering.placements:
        listed.add_row(*_row(each))
    if listed.row_count:
        out.print(listed)


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
