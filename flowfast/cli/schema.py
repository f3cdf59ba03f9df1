"""`flowfast schema`: the JSON Schema of config files and of templates, for editors and other tools."""

import json

import click


@click.command("schema")
@click.option("--template", "of_templates", is_flag=True, help="The schema of templates (files like those in rules/).")
def schema(of_templates: bool) -> None:
    """Print the JSON Schema of the config file.

    An editor with a YAML language server checks a file that begins with
    `# yaml-language-server: $schema=FILE`.
    """
    from flowfast.config.json_schema import config_schema, template_schema  # noqa: PLC0415 - pydantic takes a while

    click.echo(json.dumps(template_schema() if of_templates else config_schema(), indent=2))
