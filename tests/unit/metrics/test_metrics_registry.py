"""A collector that fails or is slow costs its own series, says so once, and nobody else's."""

import gzip
import logging
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from flowfast.metrics.registry import Page, Registry
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


class Slow:
    """Makes the snapshot's time a metric, but only once it may."""

    def __init__(self) -> None:
        self.may, self.began = threading.Event(), 0

    def collect(self, now: Snapshot) -> Iterable[Metric]:
        self.began += 1
        assert self.may.wait(30)
        return [GaugeMetricFamily("slow", "a family", now.ends_missed)]


def whole(_snapshot: Snapshot) -> Iterable[Metric]:
    return [GaugeMetricFamily("whole", "a family", 1)]


def page(registry: Registry, now: Snapshot, patience: float = 30) -> Page:
    registry.publish(now)
    return registry.page(patience)


def samples(page: Page) -> dict[str, float]:
    families = text_string_to_metric_families(page.text.decode())
    return {s.name + "".join(s.labels.values()): s.value for family in families for s in family.samples}


def test_failing_collector_loses_its_own_series_alone_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    fickle = Fickle()
    registry = Registry({"fickle": fickle.collect, "whole": whole}, {}, clock=iter(range(100)).__next__)
    caplog.set_level(logging.INFO)
    for _ in range(3):
        found = samples(page(registry, snapshot()))
        assert {name: value for name, value in found.items() if "duration" not in name} == {
            "whole": 1,
            "flowfast_collector_successfickle": 0,
            "flowfast_collector_successwhole": 1,
        }
        assert found["flowfast_collector_duration_secondsfickle"] > 0
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "fickle" in caplog.text and "lan0" in caplog.text

    fickle.broken = False
    assert samples(page(registry, snapshot()))["half"] == 1
    fickle.broken = True
    page(registry, snapshot())
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "ERROR"]


def test_without_a_snapshot_only_what_needs_none_runs() -> None:
    registry = Registry({"whole": whole}, {"always": lambda: whole(snapshot())}, clock=lambda: 0.0)
    assert samples(registry.page()) == {
        "whole": 1,
        "flowfast_collector_successalways": 1,
        "flowfast_collector_duration_secondsalways": 0,
    }


def test_slow_collector_is_served_as_it_was_and_says_so() -> None:
    slow = Slow()
    registry = Registry({"slow": slow.collect, "whole": whole}, {})
    slow.may.set()
    first = samples(page(registry, snapshot(ends_missed=1)))
    assert (first["slow"], first["flowfast_collector_successslow"]) == (1, 1)
    slow.may.clear()
    late = samples(page(registry, snapshot(ends_missed=2), 0.01))
    assert (late["slow"], late["flowfast_collector_successslow"], late["flowfast_collector_successwhole"]) == (1, 0, 1)
    slow.may.set()
    then = samples(page(registry, snapshot(ends_missed=3), 30))
    assert (then["slow"], then["flowfast_collector_successslow"]) == (3, 1)


def test_collector_that_never_ends_runs_once_and_holds_up_no_scrape() -> None:
    slow = Slow()
    registry = Registry({"slow": slow.collect, "whole": whole}, {})
    for _ in range(3):
        began = time.monotonic()
        found = samples(page(registry, snapshot(), 0.01))
        assert time.monotonic() - began < 20  # it would wait for 30 seconds
        assert "slow" not in found
        assert (found["whole"], found["flowfast_collector_successslow"]) == (1, 0)
    assert slow.began == 1
    slow.may.set()


def test_one_rendering_serves_all_scrapes_of_a_snapshot() -> None:
    """Also those that come while it is being rendered."""
    slow = Slow()
    registry = Registry({"slow": slow.collect}, {})
    registry.publish(snapshot())
    pages: list[Page] = []
    threads = [threading.Thread(target=lambda: pages.append(registry.page(30))) for _ in range(3)]
    for thread in threads:
        thread.start()
    slow.may.set()
    for thread in threads:
        thread.join()
    assert slow.began == 1
    assert {samples(page)["flowfast_collector_successslow"] for page in pages} == {1}
    assert registry.page() is registry.page()


def test_nobody_holds_a_snapshot_once_its_page_is_made() -> None:
    registry = Registry({"whole": whole}, {"always": lambda: whole(snapshot())})
    now = snapshot()
    held = sys.getrefcount(now)
    page(registry, now)
    assert sys.getrefcount(now) == held


def test_packed_page_is_the_page_and_one_member_of_gzip() -> None:
    found = page(Registry({"whole": whole, "more": whole}, {}), snapshot())
    assert gzip.decompress(found.gzipped) == found.text
    reader = zlib.decompressobj(wbits=31)
    assert reader.decompress(found.gzipped) == found.text
    assert reader.eof and not reader.unused_data
