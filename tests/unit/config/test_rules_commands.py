"""`flowfast rules list|show` and --set, as typed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from flowfast.cli.rules import rules
from flowfast.cli.settings import set_option
from flowfast.config.library import names
from flowfast.config.load import load, load_template, parse
from flowfast.config.problem import ConfigError
from flowfast.model.errors import UsageError

ROOT = Path(__file__).parents[3]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(rules, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_list_names_every_template_and_its_parameters() -> None:
    rows = run("list").split("\n")
    assert rows[0].split() == ["name", "what", "it", "is", "for", "parameters"]
    for name, row in zip(names(), rows[1:], strict=False):
        template = load_template(name).template
        assert row.startswith(name)
        assert template.description in row
        assert row.rstrip().endswith(", ".join(template.parameters))


def test_list_json() -> None:
    listed = json.loads(run("list", "--json"))
    assert [each["name"] for each in listed] == names()
    policy = next(each for each in listed if each["name"] == "site-to-site-policy")
    assert policy["parameters"][:1] == [
        {
            "name": "lan",
            "type": "devices",
            "description": "Devices towards the hosts.",
            "required": False,
            "default": ["lan0"],
        }
    ]
    mode = next(each for each in policy["parameters"] if each["name"] == "mode")
    assert (mode["default"], mode["choices"]) == ("guarded", ["guarded", "outbound-only", "off"])
    assert {each["default"] for each in policy["parameters"] if each["type"] == "boolean"} == {False}


def test_show_has_the_parameters_and_the_whole_file() -> None:
    shown = run("show", "site-to-site-policy")
    assert shown.startswith("site-to-site-policy: Site to site through policies, without tunnel interfaces.\n")
    assert re.search(r"\nwan +devices +wan0 +Devices on which ESP packets come and go\.", shown)
    assert re.search(r"\nfull_path +prefixes +none ", shown)
    assert re.search(r"\nmode +choice: guarded, outbound-only, off +guarded ", shown)
    assert re.search(r"\nnotrack +boolean +false ", shown)
    assert shown.endswith((ROOT / "rules" / "site-to-site-policy.yaml").read_text())


def test_show_json_has_the_text_too() -> None:
    shown = json.loads(run("show", "cross-netns", "--json"))
    assert shown["name"] == "cross-netns"
    assert shown["text"] == (ROOT / "rules" / "cross-netns.yaml").read_text()
    assert "expanded" not in shown


def test_show_of_an_own_template_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "template: mine\ndescription: Mine.\n"
        "parameters:\n"
        "  a: {type: integer, description: One that must be given., required: true}\n"
        "  b: {type: device, description: One that may be., required: false}\n"
        "config: {loop: {debounce_ms: $a}, tunnels: {x: {interface: $b}}}\n"
    )
    shown = run("show", str(path))
    assert re.search(r"\na +integer +\(required\) +One that must be given\.", shown)
    assert re.search(r"\nb +device +none +One that may be\.", shown)


def test_show_with_values_prints_a_config_that_can_be_used() -> None:
    arguments = ("show", "remote-access", "--set", "lan=eth1,eth2", "--set", "accounting=off")
    settings = {"lan": "eth1,eth2", "accounting": "off"}
    written = run(*arguments)
    assert parse(written, "site.yaml").config == load("remote-access", settings).config
    assert json.loads(run(*arguments, "--json"))["expanded"] == yaml.safe_load(written)


def test_show_says_what_is_wrong_with_a_value_or_a_name() -> None:
    with pytest.raises(ConfigError, match=r'outbound-only\.yaml:\d+:3: --set wan=a/b: "a/b" cannot be'):
        run("show", "outbound-only", "--set", "wan=a/b")
    with pytest.raises(ConfigError, match="inbound-only: no such file"):
        run("show", "inbound-only")


def test_show_of_a_config_says_that_it_is_none(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("devices: {lan: [lan0], wan: [wan0]}\n")
    with pytest.raises(ConfigError) as caught:
        run("show", str(path))
    assert str(caught.value) == f"{path}:1:1: is a config, not a template (`flowfast check` reads it)"


@click.command()
@set_option
def echo(settings: dict[str, str]) -> None:
    click.echo(json.dumps(settings))


def test_settings_are_split_at_the_first_equals_sign() -> None:
    result = CliRunner().invoke(echo, ["--set", "a=b=c", "--set", "d="])
    assert json.loads(result.output) == {"a": "b=c", "d": ""}
    assert json.loads(CliRunner().invoke(echo, []).output) == {}


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["--set", "wan"], "--set wan: expected NAME=VALUE, as --set wan=eth0"),
        (["--set", "=x"], "--set =x: expected NAME=VALUE, as --set wan=eth0"),
        (
            ["--set", "lan=a", "--set", "lan=b"],
            "--set lan=b: lan is set already, to a (items of a list go behind commas)",
        ),
    ],
)
def test_what_is_no_setting(typed: list[str], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(echo, typed, catch_exceptions=False)
    assert str(caught.value) == line


def test_the_commands_import_nothing_heavy() -> None:
    code = (
        "import sys, flowfast.cli.rules, flowfast.cli.settings\n"
        "print([name for name in ('pydantic', 'rich', 'yaml', 'pyroute2') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def reference() -> str:
    return (ROOT / "docs" / "rules.md").read_text()


def test_the_reference_names_every_template() -> None:
    assert sorted(re.findall(r"^\| \[`([a-z-]+)`\]", reference(), re.MULTILINE)) == names()
    for name in names():
        assert f"(../rules/{name}.yaml)" in reference()


def test_the_references_examples_work_and_its_errors_are_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, telephones = (part.partition("```")[0] for part in reference().split("```yaml\n")[1:])
    (tmp_path / "telephones.yaml").write_text(telephones)
    (tmp_path / "site.yaml").write_text(
        site.replace("./telephones.yaml", "./telephones.yaml\n    set: {networks: [10.9.0.0/24]}")
    )
    config = load(tmp_path / "site.yaml").config
    assert [str(ports) for ports in config.exclude.ports] == ["2427", "5060-5061"]
    assert [str(prefix) for prefix in config.exclude.addresses] == ["10.9.0.0/24"]

    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError) as typed:
        load("rules/site-to-site-policy.yaml", {"wan": "eth/0"})
    assert f"    {typed.value}\n" in reference()
    with pytest.raises(ConfigError) as apart:
        parse(
            "use:\n  - {template: site-to-site-policy, set: {mode: guarded}}\n"
            "  - {template: packet-offload-nic, set: {mode: outbound-only}}\n",
            "site.yaml",
        )
    assert f"    {apart.value}\n" in reference()
