"""What a person types; thin. Each command is in the file of its name and is imported only when it is called."""

import sys
from importlib import import_module

import click

from flowfast import __version__
from flowfast.model.errors import FlowfastError

COMMANDS = {
    "check": ("check", "Check a config file."),
    "plan": ("plan", "Show what would change, and the path of every tunnel."),
    "apply": ("apply", "Make the change, once; or take everything out again (--remove)."),
    "confirm": ("confirm", "Keep what `apply --confirm` changed."),
    "rollback": ("confirm", "Take the last apply back."),
    "run": ("run", "Keep the router as the config says, and export metrics."),
    "status": ("status", "Show tunnels, their paths and what they carried."),
    "show": ("show", "List flows, SAs, tunnels, devices, policies, steering, NICs, offload or bulking."),
    "top": ("top", "Watch throughput and paths of the tunnels, live."),
    "compare": ("compare", "Measure what the fast path saves, on this router's own traffic."),
    "explain": ("explain", "Say why a connection is, or is not, fast."),
    "doctor": ("doctor", "Say what this router can do, what is missing, and the remedy."),
    "rules": ("rules", "Templates: configs to start from."),
    "schema": ("schema", "Print the JSON Schema of the config, for editors."),
    "bench": ("bench", "Measure what flowfast itself costs on this machine."),
    "lab": ("lab", "A guest with a real kernel."),
    "demo": ("demo", "Real IPsec on a real kernel: full path against fast path."),
}
"""Command -> the module of this package that it is in, and its line in the list."""


class _Lazy(click.Group):
    """Imports a command's module when it is called: under emulation every import costs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"flowfast.cli.{module}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="flowfast")
def cli() -> None:
    """Puts IPsec tunnel traffic on the Linux flowtable, safely, and shows what it gains."""


def main() -> None:
    """The console script. An error that the user can act on is one line and an exit code, never a traceback."""
    try:
        cli(prog_name="flowfast")
    except FlowfastError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
