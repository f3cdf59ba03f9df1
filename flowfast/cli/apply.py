"""`flowfast apply CONFIG`: the plan, then the change, verified; `--remove` takes everything out again."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from flowfast.apply import Outcome, converge
from flowfast.apply import remove as take_out
from flowfast.apply.journal import Entry, Journal, before
from flowfast.cli.common import Router, config_argument, json_option, need_root, router
from flowfast.cli.confirm import leave_waiting
from flowfast.cli.lock import only_one
from flowfast.cli.output import console, plan_json, print_paths, print_reasons, print_steps, reason_json
from flowfast.kernel.real import real_kernel
from flowfast.model.desired import Step
from flowfast.model.state import RouterState
from flowfast.plan.diff import OWN, diff, remove_all


@dataclass(frozen=True, slots=True)
class _How:
    """The options of one call."""

    as_json: bool
    dry_run: bool
    yes: bool
    confirm: float | None


@click.command("apply")
@config_argument
@json_option
@click.option("--dry-run", is_flag=True, help="Stop after the plan.")
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal.")
@click.option("--confirm", type=click.FloatRange(1), metavar="SECONDS", help="Take it back unless confirmed by then.")
@click.option("--remove", is_flag=True, help="Take everything of flowfast's out of the kernel.")
def apply(config: str, settings: dict[str, str], *, remove: bool, **options: Any) -> None:
    """Bring the kernel to what CONFIG asks for, in one transaction, and verify that it holds."""
    how = _How(**options)
    with only_one():
        asyncio.run(_remove(how) if remove else _apply(config, settings, how))


async def _apply(config: str, settings: dict[str, str], how: _How) -> None:
    found = await router(config, settings)
    steps = diff(found.desired.ruleset, found.state.ruleset)
    out = console()
    if not how.as_json:
        print_reasons(out, found.desired.reasons)
        print_paths(out, found.desired.paths)
        print_steps(out, steps)
    elif how.dry_run:
        click.echo(json.dumps(plan_json(found.desired, steps), indent=2))
    if how.dry_run or not (how.yes or how.as_json or _agreed(bool(steps))):
        return
    outcome = await _change(found, steps, how.confirm)
    if how.as_json:
        failures = [reason_json(reason) for reason in outcome.failures]
        click.echo(json.dumps({**plan_json(found.desired, outcome.steps), "failures": failures}, indent=2))
    elif outcome.held:
        out.print("Done, and verified: the kernel holds it." if steps else "Verified: the kernel holds it.")
        if steps and how.confirm:
            out.print(f"Taken back in {how.confirm:g} s, unless you say: flowfast confirm", style="bold")
    else:
        print_reasons(out, outcome.failures)
        out.print("Taken back: all traffic is on the full path.", style="bold red")
    if not outcome.held:
        sys.exit(1)


async def _change(found: Router, steps: Sequence[Step], confirm: float | None) -> Outcome:
    """Journal first, then whoever takes it back, then the change: whatever happens, there is a way back."""
    if steps:
        journal = Journal()
        deadline = time.time() + confirm if confirm else None
        journal.write(Entry(before(journal, found.state.ruleset), found.desired.ruleset, deadline))
        if confirm:
            leave_waiting(confirm)
    return await converge(found.kernel, found.desired, found.state, found.loaded.config.underlay_netns)


def _agreed(anything: bool) -> bool:
    if not anything or not sys.stdin.isatty():
        return True
    return click.confirm("Go ahead?", default=False)


async def _remove(how: _How) -> None:
    kernel = real_kernel()
    need_root(kernel)
    state = RouterState(0.0, ruleset=kernel.nft.read(OWN))
    steps = remove_all(state.ruleset) if how.dry_run else await take_out(kernel, state)
    if how.as_json:
        click.echo(json.dumps({"steps": [{"what": step.what} for step in steps]}, indent=2))
        return
    out = console()
    if not steps:
        out.print("Nothing of flowfast's is in the kernel.")
        return
    for step in steps:
        out.print(f"  - {step.what}")
    out.print("Would be removed." if how.dry_run else "Removed: all traffic is on the full path.")
