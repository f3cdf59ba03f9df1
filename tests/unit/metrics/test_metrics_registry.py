"""A collector that fails loses its own series, says so once, and nobody else's."""

import logging
from collections.abc import Iterable, Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from flowfast.metrics.registry import Registry
from flowfast.model.snapshot import Snapshot
from tests.unit.metrics.world import snapshot


class Fickle:
    """Fails while `broken`, after its first family."""

    def __init__(self) -> None:
        self.broken = True

    def collect(self, _snapshot: Snapshot) -> Iterator[Metric]:
        yield GaugeMetricFamily("half", "a family before the failure", 1)
        if self.broken:
            raise KeyError("lan0")


def whole(_snapshot: Snapshot) -> Iterable[Metric]:
    return [GaugeMetricFamily("whole", "a family", 1)]


def samples(families: Iterable[Metric]) -> dict[str, float]:
    return {s.name + "".join(s.labels.values()): s.value for family in families for s in family.samples}


def test_failing_collector_loses_its_own_series_alone_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    fickle = Fickle()
    ticks = iter(range(100))
    registry = Registry({"fickle": fickle.collect, "whole": whole}, {}, clock=lambda: float(next(ticks)))
    caplog.set_level(logging.INFO)
    for _ in range(3):
        found = samples(registry.collect(snapshot()))
        assert found == {
            "whole": 1,
            "flowfast_collector_successfickle": 0,
            "flowfast_collector_successwhole": 1,
            "flowfast_collector_duration_secondsfickle": 1,
            "flowfast_collector_duration_secondswhole": 1,
        }
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "fickle" in caplog.text and "lan0" in caplog.text

    fickle.broken = False
    assert samples(registry.collect(snapshot()))["half"] == 1
    fickle.broken = True
    registry.collect(snapshot())
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "ERROR"]


def test_without_a_snapshot_only_what_needs_none_runs() -> None:
    registry = Registry({"whole": whole}, {"always": lambda: whole(snapshot())}, clock=lambda: 0.0)
    assert samples(registry.collect(None)) == {
        "whole": 1,
        "flowfast_collector_successalways": 1,
        "flowfast_collector_duration_secondsalways": 0,
    }
