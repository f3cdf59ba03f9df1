"""`flowfast status [CONFIG]`: tunnels, the path of each direction, and what it carries now, asked of the kernel."""

import asyncio
import json
from dataclasses import dataclass

import click
from rich.text import Text

from flowfast.cli.common import config_argument, json_option, router
from flowfast.cli.output import console, path_json, path_text, print_reasons, rate, reason_json, table
from flowfast.metrics.ledger import Ledger
from flowfast.metrics.paths import PathBytes
from flowfast.model.sa import SA, Direction
from flowfast.model.snapshot import Snapshot
from flowfast.model.state import RouterState
from flowfast.model.tunnel import TunnelPath
from flowfast.observe import observe
from flowfast.plan.diff import diff
from flowfast.plan.planner import plan
from flowfast.snapshot import History, look

BOTH = (Direction.OUT, Direction.IN)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Two looks at a router: what is there, and what was carried in between."""

    now: Snapshot
    before: Snapshot
    paths: PathBytes
    as_wanted: bool

    def rate(self, tunnel: str, direction: Direction) -> float | None:
        """Bytes a second."""
        total, had = (each.totals.get((tunnel, direction)) for each in (self.now, self.before))
        seconds = self.now.state.taken_at - self.before.state.taken_at
        return None if total is None or had is None else (total.bytes - had.bytes) / seconds


@click.command("status")
@config_argument
@json_option
@click.option("--sa", "with_sas", is_flag=True, help="A line for each SA, too.")
@click.option("--seconds", type=click.FloatRange(0.1), default=1.0, show_default=True, help="How long to measure.")
def status(config: str, settings: dict[str, str], as_json: bool, with_sas: bool, seconds: float) -> None:
    """Show every tunnel, the path of each direction and why, throughput and share on the flowtable now."""
    seen = asyncio.run(_look(config, settings, seconds))
    if as_json:
        click.echo(json.dumps(_json(seen), indent=2))
        return
    out = console()
    out.print(_headline(seen.now.state, seen.as_wanted))
    print_reasons(out, seen.now.reasons)
    listed = table("tunnel", "peer", "SAs in/out", "tx", "rate", "on flowtable", "rx", "rate", "on flowtable")
    for path in seen.now.desired.paths:
        listed.add_row(*_row(seen, path))
    out.print(listed)
    if with_sas:
        sas = table("tunnel", "dir", "SPI", "CPU", "algorithm", "bytes", "packets", "sequence", "offload")
        for path in seen.now.desired.paths:
            for direction, each in (("in", path.tunnel.inbound), ("out", path.tunnel.outbound)):
                for sa in each:
                    sas.add_row(path.tunnel.name, direction, *_sa_row(sa))
        out.print(sas)


async def _look(config: str, settings: dict[str, str], seconds: float) -> _Seen:
    found = await router(config, settings)
    ledger, paths, netns = Ledger(), PathBytes(), found.loaded.config.underlay_netns
    looks = []
    for wait in (0.0, seconds):
        await asyncio.sleep(wait)
        state = await observe(found.kernel, found.state.features, netns)
        desired = plan(state, found.loaded.config)
        ledger.update(path.tunnel for path in desired.paths)
        snapshot = await look(found.kernel, state, desired, history=History(ledger.totals()))
        paths.update(snapshot)
        looks.append(snapshot)
    before, now = looks
    return _Seen(now, before, paths, not diff(now.desired.ruleset, now.state.ruleset))


def _headline(state: RouterState, as_wanted: bool) -> Text:
    if not state.ruleset.tables:
        return Text("not applied: all traffic takes the full path", style="yellow")
    if not as_wanted:
        return Text("applied, but not what this config asks for: see flowfast plan", style="yellow")
    return Text(f"applied; flowtable on {', '.join(sorted(state.hooked)) or 'no device'}", style="green")


def _row(seen: _Seen, path: TunnelPath) -> list[str | Text]:
    tunnel = path.tunnel
    cells: list[str | Text] = [tunnel.name, tunnel.key.remote or "-", f"{len(tunnel.inbound)}/{len(tunnel.outbound)}"]
    for direction, way in zip(BOTH, (path.tx, path.rx), strict=True):
        share = seen.paths.share(tunnel.name, direction)
        cells += [path_text(way), rate(seen.rate(tunnel.name, direction)), "-" if share is None else f"{share:.1%}"]
    return cells


def _sa_row(sa: SA) -> list[str]:
    offload = "-" if sa.offload is None else "packet" if sa.offload.packet else "crypto"
    return [
        f"0x{sa.spi:08x}",
        "any" if sa.pcpu is None else str(sa.pcpu),
        sa.algorithm or sa.auth_algorithm or "-",
        f"{sa.counters.bytes:,}",
        f"{sa.counters.packets:,}",
        f"{sa.replay.oseq or sa.replay.seq:,}",
        offload,
    ]


def _json(seen: _Seen) -> dict[str, object]:
    state = seen.now.state
    return {
        "applied": bool(state.ruleset.tables),
        "as_wanted": seen.as_wanted,
        "hooked": sorted(state.hooked),
        "flows_offloaded": None if seen.now.flows is None else len(seen.now.flows),
        "seconds": state.taken_at - seen.before.state.taken_at,
        "tunnels": [_tunnel_json(seen, path) for path in seen.now.desired.paths],
        "reasons": [reason_json(reason) for reason in seen.now.reasons],
    }


def _tunnel_json(seen: _Seen, path: TunnelPath) -> dict[str, object]:
    tunnel = path.tunnel
    return path_json(path) | {
        "bytes_per_second": {str(way): seen.rate(tunnel.name, way) for way in BOTH},
        "flowtable_share": {str(way): seen.paths.share(tunnel.name, way) for way in BOTH},
        "sas": [
            {
                "direction": str(way),
                "spi": sa.spi,
                "pcpu": sa.pcpu,
                "algorithm": sa.algorithm,
                "bytes": sa.counters.bytes,
                "packets": sa.counters.packets,
                "oseq": sa.replay.oseq,
                "seq": sa.replay.seq,
            }
            for way, each in ((Direction.OUT, tunnel.outbound), (Direction.IN, tunnel.inbound))
            for sa in each
        ],
    }
