"""`flowfast rules list|show`: the templates that come with flowfast, what can be set, and what they say."""

import json
from typing import TYPE_CHECKING, Any

import click

from flowfast.cli.settings import set_option

if TYPE_CHECKING:
    from flowfast.config.load import LoadedTemplate
    from flowfast.config.parameters import Parameter


@click.group("rules")
def rules() -> None:
    """Templates: configs to start from, with parameters."""


@rules.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_rules(as_json: bool) -> None:
    """List the templates."""
    from flowfast.config.library import names  # noqa: PLC0415 - pydantic and rich take a while to import
    from flowfast.config.load import load_template  # noqa: PLC0415

    templates = [load_template(name) for name in names()]
    if as_json:
        click.echo(json.dumps([_summary(one) for one in templates], indent=2))
        return
    from flowfast.cli.output import console, table  # noqa: PLC0415

    listed = table("name", "what it is for", "parameters")
    for one in templates:
        template = one.template
        listed.add_row(template.template, template.description, ", ".join(template.parameters))
    console().print(listed)


@rules.command("show")
@click.argument("name")
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, settings: dict[str, str], as_json: bool) -> None:
    """Show a template, by NAME or by path: its parameters and its text; with --set, the config that comes of it."""
    from flowfast.config.load import load, load_template  # noqa: PLC0415 - pydantic and rich take a while to import
    from flowfast.config.tree import plain  # noqa: PLC0415

    shown = load_template(name)
    expanded = plain(load(name, settings).tree.root) if settings else None
    if as_json:
        config = {} if expanded is None else {"expanded": expanded}
        click.echo(json.dumps({**_summary(shown), "file": shown.file, "text": shown.text, **config}, indent=2))
        return
    import yaml  # noqa: PLC0415

    from flowfast.cli.output import console, table  # noqa: PLC0415

    if expanded is not None:
        click.echo(yaml.safe_dump(expanded, sort_keys=False, allow_unicode=True), nl=False)
        return
    template, out = shown.template, console()
    click.echo(f"{template.template}: {template.description}\n")
    listed = table("parameter", "type", "default", "what it is for")
    for each, parameter in template.parameters.items():
        listed.add_row(each, _type(parameter), _default(parameter), parameter.description)
    if template.parameters:
        out.print(listed, markup=False)
    click.echo(f"\n{shown.file}:\n\n{shown.text}", nl=False)


def _type(parameter: "Parameter") -> str:
    return f"{parameter.type}: {', '.join(parameter.choices)}" if parameter.choices else str(parameter.type)


def _default(parameter: "Parameter") -> str:
    default = _plain(parameter)
    if isinstance(default, list):
        return ", ".join(map(str, default)) or "none"
    if default is None:
        return "(required)" if parameter.required else "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _plain(parameter: "Parameter") -> Any:
    """The default as JSON has it."""
    if not parameter.has_default:
        return None
    value = parameter.read(parameter.default)
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return value if isinstance(value, bool | int) else str(value)


def _summary(shown: "LoadedTemplate") -> dict[str, object]:
    template = shown.template
    return {
        "name": template.template,
        "description": template.description,
        "parameters": [
            {
                "name": name,
                "type": str(parameter.type),
                "description": parameter.description,
                "required": parameter.required,
                "default": _plain(parameter),
                **({"choices": list(parameter.choices)} if parameter.choices else {}),
            }
            for name, parameter in template.parameters.items()
        ],
    }
