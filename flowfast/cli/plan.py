"""`flowfast plan CONFIG`: what would change and why, and nothing else."""

import asyncio
import json
import sys

import click

from flowfast.apply.commit import transactions
from flowfast.apply.knobs import KnobJournal, pending
from flowfast.cli.common import config_argument, json_option, router
from flowfast.cli.output import console, plan_json, print_paths, print_reasons, print_steps, print_turns
from flowfast.cli.steering import print_steering
from flowfast.model.transaction import transaction_text
from flowfast.plan.diff import diff

NEXT = "# and only then, in a transaction of its own:\n"


@click.command("plan")
@config_argument
@json_option
@click.option("--nft", "as_nft", is_flag=True, help="Print the transaction in nft's own syntax.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 0: nothing to do, 2: changes, 1: error.")
def plan(config: str, settings: dict[str, str], as_json: bool, as_nft: bool, detailed_exitcode: bool) -> None:
    """Show every step from what the kernel holds to what CONFIG asks for, and the path of every tunnel."""
    found = asyncio.run(router(config, settings))
    steps = diff(found.desired.ruleset, found.state.ruleset)
    turns = pending(found.kernel.knobs, found.desired.knobs, KnobJournal())
    if as_json:
        click.echo(json.dumps(plan_json(found.desired, steps, turns), indent=2))
    elif as_nft:
        click.echo(NEXT.join(map(transaction_text, transactions(steps))), nl=False)
    else:
        out = console()
        print_reasons(out, found.desired.reasons)
        print_paths(out, found.desired.paths)
        print_steering(out, found.desired.steering)
        print_steps(out, steps)
        print_turns(out, turns)
    if detailed_exitcode and (steps or turns):
        sys.exit(2)
