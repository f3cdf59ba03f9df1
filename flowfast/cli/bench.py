"""`flowfast bench`: what flowfast itself costs on this machine, without touching its kernel."""

import json
from collections.abc import Mapping
from dataclasses import asdict

import click

from flowfast.bench import Figure, measure
from flowfast.bench_memory import held
from flowfast.cli.common import json_option
from flowfast.cli.output import console, table


@click.command("bench")
@json_option
@click.option("--tunnels", type=click.IntRange(2), default=10_000, show_default=True, help="Most tunnels to plan.")
def bench(as_json: bool, tunnels: int) -> None:
    """Measure plans and rekeys of a router in memory: needs no root, changes nothing, takes half a minute.

    Each figure stands beside the same for a tenth of the tunnels, in the same run: growth of 1.0x is linear.
    """
    few = max(1, tunnels // 10)
    figures = [*measure(few=few, many=tunnels), *(_held(number) for number in (few, tunnels))]
    if as_json:
        click.echo(json.dumps([asdict(figure) | {"growth": _growth(figure, _small(figures))} for figure in figures]))
        return
    listed = table("what", "tunnels", "figure", "growth a tunnel", "limit")
    for figure in figures:
        growth = _growth(figure, _small(figures))
        listed.add_row(
            figure.what,
            f"{figure.tunnels:,}".replace(",", " "),
            _shown(figure.value, figure.unit),
            "-" if growth is None else f"{growth:.1f}x",
            "-" if figure.limit is None else _shown(figure.limit, figure.unit),
        )
    console().print(listed)


def _held(tunnels: int) -> Figure:
    return Figure("most memory of a controller, 10 busy SAs a tunnel", tunnels, held(tunnels, 10).peak, "B")


def _small(figures: list[Figure]) -> Mapping[str, Figure]:
    """Of each kind the one with the fewest tunnels."""
    return {figure.what: figure for figure in sorted(figures, key=lambda figure: -figure.tunnels)}


def _growth(figure: Figure, small: Mapping[str, Figure]) -> float | None:
    """How much more a tunnel costs than among fewer; None for those themselves."""
    beside = small[figure.what]
    return None if beside is figure or not beside.value else figure.per_tunnel / beside.per_tunnel


def _shown(value: float, unit: str) -> str:
    return f"{value / 1e6:.1f} MB" if unit == "B" else f"{value * 1000:.3g} ms"
