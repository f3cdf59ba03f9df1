"""Runs the collectors, each for itself, and joins what they made into one page.

One that fails loses its own series and says so. One that is slow costs no scrape more than a moment's patience: what it
made last is served once more, and what it makes now by the next scrape. So each has a thread of its own for each
snapshot, and nothing runs while nobody scrapes.
"""

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from prometheus_client import Metric

from flowfast.metrics.family import gauge
from flowfast.metrics.text import render
from flowfast.model.snapshot import Snapshot

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that a scrape waits for collectors that are not done."""

Collect = Callable[[Snapshot], Iterable[Metric]]
"""A collector: metric families from one moment of the router."""


@dataclass(frozen=True)
class Page:
    """What a scrape gets, in parts: a large page is not copied for it."""

    parts: tuple[bytes, ...]

    @property
    def text(self) -> bytes:
        """All of it."""
        return b"".join(self.parts)

    @cached_property
    def gzipped(self) -> bytes:
        """Compressed."""
        packed = zlib.compressobj(1, wbits=31)  # gzip; the fastest level already makes a tenth of it
        return b"".join([*map(packed.compress, self.parts), packed.flush()])


class Registry:
    """All collectors by name. `always`: those that need no snapshot. `clock` counts seconds.

    Several threads may ask for pages of one snapshot at once: it is rendered once. Of different ones they may not.
    """

    def __init__(
        self,
        collectors: Mapping[str, Collect],
        always: Mapping[str, Callable[[], Iterable[Metric]]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._collectors = [_Collector(name, collect, clock) for name, collect in collectors.items()]
        self._always = [_Collector(name, _alone(collect), clock) for name, collect in always.items()]
        self._last: tuple[Snapshot | None, Page] | None = None

    def page(self, snapshot: Snapshot | None, patience: float = PATIENCE) -> Page:
        """Every series, and how each collector fared. Without a snapshot only what needs none."""
        last = self._last
        if last is not None and last[0] is snapshot:
            return last[1]
        running = self._always if snapshot is None else [*self._always, *self._collectors]
        deadline = time.monotonic() + patience
        for collector in running:
            collector.begin(snapshot)
        for collector in running:
            collector.wait(snapshot, deadline)
        outputs = [(collector.name, collector.output) for collector in running]
        page = Page((*(output.text for _, output in outputs if output), _fared(outputs, snapshot)))
        if all(output and output.snapshot is snapshot for _, output in outputs):
            self._last = snapshot, page
        return page


@dataclass(frozen=True, slots=True)
class _Output:
    """What a collector made of a snapshot: nothing, if it failed."""

    snapshot: Snapshot | None
    text: bytes
    seconds: float
    fine: bool


def _fared(outputs: Iterable[tuple[str, _Output | None]], snapshot: Snapshot | None) -> bytes:
    success = gauge(
        "flowfast_collector_success",
        "1 where the collector worked for this page; 0 where its series are missing because it failed, or are those of "
        "an earlier moment because it is late.",
        "collector",
    )
    duration = gauge(
        "flowfast_collector_duration_seconds", "Seconds that the collector took when it last ended.", "collector"
    )
    for name, output in outputs:
        success.add((name, int(output is not None and output.fine and output.snapshot is snapshot)))
        if output is not None:
            duration.add((name, output.seconds))
    return render((success, duration))


class _Collector:
    """One collector, which runs once at a time."""

    def __init__(self, name: str, collect: Callable[..., Iterable[Metric]], clock: Callable[[], float]) -> None:
        self.name = name
        self.output: _Output | None = None
        """What it made last."""
        self._collect, self._clock = collect, clock
        self._lock = threading.Lock()
        self._running: threading.Event | None = None
        self._failing = False

    def begin(self, snapshot: Snapshot | None) -> threading.Event | None:
        """Begins with this snapshot, if it does not run yet. What to wait for; None where it is done."""
        with self._lock:
            if self._running is None:
                if self.output is not None and self.output.snapshot is snapshot:
                    return None
                self._running = threading.Event()
                thread = threading.Thread(target=self._run, args=(snapshot,), name=f"collect {self.name}", daemon=True)
                thread.start()
            return self._running

    def wait(self, snapshot: Snapshot | None, deadline: float) -> None:
        """Returns when it is done with this snapshot, or at the deadline (of time.monotonic())."""
        while (running := self.begin(snapshot)) is not None:
            if not running.wait(max(0.0, deadline - time.monotonic())):
                return

    def _run(self, snapshot: Snapshot | None) -> None:
        started = self._clock()
        text = self._rendered(snapshot)
        output = _Output(snapshot, text or b"", self._clock() - started, text is not None)
        with self._lock:
            running, self._running, self.output = self._running, None, output
        if running is not None:
            running.set()

    def _rendered(self, snapshot: Snapshot | None) -> bytes | None:
        try:
            text = render(self._collect(snapshot))
        except Exception:  # whatever one collector raises must not cost the others their scrape
            if not self._failing:
                log.exception("collector %s failed: its metrics are missing until it works again", self.name)
            self._failing = True
            return None
        if self._failing:
            log.info("collector %s works again", self.name)
        self._failing = False
        return text


def _alone(collect: Callable[[], Iterable[Metric]]) -> Callable[[Snapshot | None], Iterable[Metric]]:
    return lambda _snapshot: collect()
