"""`flowfast doctor [CONFIG]`: what this router can do and what is missing, with the remedy for each."""

import asyncio
import json
import sys
from pathlib import Path

import click
from rich.text import Text

from flowfast.cli.common import CONFIG, json_option, need_root
from flowfast.cli.output import FIRST, console, print_reasons, reason_json, table
from flowfast.cli.sight import NAMELESS
from flowfast.config.devices import check_devices
from flowfast.config.load import load
from flowfast.kernel import Kernel
from flowfast.kernel.real import real_kernel
from flowfast.model.reason import Reason, Severity
from flowfast.model.state import Feature
from flowfast.observe import observe
from flowfast.plan.advice import advise
from flowfast.plan.bulk import suspects
from flowfast.plan.planner import plan
from flowfast.plan.tunnels import find_tunnels


@click.command("doctor")
@click.argument("config", type=click.Path(), required=False)
@json_option
def doctor(config: str | None, as_json: bool) -> None:
    """Probe the kernel by trying, and say what works, what does not, and what to do. With CONFIG its devices, too.

    Exits 1 where something is missing without which there is no fast path.
    """
    # Without a word on which config, the router's own is meant, if it has one yet.
    path = config or (CONFIG if Path(CONFIG).exists() else None)
    features, reasons, release = asyncio.run(_examine(path))
    if as_json:
        listed = [{"name": each.name, "present": each.present, "reason": reason_json(each.reason)} for each in features]
        click.echo(
            json.dumps(
                {"kernel": release, "features": listed, "reasons": [reason_json(each) for each in reasons]}, indent=2
            )
        )
    else:
        out = console()
        first = [reason for reason in reasons if reason.code in FIRST]
        print_reasons(out, first)
        out.print(f"kernel {release}")
        rows = table("feature", "", "remedy")
        for feature in features:
            mark = Text("yes", style="green") if feature.present else Text("no", style="yellow")
            rows.add_row(feature.name, mark, str(feature.reason) if feature.reason else "")
        out.print(rows)
        print_reasons(out, [reason for reason in reasons if reason not in first])
    if any(reason.severity is Severity.ERROR for reason in reasons):
        sys.exit(1)


async def _examine(path: str | None) -> tuple[list[Feature], list[Reason], str]:
    kernel: Kernel = real_kernel()
    need_root(kernel)
    features = await kernel.probe.features()
    reasons: list[Reason] = []
    netns: tuple[str, ...] = ()
    loaded = load(path) if path else None
    if loaded is not None:
        netns = loaded.config.underlay_netns
        kernel.machine.wanted = loaded.config.steering.on
    state = await observe(kernel, features, netns)
    if loaded is not None:
        for problem in check_devices(loaded, [link.name for link in state.links]):
            reasons.append(Reason("CONFIG", problem.object, str(problem), severity=Severity.ERROR))
        reasons += plan(state, loaded.config).reasons
    else:
        reasons += suspects(state, find_tunnels(state, NAMELESS))
    reasons += advise(state)
    return list(features.values()), sorted(set(reasons)), kernel.system.release()
