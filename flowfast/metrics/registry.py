"""Runs the collectors, each for itself, and joins what they made into one page.

One that fails loses its own series and says so. One that is slow costs no scrape more than a moment's patience: what it
made last is served once more, and what it makes now by a later scrape. So each has a thread of its own for each
snapshot, which begins with the first scrape of it, and lets go of it at its end. Of 100 000 SAs nobody should hold two
generations: there it begins at once, whether somebody scrapes or not.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from prometheus_client import Metric

from flowfast.metrics.family import gauge
from flowfast.metrics.packed import gzipped, pack, unpack
from flowfast.metrics.text import parts
from flowfast.model.snapshot import Snapshot

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that a scrape waits for collectors that are not done."""

Collect = Callable[[Snapshot], Iterable[Metric]]
"""A collector: metric families from one moment of the router."""


@dataclass(frozen=True)
class Page:
    """What a scrape gets, in packed pieces."""

    pieces: tuple[bytes, ...]

    @property
    def text(self) -> bytes:
        """All of it."""
        return b"".join(map(unpack, self.pieces))

    @cached_property
    def gzipped(self) -> bytes:
        """Compressed."""
        return gzipped(self.pieces)


class Registry:
    """All collectors by name. `always`: those that need no snapshot. `clock` counts seconds."""

    def __init__(
        self,
        collectors: Mapping[str, Collect],
        always: Mapping[str, Callable[[], Iterable[Metric]]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._always = [_Collector(name, _alone(collect), clock) for name, collect in always.items()]
        self._collectors = [_Collector(name, collect, clock) for name, collect in collectors.items()]
        self._lock = threading.Lock()
        self._number = 0
        """Of the last snapshot; 0: there was none."""
        self._waiting: Snapshot | None = None
        """The last one, while nobody has asked for its page."""
        self._last: tuple[int, Page] | None = None

    def publish(self, snapshot: Snapshot, *, at_once: bool = False) -> None:
        """From now on pages are of this snapshot. Waits for nobody. `at_once`: makes its page now, and lets go."""
        with self._lock:
            self._number += 1
            self._waiting = snapshot
            if at_once:
                self._begin()

    def _begin(self) -> None:
        for collector in (*self._always, *self._collectors):
            collector.begin(self._waiting, self._number)
        self._waiting = None

    def page(self, patience: float = PATIENCE) -> Page:
        """Every series, and how each collector fared. Without a snapshot only what needs none."""
        with self._lock:
            if self._waiting is not None:
                self._begin()
            number, last = self._number, self._last
        if last is not None and last[0] == number:
            return last[1]
        running = [*self._always, *self._collectors] if number else self._always
        if not number:
            for collector in running:
                collector.begin(None, number)
        deadline = time.monotonic() + patience
        outputs = [(collector.name, collector.wait(number, deadline)) for collector in running]
        page = Page((*(output.piece for _, output in outputs if output), _fared(outputs, number)))
        if all(output and output.number >= number for _, output in outputs):
            self._last = number, page
        return page


@dataclass(frozen=True, slots=True)
class _Output:
    """What a collector made of a snapshot: nothing, if it failed."""

    number: int
    piece: bytes
    seconds: float
    fine: bool


def _fared(outputs: Iterable[tuple[str, _Output | None]], number: int) -> bytes:
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
        success.add((name, int(output is not None and output.fine and output.number >= number)))
        if output is not None:
            duration.add((name, output.seconds))
    return pack(parts((success, duration)))


class _Collector:
    """One collector, which runs once at a time: for the newest snapshot that there is when it begins."""

    def __init__(self, name: str, collect: Callable[..., Iterable[Metric]], clock: Callable[[], float]) -> None:
        self.name = name
        self._collect, self._clock = collect, clock
        self._news = threading.Condition()
        self._next: tuple[Snapshot | None, int] | None = None
        self._output: _Output | None = None
        self._running = self._failing = False

    def begin(self, snapshot: Snapshot | None, number: int) -> None:
        """Begins with this snapshot, or as soon as it is done with an earlier one."""
        with self._news:
            self._next = snapshot, number
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name=f"collect {self.name}", daemon=True).start()

    def wait(self, number: int, deadline: float) -> _Output | None:
        """What it made of the snapshot of this number; at the deadline (of time.monotonic()) what it made last."""
        with self._news:
            left = max(0.0, deadline - time.monotonic())
            self._news.wait_for(lambda: self._output is not None and self._output.number >= number, left)
            return self._output

    def _run(self) -> None:
        while True:
            with self._news:
                if self._next is None:
                    self._running = False
                    return
                (snapshot, number), self._next = self._next, None
            started = self._clock()
            made = self._made(snapshot)
            del snapshot  # nobody holds it while the next one is awaited
            output = _Output(number, made or b"", self._clock() - started, made is not None)
            with self._news:
                self._output = output
                self._news.notify_all()

    def _made(self, snapshot: Snapshot | None) -> bytes | None:
        try:
            made = pack(parts(self._collect(snapshot)))
        except Exception:  # whatever one collector raises must not cost the others their scrape
            if not self._failing:
                log.exception("collector %s failed: its metrics are missing until it works again", self.name)
            self._failing = True
            return None
        if self._failing:
            log.info("collector %s works again", self.name)
        self._failing = False
        return made


def _alone(collect: Callable[[], Iterable[Metric]]) -> Callable[[Snapshot | None], Iterable[Metric]]:
    return lambda _snapshot: collect()
