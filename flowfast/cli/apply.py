"""`flowfast apply CONFIG`: the plan, then the change, verified; `--remove` takes everything out again."""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import click
from rich.text import Text

from flowfast.apply import Outcome, converge
from flowfast.apply import remove as take_out
from flowfast.apply.journal import Entry, Journal, before
from flowfast.apply.knobs import KnobJournal, pending, turn_back
from flowfast.bulking import REMAKING
from flowfast.cli.common import Router, config_argument, json_option, need_root, router
from flowfast.cli.confirm import leave_waiting
from flowfast.cli.lock import only_one
from flowfast.cli.output import (
    console,
    plan_json,
    print_paths,
    print_reasons,
    print_steps,
    print_turns,
    reason_json,
)
from flowfast.cli.steering import print_steering
from flowfast.kernel.real import real_kernel
from flowfast.model.reason import Reason
from flowfast.model.state import RouterState
from flowfast.observe import observe
from flowfast.plan.diff import OWN, diff, remove_all
from flowfast.plan.planner import plan

ROUNDS = 5
"""So often a change is planned anew where what came of it says so: once for each backend that a device may refuse."""


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
    """Bring the kernel to what CONFIG asks for, at once, and verify that it holds."""
    how = _How(**options)
    with only_one():
        asyncio.run(_remove(how) if remove else _apply(config, settings, how))


async def _apply(config: str, settings: dict[str, str], how: _How) -> None:
    found = await router(config, settings)
    steps = diff(found.desired.ruleset, found.state.ruleset)
    turns = pending(found.kernel.knobs, found.desired.knobs, KnobJournal())
    out = console()
    if not how.as_json:
        print_reasons(out, found.desired.reasons)
        print_paths(out, found.desired.paths)
        print_steering(out, found.desired.steering)
        print_steps(out, steps)
        print_turns(out, turns)
    elif how.dry_run:
        click.echo(json.dumps(plan_json(found.desired, steps, turns), indent=2))
    if how.dry_run or not (how.yes or how.as_json or _agreed(bool(steps or turns))):
        return
    outcome = await _change(found, bool(steps or turns), how.confirm)
    if how.as_json:
        failures = [reason_json(reason) for reason in (*outcome.failures, *outcome.refused)]
        done = plan_json(found.desired, outcome.steps, outcome.turned)
        click.echo(json.dumps({**done, "failures": failures}, indent=2))
    elif outcome.held:
        print_reasons(out, outcome.refused)
        out.print("Done, and verified: the kernel holds it." if steps or turns else "Verified: the kernel holds it.")
        if (steps or turns) and how.confirm:
            out.print(f"Taken back in {how.confirm:g} s, unless you say: flowfast confirm", style="bold")
    else:
        print_reasons(out, outcome.failures)
        out.print("Taken back: all traffic is on the full path.", style="bold red")
    if not outcome.held:
        sys.exit(1)


async def _change(found: Router, anything: bool, confirm: float | None) -> Outcome:
    """Journal first, then whoever takes it back, then the change: whatever happens, there is a way back."""
    if anything:
        journal = Journal()
        deadline = time.time() + confirm if confirm else None
        knobs = {knob: was.ours[-1] for knob, was in KnobJournal().read().items()}
        journal.write(Entry(before(journal, found.state.ruleset), found.desired.ruleset, deadline, knobs))
        if confirm:
            leave_waiting(confirm)
    config, kernel = found.loaded.config, found.kernel
    outcome = await converge(kernel, found.desired, found.state, config.underlay_netns)
    said, last = set(found.desired.reasons), outcome
    for _ in range(ROUNDS):
        # What needs the shield, or a NAPI made anew, can only be planned once it is there; a refusal only after it.
        if not last.again and not any(turn.knob.kind in REMAKING for turn in last.turned):
            break
        state = await observe(kernel, found.state.features, config.underlay_netns)
        state = replace(state, bulk=replace(state.bulk, arrivals=found.state.bulk.arrivals))
        desired = plan(state, config)
        last = await converge(kernel, desired, state, config.underlay_netns)
        news = tuple(reason for reason in desired.reasons if reason not in said)
        said |= set(news)
        outcome = replace(
            last,
            steps=outcome.steps + last.steps,
            turned=outcome.turned + last.turned,
            refused=news + last.refused,
        )
    return outcome


def _agreed(anything: bool) -> bool:
    if not anything or not sys.stdin.isatty():
        return True
    return click.confirm("Go ahead?", default=False)


async def _remove(how: _How) -> None:
    kernel = real_kernel()
    need_root(kernel)
    state = RouterState(0.0, ruleset=kernel.nft.read(OWN))
    knobs = KnobJournal()
    refused: list[Reason] = []
    if how.dry_run:
        steps, turns = tuple(remove_all(state.ruleset)), pending(kernel.knobs, {}, knobs)
    else:
        steps = await take_out(kernel, state)
        turns, refused = turn_back(kernel.knobs, knobs)
        kernel.machine.refuse(frozenset())
        kernel.machine.deny({})
    done = [*(step.what for step in steps), *(str(turn) for turn in turns)]
    if how.as_json:
        failures = [reason_json(reason) for reason in refused]
        click.echo(json.dumps({"steps": [{"what": each} for each in done], "failures": failures}, indent=2))
        return
    out = console()
    print_reasons(out, refused)
    if not done:
        out.print("Nothing of flowfast's is in the kernel.")
        return
    for each in done:
        out.print(Text(f"  - {each}"))
    out.print("Would be removed." if how.dry_run else "Removed: all traffic is on the full path.")
