"""The whole page of a fixed router, as text. FLOWFAST_UPDATE_GOLDEN=1 writes it anew."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from flowfast.metrics.collectors import build, collectors
from flowfast.metrics.registry import Registry
from flowfast.metrics.text import render
from tests.unit.metrics.world import fixed

GOLDEN = Path(__file__).with_name("golden")
REFERENCE = Path(__file__).parents[3] / "docs" / "metrics.md"
COLLECTORS = {**collectors(per_sa=True, sa_limit=3), "build": lambda _snapshot: build.collect()}
UNITS = ("bytes", "seconds", "ratio", "packets", "info")
NOT_BASE = re.compile(r"(_|^)(milli|micro|kilo|mega|ms|us|kb|mb|bits?|minutes|hours|percent|msec)(_|$)")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr("flowfast.metrics.collectors.build.platform.release", lambda: "7.2.12")
    monkeypatch.setattr("flowfast.metrics.collectors.build.__version__", "0.1.0")
    every = collectors(per_sa=True, sa_limit=3)
    registry = Registry(every, {"build": build.collect}, clock=lambda: 0.0)
    registry.publish(fixed())
    return registry.page(60).text


@pytest.fixture
def families(page: bytes) -> Iterator[list[Metric]]:
    return list(text_string_to_metric_families(page.decode()))  # type: ignore[return-value]


@pytest.mark.parametrize("name", COLLECTORS)
def test_output_of_a_collector_is_the_golden_one(name: str, page: bytes) -> None:
    """`page` only for what it fixes: version and kernel."""
    golden, output = GOLDEN / f"{name}.txt", render(COLLECTORS[name](fixed()))
    if os.environ.get("FLOWFAST_UPDATE_GOLDEN"):
        golden.write_bytes(output)
    assert output.decode() == golden.read_text(), "FLOWFAST_UPDATE_GOLDEN=1 writes it anew"
    assert output in page


def test_there_is_a_golden_output_of_every_collector() -> None:
    assert {each.stem for each in GOLDEN.glob("*.txt")} == set(COLLECTORS)


def test_every_collector_worked(families: list[Metric]) -> None:
    success = next(family for family in families if family.name == "flowfast_collector_success")
    assert {sample.labels["collector"]: sample.value for sample in success.samples} == dict.fromkeys(COLLECTORS, 1)


def test_names_follow_prometheus_conventions(families: list[Metric]) -> None:
    assert len({family.name for family in families}) == len(families)
    for family in families:
        for sample in family.samples:
            assert sample.name.startswith("flowfast_")
            assert sample.name.endswith("_total") is (family.type == "counter"), sample.name
            assert not NOT_BASE.search(sample.name), sample.name
            assert sample.name.endswith("_info") <= (sample.value == 1)
            assert not {"le", "quantile", "job", "instance"} & sample.labels.keys()
        assert family.type in ("counter", "gauge")
        assert len(family.documentation) > 20
        assert family.documentation.endswith(".")
        for unit in ("bytes", "packets"):  # what a name counts, its help says
            if f"_{unit}" in family.name:
                assert re.search(unit, family.documentation, re.IGNORECASE), family.name
        if family.name.endswith("_timestamp_seconds"):
            assert "seconds since the epoch" in family.documentation


def test_no_series_twice(families: list[Metric]) -> None:
    for family in families:
        series = [tuple(sorted(sample.labels.items())) for sample in family.samples]
        assert len(set(series)) == len(series), family.name


def test_no_spi_in_a_long_lived_series(families: list[Metric]) -> None:
    with_spi = {family.name for family in families for sample in family.samples if "spi" in sample.labels}
    assert with_spi and all(name.startswith("flowfast_sa_") for name in with_spi)


def test_reference_lists_every_metric(families: list[Metric]) -> None:
    head, marker, listed = REFERENCE.read_text().partition("## Every metric\n")
    wanted = "\n| metric | type | labels | |\n|---|---|---|---|\n" + "".join(sorted(map(_listed, families)))
    if os.environ.get("FLOWFAST_UPDATE_GOLDEN"):
        REFERENCE.write_text(head + marker + wanted)
    else:
        assert listed == wanted, "FLOWFAST_UPDATE_GOLDEN=1 writes it anew"


def _listed(family: Metric) -> str:
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = ", ".join(dict.fromkeys(label for sample in family.samples for label in sample.labels))
    return f"| `{name}` | {family.type} | {labels} | {family.documentation} |\n"
