"""JSON Schema (draft 2020-12) of configs and templates, which editors complete and check from."""

from collections.abc import Collection
from typing import Any

from flowfast.config.parameters import Template
from flowfast.config.schema import Config

Schema = dict[str, Any]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PARAMETER: Schema = {
    "type": "string",
    "pattern": r"^\$[a-z$]",
    "description": "A parameter of the template: $name.",
}


def config_schema() -> Schema:
    """What a config may say. What templates give need not stand in a config that uses some."""
    schema = Config.model_json_schema()
    return {
        "$schema": _DRAFT,
        **_without_required(schema),
        "title": "flowfast config",
        "if": {"not": {"required": ["use"]}},
        "then": {"required": schema["required"], "properties": {"devices": {"required": ["lan"]}}},
    }


def template_schema() -> Schema:
    """What a template may say: its header, and part of a config, in which any value may be the name of a parameter."""
    header, config = Template.model_json_schema(), _without_required(Config.model_json_schema())
    parts = config.pop("$defs")
    config["properties"].pop("use")
    parts.pop("Use")
    sections = {f"#/$defs/{name}" for name, part in parts.items() if part["type"] == "object"}
    header["$defs"] |= {name: _with_parameters(part, sections) for name, part in parts.items()}
    description = header["properties"]["config"]["description"]
    header["$defs"]["Config"] = {**_with_parameters(config, sections), "description": description}
    header["properties"]["config"] = {"$ref": "#/$defs/Config"}
    return {"$schema": _DRAFT, **header, "title": "flowfast template"}


def _without_required(schema: Schema) -> Schema:
    """Without what may come from another template."""
    parts = {name: {**part} for name, part in schema["$defs"].items()}
    parts["Devices"].pop("required")
    return {**{key: value for key, value in schema.items() if key != "required"}, "$defs": parts}


def _with_parameters(schema: Schema, sections: Collection[str]) -> Schema:
    """The same schema, where any value below it may be the name of a parameter; no parameter is a whole section."""
    changed = dict(schema)
    for key in ("properties", "patternProperties"):
        if key in changed:
            changed[key] = {name: _or_parameter(value, sections) for name, value in changed[key].items()}
    if "items" in changed:
        changed["items"] = _or_parameter(changed["items"], sections)
    if "anyOf" in changed:
        changed["anyOf"] = [_with_parameters(one, sections) for one in changed["anyOf"]]
    return changed


def _or_parameter(schema: Schema, sections: Collection[str]) -> Schema:
    if schema.get("$ref") in sections:
        return schema
    kept: Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    return {**kept, "anyOf": [_with_parameters(schema, sections), _PARAMETER]}
