"""`flowfast show flows|sa|tunnels|devices|policies|steering|nics|offload|bulking`: facts, straight from the kernel."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import click
from rich.table import Table
from rich.text import Text

from flowfast.bulking import with_arrivals
from flowfast.cli import facts, facts_nics
from flowfast.cli.bulking import BULKING, KNOBS, bulking_rows, knob_rows
from flowfast.cli.columns import Column, Row
from flowfast.cli.common import json_option
from flowfast.cli.output import console, print_reasons, reason_json, table
from flowfast.cli.sight import NO_CONFIG, Look, look, optional_config
from flowfast.cli.steering import STEERING, steering_reasons, steering_rows
from flowfast.config.hints import nearest
from flowfast.model.errors import FlowfastError, UsageError
from flowfast.model.reason import Reason
from flowfast.model.state import Flow
from flowfast.model.steering import Sightings
from flowfast.steering import blind, sight

KINDS: dict[str, Sequence[Column]] = {
    "flows": facts.FLOWS,
    "sa": facts.SAS,
    "tunnels": facts.TUNNELS,
    "devices": facts.DEVICES,
    "policies": facts.POLICIES,
    "steering": STEERING,
    "nics": facts_nics.NICS,
    "offload": facts_nics.OFFLOAD,
    "bulking": BULKING,
}


_NOTHING = {
    "sa": "SAs",
    "steering": "SAs to steer",
    "nics": "devices with IPsec offload",
    "offload": "SAs of tunnels",
    "bulking": "devices that packets could be put together on",
}
WIDE = 1000
"""Columns where there is no terminal: a row stays one line, for grep."""


@click.command("show")
@click.argument("kind", type=click.Choice(list(KINDS)))
@optional_config
@click.option("--tunnel", metavar="NAME", help="Only what belongs to this tunnel.")
@click.option("--offloaded", is_flag=True, help="Of flows only those on a flowtable (the kernel selects them).")
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Of steering and bulking: how long to look; 0: not.",
)
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="Rows at most; 0: all.")
@json_option
def show(
    *,
    kind: str,
    config: str | None,
    settings: dict[str, str],
    tunnel: str | None,
    offloaded: bool,
    seconds: float,
    limit: int,
    as_json: bool,
) -> None:
    """List what the kernel has now; never a key.

    \b
    flows      connections, by tunnel and path
    sa         SAs, with what they carried
    tunnels    tunnels, with their SAs and policies
    devices    devices, with their role and whether the flowtable has them
    policies   the SPD
    steering   the CPU that each SA's packets should go to, and where they went
    nics       devices that can take IPsec off the CPU
    offload    each SA of a tunnel: whether a NIC does it, and why not;
               of one in a NIC, "CPU saw" is the last ESP packet that was
               the CPU's work after all: 0, if all is well
    bulking    devices that packets could be put together on, and their knobs:
               as they are, as planned, as before flowfast (--json: all)

    Without CONFIG the router's own is taken, if it has one; without any, what only a config says is left out.
    """
    if tunnel is not None and kind in ("devices", "nics", "bulking"):
        raise UsageError("--tunnel: devices belong to no tunnel (leave it out)")
    if offloaded and kind != "flows":
        raise UsageError(f"--offloaded: only flows are on a flowtable, not {kind} (leave it out)")
    seen, flows, sighted = asyncio.run(_ask(config, settings, kind, offloaded, seconds))
    if tunnel is not None:
        _known(seen, tunnel)
    listed_rows = steering_rows(seen.sight, sighted) if kind == "steering" else _rows(seen, kind, flows)
    rows = [row for row in listed_rows if tunnel is None or _of(row, tunnel)]
    shown = list(islice(rows, limit or None))
    if as_json:
        said = {"kind": kind, "config": seen.config is not None, "total": len(rows), "rows": shown}
        if kind == "flows":
            said["reason"] = reason_json(seen.sight.blind)
        if kind == "steering":
            said["reason"] = reason_json(sighted) if isinstance(sighted, Reason) else None
            said["reasons"] = [reason_json(reason) for reason in steering_reasons(seen.sight, sighted)]
        if kind == "bulking":
            said["knobs"] = list(knob_rows(seen.sight, every=True))
        click.echo(json.dumps(said, indent=2))
        return
    out, columns = console(), KINDS[kind]
    if not out.is_terminal:
        out.width = WIDE
    out.print(_table(columns, shown) if rows else f"No {_NOTHING.get(kind, kind)} are there.")
    if len(shown) < len(rows):
        out.print(f"and {len(rows) - len(shown)} more (--limit 0 shows all)")
    if kind == "bulking" and (knobs := list(knob_rows(seen.sight, every=False))):
        out.print(_table(KNOBS, knobs))
    print_reasons(out, _reasons(seen, kind, sighted, shown))
    if seen.config is None:
        out.print(NO_CONFIG, style="dim")


async def _ask(
    config: str | None, settings: dict[str, str], kind: str, offloaded: bool, seconds: float
) -> tuple[Look, list[Flow], Sightings | Reason]:
    seen = await look(config, settings)
    flows = await seen.flows(offloaded=offloaded) if kind == "flows" else []
    if kind == "bulking" and seconds:
        state = await with_arrivals(seen.kernel, seen.sight.state, seconds)
        seen = replace(seen, sight=replace(seen.sight, state=state))
    sighted: Sightings | Reason = {}
    if kind == "steering" and seconds:
        try:
            sighted = await sight(seen.kernel, seconds)
        except FlowfastError as error:
            sighted = blind(error)
    return seen, flows, sighted


def _known(seen: Look, name: str) -> None:
    names = [tunnel.name for tunnel in seen.sight.tunnels]
    if name not in names:
        near = nearest(name, names)
        remedy = f'did you mean "{near}"?' if near else "flowfast show tunnels lists them"
        raise UsageError(f'no tunnel is named "{name}" ({remedy})')


def _rows(seen: Look, kind: str, flows: list[Flow]) -> Iterator[Row]:
    match kind:
        case "flows":
            return facts.flow_rows(seen.sight, flows)
        case "sa":
            return facts.sa_rows(seen.sight)
        case "tunnels":
            return facts.tunnel_rows(seen.sight)
        case "devices":
            return facts.device_rows(seen.sight)
        case "nics":
            return facts_nics.nic_rows(seen.sight)
        case "offload":
            return facts_nics.offload_rows(seen.sight)
        case "bulking":
            return bulking_rows(seen.sight)
        case _:
            return facts.policy_rows(seen.sight)


def _reasons(seen: Look, kind: str, sighted: Sightings | Reason, shown: list[Row]) -> Iterable[Reason]:
    """What is to be said below the table."""
    if kind == "offload":
        return facts_nics.offload_reasons(shown)
    if kind == "steering":
        return steering_reasons(seen.sight, sighted)
    return [seen.sight.blind] if kind == "flows" and seen.sight.blind is not None else []


def _of(row: Row, tunnel: str) -> bool:
    tunnels = row.get("tunnels")
    return tunnel in tunnels if isinstance(tunnels, list) else row.get("tunnel") == tunnel


def _table(columns: Sequence[Column], rows: Iterable[Row]) -> Table:
    listed = table(*(column.head for column in columns))
    for row in rows:
        listed.add_row(*(_cell(column, row) for column in columns))
    return listed


def _cell(column: Column, row: Row) -> Text:
    value = row.get(column.key)
    return Text("-" if value is None else column.text(value))  # a str would be searched for markup: [fd00::1]
