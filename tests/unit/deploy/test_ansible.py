"""Ansible's role, as far as it can be read without Ansible: tests/guest/test_deploy.py runs it."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "deploy" / "ansible" / "roles" / "flowfast"
ASKED = {"flowfast_wheel", "flowfast_config"}
"""What a play must give."""


def documents() -> dict[Path, Any]:
    return {file: yaml.safe_load(file.read_text()) for file in sorted(ROLE.rglob("*.yml"))}


def test_every_variable_is_given_has_a_default_or_was_registered() -> None:
    text = "\n".join(file.read_text() for file in documents())
    defaults = set(documents()[ROLE / "defaults" / "main.yml"])
    registered = set(re.findall(r"register: (\w+)", text))
    used = set(re.findall(r"\bflowfast_\w+", "\n".join(re.findall(r"\{\{.*?\}\}|when: .*|failed_when: .*", text))))
    assert used <= defaults | registered | ASKED
    assert defaults <= used
    described = (ROLE / "defaults" / "main.yml").read_text()
    assert all(f"# {name}: " in described for name in ASKED)


def test_what_it_notifies_and_copies_is_there() -> None:
    every = documents()
    handlers = {handler["name"] for handler in every[ROLE / "handlers" / "main.yml"]}
    tasks = [task for file, those in every.items() if file.parent.name == "tasks" for task in those]
    assert {task["notify"] for task in tasks if "notify" in task} == handlers
    assert all(re.match("[A-Z]", task["name"]) for task in tasks)
    assert (ROLE / "../../../systemd/flowfast.service").resolve().exists()


def test_a_change_is_confirmed_before_its_config_is_the_one_that_holds() -> None:
    names = [task["name"] for task in documents()[ROLE / "tasks" / "apply.yml"]]
    order = ["What would change", "Apply", "Leave", "Come back", "Confirm", "The config"]
    assert [name for name in names if name in order] == order
    unit = (ROOT / "deploy" / "systemd" / "flowfast.service").read_text()
    defaults = documents()[ROLE / "defaults" / "main.yml"]
    assert (
        f"ExecStart={defaults['flowfast_prefix']}/.venv/bin/flowfast run {defaults['flowfast_config_file']}\n" in unit
    )
