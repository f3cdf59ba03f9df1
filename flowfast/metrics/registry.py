"""Runs the collectors, each for itself: one that fails loses its own series and says so, and the others are whole."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from flowfast.model.snapshot import Snapshot

log = logging.getLogger(__name__)

Collect = Callable[[Snapshot], Iterable[Metric]]
"""A collector: metric families from one moment of the router."""


class Registry:
    """All collectors by name. `always`: those that need no snapshot. `clock` counts seconds. Not thread-safe."""

    def __init__(
        self,
        collectors: Mapping[str, Collect],
        always: Mapping[str, Callable[[], Iterable[Metric]]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._collectors = dict(collectors)
        self._always = dict(always)
        self._clock = clock
        self._failing: set[str] = set()

    def collect(self, snapshot: Snapshot | None) -> list[Metric]:
        """Every family, and how each collector fared. Without a snapshot only what needs none."""
        success = GaugeMetricFamily(
            "flowfast_collector_success",
            "1 where the collector worked at the last rendering, 0 where its series are missing because it failed.",
            labels=("collector",),
        )
        duration = GaugeMetricFamily(
            "flowfast_collector_duration_seconds",
            "Seconds that the collector took at the last rendering.",
            labels=("collector",),
        )
        families: list[Metric] = []
        for name, run in self._runs(snapshot).items():
            started = self._clock()
            found = self._run(name, run)
            duration.add_metric((name,), self._clock() - started)
            success.add_metric((name,), 0 if found is None else 1)
            families += found or ()
        return [*families, success, duration]

    def _runs(self, snapshot: Snapshot | None) -> dict[str, Callable[[], Iterable[Metric]]]:
        if snapshot is None:
            return self._always
        of_snapshot = {name: _given(snapshot, collect) for name, collect in self._collectors.items()}
        return {**self._always, **of_snapshot}

    def _run(self, name: str, run: Callable[[], Iterable[Metric]]) -> list[Metric] | None:
        try:
            found = list(run())
        except Exception:  # whatever one collector raises must not cost the others its scrape
            if name not in self._failing:
                self._failing.add(name)
                log.exception("collector %s failed: its metrics are missing until it works again", name)
            return None
        if name in self._failing:
            self._failing.remove(name)
            log.info("collector %s works again", name)
        return found


def _given(snapshot: Snapshot, collect: Collect) -> Callable[[], Iterable[Metric]]:
    return lambda: collect(snapshot)
