"""What dashboards and rules ask of Prometheus, for the tests that ask it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus" / "flowfast-rules.yaml"
DASHBOARDS = sorted((ROOT / "dashboards").glob("*.json"))


class Target(NamedTuple):
    """One query of a panel."""

    board: str
    panel: str
    expression: str
    legend: str
    empty: str


def targets() -> Iterator[Target]:
    """Every query of every panel."""
    for file in DASHBOARDS:
        board = json.loads(file.read_text())
        for panel in board["panels"]:
            for query in panel.get("targets", ()):
                empty = panel["fieldConfig"]["defaults"]["noValue"]
                yield Target(file.stem, panel["title"], query["expr"], query["legendFormat"], empty)


def rules() -> list[dict[str, Any]]:
    """Every rule, recording and alerting."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def named(expression: str) -> set[str]:
    """Metrics of ours that an expression names, recorded ones not."""
    return set(re.findall(r"(?<![\w:])flowfast_\w+", expression))


def asked(expression: str, interval: str = "30s") -> str:
    """As Grafana would ask, with everything chosen."""
    for variable, value in (("$__rate_interval", interval), ("$instance", ".*"), ("$tunnel", ".*")):
        expression = expression.replace(variable, value)
    return expression


def configured(target: str, every: str) -> str:
    """A prometheus.yml that scrapes `target` as deploy/prometheus/scrape.yaml says, but so often, with our rules."""
    scrape = yaml.safe_load((RULES.parent / "scrape.yaml").read_text())
    job = scrape["scrape_configs"][0]
    job["static_configs"] = [{"targets": [target]}]
    job |= {"scrape_interval": every, "scrape_timeout": every}
    config = {"global": {"evaluation_interval": "1s"}, "rule_files": [str(RULES)], "scrape_configs": [job]}
    text: str = yaml.safe_dump(config)
    return text
