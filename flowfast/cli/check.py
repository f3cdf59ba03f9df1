"""`flowfast check CONFIG`: is the file right, and if not, where not. Looks at the file only, not at the router."""

import json
from dataclasses import asdict

import click

from flowfast.cli.settings import set_option


@click.command("check")
@click.argument("config", type=click.Path(), default="/etc/flowfast/flowfast.yaml", envvar="FLOWFAST_CONFIG")
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print the problems as a JSON list, empty if there are none.")
@click.pass_context
def check(context: click.Context, config: str, settings: dict[str, str], as_json: bool) -> None:
    """Check a config file, or a template with its parameters set.

    Exits 0 if it can be used, 2 if not, with one line for each thing that is wrong.
    """
    from flowfast.config.load import load  # noqa: PLC0415 - pydantic takes a while to import
    from flowfast.config.problem import ConfigError  # noqa: PLC0415

    try:
        loaded = load(config, settings)
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps([asdict(problem) for problem in error.problems], indent=2))
        else:
            click.echo(str(error), err=True)
        context.exit(error.exit_code)
    if as_json:
        click.echo("[]")
        return
    devices, tunnels = loaded.config.devices, len(loaded.config.tunnels)
    sides = "; ".join(
        f"{side} {', '.join(map(str, names))}" for side, names in (("LAN", devices.lan), ("WAN", devices.wan)) if names
    )
    named = f"{tunnels} tunnel{'' if tunnels == 1 else 's'} named"
    click.echo(f"{config}: ok ({sides}; {named}; offload {loaded.config.offload.mode})")
