"""`--set NAME=VALUE`: values for the parameters of a template, as every command that reads a config takes them."""

from collections.abc import Callable
from typing import Any

import click

from flowfast.model.errors import UsageError


def set_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command a keyword `settings`: a dict of names and values, for flowfast.config.load.load()."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        callback=lambda _context, _option, given: settings_of(given),
        help="Value of a template's parameter; lists with commas. May be given several times.",
    )(command)


def settings_of(given: tuple[str, ...]) -> dict[str, str]:
    """The settings as a dict. Raises UsageError for what is not NAME=VALUE, and for a name given twice."""
    settings: dict[str, str] = {}
    for setting in given:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {setting}: expected NAME=VALUE, as --set wan=eth0")
        if name in settings:
            raise UsageError(
                f"--set {setting}: {name} is set already, to {settings[name]} (items of a list go behind commas)"
            )
        settings[name] = value
    return settings
