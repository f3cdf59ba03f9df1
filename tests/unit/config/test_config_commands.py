"""`flowfast check` and `flowfast schema`, as typed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from flowfast.cli.check import check
from flowfast.cli.schema import schema
from flowfast.config.hints import keys
from flowfast.config.json_schema import config_schema, template_schema
from flowfast.config.load import load
from flowfast.config.problem import dotted
from flowfast.config.schema import Config
from flowfast.config.tree import plain

ROOT = Path(__file__).parents[3]
RULES = sorted((ROOT / "rules").glob("*.yaml"))
BAD = "devices:\n  lan: [lan0]\n  wna: [wan0]\n"


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return str(path)


def test_check_says_ok_and_what_it_read(tmp_path: Path) -> None:
    path = written(tmp_path, "devices: {lan: [lan0], wan: [wan0]}\ntunnels: {a: {if_id: 1}}\n")
    result = CliRunner().invoke(check, [path])
    assert (result.exit_code, result.output) == (
        0,
        f"{path}: ok (LAN lan0; WAN wan0; 1 tunnel named; offload guarded)\n",
    )


def test_check_prints_a_line_each_to_stderr_and_exits_2(tmp_path: Path) -> None:
    path = written(tmp_path, BAD)
    result = CliRunner().invoke(check, [path])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f'{path}:3:3: devices.wna: unknown key (did you mean "wan"?)\n'


def test_check_of_a_template_with_its_parameters_set() -> None:
    result = CliRunner().invoke(check, ["plain-router", "--set", "lan=eth1,eth2"])
    assert (result.exit_code, result.output) == (
        0,
        "plain-router: ok (LAN eth1, eth2; WAN wan0; 0 tunnels named; offload guarded)\n",
    )
    result = CliRunner().invoke(check, ["plain-router", "--set", "lna=eth1"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(': --set lna=eth1: no such parameter (did you mean "lan"?)\n')


def test_check_json_is_a_list_of_problems(tmp_path: Path) -> None:
    path = written(tmp_path, BAD)
    result = CliRunner().invoke(check, [path, "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout) == [
        {
            "file": path,
            "line": 3,
            "column": 3,
            "object": "devices.wna",
            "sentence": "unknown key",
            "remedy": 'did you mean "wan"?',
        }
    ]


def test_check_json_of_a_right_file_is_an_empty_list() -> None:
    result = CliRunner().invoke(check, [str(RULES[0]), "--json"])
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


@pytest.mark.parametrize(("option", "expected"), [([], config_schema()), (["--template"], template_schema())])
def test_schema_prints_the_schema(option: list[str], expected: dict[str, object]) -> None:
    result = CliRunner().invoke(schema, option)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == expected


@pytest.mark.parametrize("found", [config_schema(), template_schema()], ids=["config", "template"])
def test_the_schema_is_a_schema_and_every_key_is_described(found: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(found)
    sections = [found, *(part for part in found["$defs"].values() if "enum" not in part)]
    for section in sections:
        assert section["description"]
        for name, field in section.get("properties", {}).items():
            described = field if "$ref" not in field else found["$defs"][field["$ref"].rpartition("/")[2]]
            assert described["description"], name


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_the_schemas_take_every_template_and_what_becomes_of_it(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), template_schema(), cls=jsonschema.Draft202012Validator)
    expanded = plain(load(path).tree.root)
    jsonschema.validate(expanded, config_schema(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("use: [{template: plain-router}]", True),
        ("use: [{template: plain-router, set: {wan: [a]}}]\ndevices: {wan: [b]}", True),
        ("devices: {lan: [{driver: 'mlx5*'}], wan: [{feature: esp-hw-offload}]}", True),
        ("use: [{set: {wan: [a]}}]", False),
        ("use: [plain-router]", False),
        ("devices: {wan: [b]}", False),
        ("devices: {lan: [{drvier: x}], wan: [b]}", False),
        ("devices: {lan: [{}], wan: [b]}", False),
        ("devices: {lan: [a], wan: [b]}\noffload: {dscp: [af44]}", False),
        ("devices: {lan: [a], wan: [b]}\noffload: {ports: [0]}", False),
        ("devices: {lan: [a], wan: [b]}\nexclude: {marks: [x]}", False),
    ],
)
def test_the_schema_and_load_agree(text: str, takes: bool, tmp_path: Path) -> None:
    assert jsonschema.Draft202012Validator(config_schema()).is_valid(yaml.safe_load(text)) is takes
    assert (CliRunner().invoke(check, [written(tmp_path, text)]).exit_code == 0) is takes


def test_the_schema_takes_a_template_that_is_part_of_a_config() -> None:
    for config in ({}, {"exclude": {"ports": [21, "$p"]}}, {"devices": {"wan": "$wan"}}):
        jsonschema.validate({"template": "t", "description": "d", "config": config}, template_schema())


HEADER = "template: t\ndescription: d\n"


@pytest.mark.parametrize(
    "text",
    [
        "config: {devices: {lan: [a], wan: [b]}}",
        HEADER + "config: 3",
        HEADER + "config: {devices: {lan: a, wan: [b]}}",
        HEADER + "config: {devices: {lan: [a], wan: [b]}, offlaod: $x}",
        HEADER + "config: {use: [], devices: {lan: [a], wan: [b]}}",
        HEADER
        + "parameters: {A: {type: string, description: d, default: a}}\nconfig: {devices: {lan: [$A], wan: [b]}}",
        HEADER + "parameters: {a: {type: text, description: d, default: a}}\nconfig: {devices: {lan: [$a], wan: [b]}}",
        HEADER + "parameters: {a: {type: string, default: a}}\nconfig: {devices: {lan: [$a], wan: [b]}}",
    ],
)
def test_the_schema_of_templates_refuses_what_load_refuses(text: str, tmp_path: Path) -> None:
    assert not jsonschema.Draft202012Validator(template_schema()).is_valid(yaml.safe_load(text))
    assert CliRunner().invoke(check, [written(tmp_path, text)]).exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "devices: {lan: []}",
        "devices: {lan: [a], wan: [b], x: 1}",
        "devices: {lan: [a]}\nversion: 2",
        "devices: {lan: [a]}\noffload: {mode: fast}",
        "devices: {lan: [a]}\ntunnels: {'a b': {if_id: 1}}",
        "devices: {lan: [a]}\ntunnels: {a: {if_id: -1}}",
        "devices: {lan: [a]}\nloop: {debounce_ms: 51}",
    ],
)
def test_the_schema_refuses_what_load_refuses(text: str, tmp_path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), config_schema(), cls=jsonschema.Draft202012Validator)
    assert CliRunner().invoke(check, [written(tmp_path, text)]).exit_code == 2


def test_the_commands_import_nothing_heavy() -> None:
    code = (
        "import sys, flowfast.cli.check, flowfast.cli.schema\n"
        "print([name for name in ('pydantic', 'rich', 'yaml') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def reference() -> str:
    return (ROOT / "docs" / "config.md").read_text()


@pytest.mark.parametrize("path", list(keys(Config)), ids=dotted)
def test_the_reference_has_every_key_under_a_heading(path: tuple[str, ...]) -> None:
    assert f"# `{dotted(path)}`" in reference()


def test_every_heading_of_the_reference_is_a_key_and_has_an_example() -> None:
    known = {dotted(path) for path in keys(Config)}
    for part in reference().split("# `")[1:]:
        name, _, body = part.partition("`")
        assert name in known
        assert "```yaml" in body, name


def test_every_example_of_the_reference_loads(tmp_path: Path) -> None:
    examples = [part.partition("```")[0] for part in reference().split("```yaml\n")[1:]]
    assert len(examples) > 20
    for example in examples:
        text = (
            example if "devices:" in example or "use:" in example else "devices: {lan: [lan0], wan: [wan0]}\n" + example
        )
        assert load(written(tmp_path, text)).config.devices.lan
