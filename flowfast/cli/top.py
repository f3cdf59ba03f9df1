"""`flowfast top [CONFIG]`: what each tunnel carries now, by direction, as a live table; as lines where nobody watches.

The bytes that an SA carries between the last look and its deletion are not seen: at a rekey, a rate is a little low.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import termios
import time
import tty
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import NamedTuple

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flowfast.cli.common import json_option
from flowfast.cli.output import console, rate, table
from flowfast.cli.sight import Look, again, look, optional_config
from flowfast.metrics.ledger import Ledger
from flowfast.metrics.paths import ByPath, PathBytes
from flowfast.model.desired import Desired
from flowfast.model.sa import Direction
from flowfast.model.snapshot import Snapshot
from flowfast.model.tunnel import Tunnel
from flowfast.plan.flows import Owners
from flowfast.snapshot import History
from flowfast.snapshot import look as count

BOTH = (Direction.OUT, Direction.IN)


class Line(NamedTuple):
    """One direction of one tunnel. Bytes are inner bytes; None is what is unknown (or, of the share, nothing went)."""

    tunnel: str
    direction: Direction
    bytes_per_second: float | None
    packets_per_second: float | None
    share: float | None
    flows: int | None
    sas: int


ORDERS: dict[str, Callable[[Line], tuple[bool, float]]] = {
    "rate": lambda line: (line.bytes_per_second is None, -(line.bytes_per_second or 0.0)),
    "packets": lambda line: (line.packets_per_second is None, -(line.packets_per_second or 0.0)),
    "share": lambda line: (line.share is None, line.share or 0.0),
}


class Meter:
    """Tells what was carried between two looks."""

    def __init__(self) -> None:
        self._ledger, self._paths = Ledger(), PathBytes()
        self._before: Snapshot | None = None
        self._had: dict[tuple[str, Direction], ByPath] = {}
        self._owners: tuple[object, Owners] | None = None

    async def lines(self, seen: Look) -> list[Line] | None:
        """Every tunnel and direction since the last call; None of the first."""
        sight = seen.sight
        self._ledger.update(sight.tunnels)
        snapshot = await count(
            seen.kernel, sight.state, sight.desired or Desired(), history=History(self._ledger.totals())
        )
        self._paths.update(snapshot)
        flows = self._flows(seen, snapshot)
        found = None
        if self._before is not None:
            found = [self._line(self._before, snapshot, tunnel, way, flows) for tunnel in sight.tunnels for way in BOTH]
        self._before, self._had = snapshot, dict(self._paths.now)
        return found

    def _line(
        self, before: Snapshot, now: Snapshot, tunnel: Tunnel, way: Direction, flows: Counter[str] | None
    ) -> Line:
        key = (tunnel.name, way)
        seconds = now.state.taken_at - before.state.taken_at
        total, had = now.totals.get(key), before.totals.get(key)
        known = total is not None and had is not None and seconds > 0
        return Line(
            tunnel.name,
            way,
            (total.bytes - had.bytes) / seconds if known and total and had else None,
            (total.packets - had.packets) / seconds if known and total and had else None,
            self._share(key),
            None if flows is None else flows[tunnel.name],
            len(tunnel.outbound if way is Direction.OUT else tunnel.inbound),
        )

    def _share(self, key: tuple[str, Direction]) -> float | None:
        now, had = self._paths.now.get(key), self._had.get(key)
        if now is None or had is None:
            return None
        fast, slow = now.flowtable - had.flowtable, now.full - had.full
        return fast / (fast + slow) if fast + slow > 0 else None

    def _flows(self, seen: Look, snapshot: Snapshot) -> Counter[str] | None:
        if snapshot.flows is None:
            return None
        tunnels = seen.sight.tunnels
        told = tuple((tunnel.key, tunnel.selectors) for tunnel in tunnels)
        if self._owners is None or self._owners[0] != told:
            self._owners = told, Owners(seen.sight.state, tunnels, seen.sight.route)
        owners = self._owners[1]
        return Counter(tunnel.name for flow in snapshot.flows for tunnel in owners.of(flow))


@click.command("top")
@optional_config
@click.option("--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--count", "times", type=click.IntRange(1), help="Looks to show, as lines; without: until q or Ctrl-C.")
@click.option(
    "--sort",
    type=click.Choice(list(ORDERS)),
    default="rate",
    show_default=True,
    help="rate and packets: the most first; share: the least on the flowtable first.",
)
@json_option
def top(
    *, config: str | None, settings: dict[str, str], interval: float, times: int | None, sort: str, as_json: bool
) -> None:
    """Show what each tunnel carries now, by direction: throughput, packets, share on the flowtable, flows, SAs.

    A live table on a terminal, where q leaves; lines where there is none, and with --count. Without CONFIG the router's
    own is taken, if it has one; without any, the share is unknown.
    """
    live = sys.stdout.isatty() and times is None and not as_json
    show = _json if as_json else _plain
    measure = partial(_measured, config, settings, interval, sort)
    asyncio.run(_watch(measure, interval, sort) if live else _print(measure, times, show))


Measure = Callable[[asyncio.Event], AsyncIterator[list[Line]]]
"""Told when to stop, lines again and again."""


async def _measured(
    config: str | None, settings: dict[str, str], interval: float, sort: str, stop: asyncio.Event
) -> AsyncIterator[list[Line]]:
    """Sorted lines, every so many seconds, until told to stop."""
    seen, meter = await look(config, settings), Meter()
    await meter.lines(seen)
    started = time.monotonic()
    while not await _stopped(stop, interval - (time.monotonic() - started)):
        started = time.monotonic()
        seen = await again(seen)
        lines = await meter.lines(seen)
        yield sorted(lines or [], key=ORDERS[sort])


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0.0)):
            await stop.wait()
    return stop.is_set()


@contextlib.contextmanager
def _until_signal() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C and SIGTERM set."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    names = (signal.SIGINT, signal.SIGTERM)
    for name in names:
        loop.add_signal_handler(name, stop.set)
    try:
        yield stop
    finally:
        for name in names:
            loop.remove_signal_handler(name)


# as lines


async def _print(measure: Measure, times: int | None, show: Callable[[list[Line]], str]) -> None:
    with _until_signal() as stop:
        shown = 0
        async for lines in measure(stop):
            click.echo(show(lines))
            shown += 1
            if shown == times:
                stop.set()


def _plain(lines: list[Line]) -> str:
    at = time.strftime("%H:%M:%S")
    units = ("", "", "", " packets/s", " on flowtable", " flows", " SAs")
    texts = ("  ".join(f"{value}{unit}" for value, unit in zip(_values(line), units, strict=True)) for line in lines)
    return "\n".join(f"{at}  {text}" for text in texts) or f"{at}  no tunnel is there"


def _json(lines: list[Line]) -> str:
    return json.dumps({"time": time.time(), "lines": [line._asdict() for line in lines]})


def _values(line: Line) -> tuple[str, ...]:
    return (
        line.tunnel,
        line.direction,
        rate(line.bytes_per_second),
        "-" if line.packets_per_second is None else f"{line.packets_per_second:,.0f}",
        "-" if line.share is None else f"{line.share:.1%}",
        "-" if line.flows is None else str(line.flows),
        str(line.sas),
    )


# on a terminal


async def _watch(measure: Measure, interval: float, sort: str) -> None:
    out = console()
    with _until_signal() as stop, _quit_key(stop), Live(console=out, screen=True, auto_refresh=False) as live:
        live.update(Text(f"measuring for {interval:g} s ..."), refresh=True)
        async for lines in measure(stop):
            live.update(_screen(out, lines, sort), refresh=True)


@contextlib.contextmanager
def _quit_key(stop: asyncio.Event) -> Iterator[None]:
    """Sets the event when q is pressed; the terminal's settings come back at the end."""
    if not sys.stdin.isatty():
        yield
        return
    terminal, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(terminal)

    def pressed() -> None:
        if b"q" in (keys := os.read(terminal, 64).lower()) or not keys:
            stop.set()

    tty.setcbreak(terminal)
    loop.add_reader(terminal, pressed)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _screen(out: Console, lines: list[Line], sort: str) -> Group:
    room = max(out.height - 3, 1)
    listed: Table = table("tunnel", "dir", "throughput", "packets/s", "on flowtable", "flows", "SAs")
    for line in lines[:room]:
        listed.add_row(*map(Text, _values(line)))
    total = sum(line.bytes_per_second or 0.0 for line in lines)
    head = f"{time.strftime('%H:%M:%S')}  {len(lines) // 2} tunnels, {rate(total)}, by {sort}; q leaves"
    more = Text(f"and {len(lines) - room} more lines" if len(lines) > room else "", style="dim")
    return Group(Text(head, style="bold"), listed, more)
