"""`flowfast doctor [CONFIG]`: what this router can do, how it is set, and the remedy for what is not right."""

import asyncio
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import click
from rich.console import Console
from rich.text import Text

from flowfast.cli.common import json_option, need_root
from flowfast.cli.output import FIRST, STYLES, console, print_reasons, reason_json, table
from flowfast.cli.sight import NAMELESS, chosen
from flowfast.config.devices import check_devices
from flowfast.config.load import load
from flowfast.ike import find_daemons
from flowfast.kernel import Kernel
from flowfast.kernel.libnftables import version
from flowfast.kernel.real import real_kernel
from flowfast.model.reason import Reason, Severity
from flowfast.model.state import Feature
from flowfast.observe import observe
from flowfast.plan.advice import advise
from flowfast.plan.bulk import suspects
from flowfast.plan.checks import Check, Examination, examine, wanted_sysctls
from flowfast.plan.planner import plan
from flowfast.plan.tunnels import find_tunnels


@dataclass(frozen=True, slots=True)
class _Report:
    """What was found: features of the kernel, checks of this router, and the plan's reasons."""

    kernel: str
    features: tuple[Feature, ...]
    checks: tuple[Check, ...]
    reasons: tuple[Reason, ...]

    @property
    def bad(self) -> bool:
        """Something is missing without which there is no fast path, or is set so that it is not safe."""
        found = (*self.reasons, *(check.reason for check in self.checks))
        return any(reason is not None and reason.severity is Severity.ERROR for reason in found)


@click.command("doctor")
@click.argument("config", type=click.Path(), required=False)
@json_option
def doctor(config: str | None, as_json: bool) -> None:
    """Say what this router can do, how it is set, and what to do about what is not right.

    Tries the kernel's features, and looks at modules, libnftables, sysctls, conntrack, devices, SAs and the IKE daemon
    (strongSwan, libreswan). With CONFIG also at its devices, and at what it asks for.

    Exits 1 where something is missing without which there is no fast path, or is set so that it is not safe.
    """
    report = asyncio.run(_examine(chosen(config)))
    if as_json:
        click.echo(json.dumps(_json(report), indent=2))
    else:
        _print(console(), report)
    if report.bad:
        sys.exit(1)


async def _examine(path: str | None) -> _Report:
    kernel: Kernel = real_kernel()
    need_root(kernel)
    kernel.links.with_features = True
    features = await kernel.probe.features()
    reasons: list[Reason] = []
    loaded = load(path) if path else None
    kernel.machine.wanted = loaded is not None and loaded.config.steering.on
    netns = loaded.config.underlay_netns if loaded else ()
    state = await observe(kernel, features, netns)
    if loaded is not None:
        for problem in check_devices(loaded, [link.name for link in state.links]):
            reasons.append(Reason("CONFIG", problem.object, str(problem), severity=Severity.ERROR))
        reasons += plan(state, loaded.config).reasons
    else:
        reasons += suspects(state, find_tunnels(state, NAMELESS))
    reasons += advise(state)
    checks = examine(
        Examination(
            state,
            tunnels=find_tunnels(state, loaded.config if loaded else NAMELESS),
            config=loaded.config if loaded else None,
            sysctls={name: kernel.system.sysctl(name) for name in wanted_sysctls(state.links)},
            modules=kernel.system.modules(),
            daemons=find_daemons(netns),
            libnftables=version(),
        )
    )
    return _Report(kernel.system.release(), tuple(features.values()), tuple(checks), tuple(sorted(set(reasons))))


def _json(report: _Report) -> dict[str, object]:
    return {
        "kernel": report.kernel,
        "features": [
            {"name": each.name, "present": each.present, "reason": reason_json(each.reason)} for each in report.features
        ],
        "checks": [
            {"area": each.area, "name": each.name, "found": each.found, "reason": reason_json(each.reason)}
            for each in report.checks
        ],
        "reasons": [reason_json(each) for each in report.reasons],
    }


def _print(out: Console, report: _Report) -> None:
    first = [reason for reason in report.reasons if reason.code in FIRST]
    print_reasons(out, first)
    out.print(f"kernel {report.kernel}")
    rows = table("feature", "", "remedy")
    for feature in report.features:
        mark = Text("yes", style="green") if feature.present else Text("no", style="yellow")
        rows.add_row(feature.name, mark, Text(str(feature.reason) if feature.reason else ""))
    out.print(rows)
    for area in dict.fromkeys(check.area for check in report.checks):
        out.print()
        _print_checks(out, area, (check for check in report.checks if check.area == area))
    out.print()
    print_reasons(out, [reason for reason in report.reasons if reason not in first])


def _print_checks(out: Console, area: str, checks: Iterable[Check]) -> None:
    rows, said = table(area, "found", "", ""), set[Reason]()
    for check in checks:
        reason = check.reason
        if reason is None:
            rows.add_row(Text(check.name), Text(check.found), Text("ok", style="green"), "")
            continue
        verdict, style = str(reason.severity), STYLES[reason.severity]
        # What concerns several lines is said once.
        rows.add_row(
            Text(check.name), Text(check.found), Text(verdict, style=style), Text("" if reason in said else str(reason))
        )
        said.add(reason)
    out.print(rows)
