"""`flowfast schema`: the JSON Schema of the config file, for editors and other tools."""

import json

import click


@click.command("schema")
def schema() -> None:
    """Print the JSON Schema of the config file.

    An editor with a YAML language server checks a config that begins with
    `# yaml-language-server: $schema=FILE`.
    """
    from flowfast.config.schema import json_schema  # noqa: PLC0415 - pydantic takes a while to import

    click.echo(json.dumps(json_schema(), indent=2))
