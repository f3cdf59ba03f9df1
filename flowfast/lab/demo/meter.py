"""Reads gw1's counters while traffic runs: a thread that lives in its namespace, so that a reading costs no process."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Self

from pyroute2 import netns

from flowfast.kernel.nft import RealNft
from flowfast.kernel.xfrm import AsyncXfrmSocket
from flowfast.lab.demo.result import Way
from flowfast.lab.demo.site import SITE
from flowfast.lab.netns import WAIT, LabError
from flowfast.model.sa import SA
from flowfast.model.state import CounterValue

EVERY = 0.02
"""Seconds between readings that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All counters of a gateway at one moment; `sas` by SPI, `forward` by way, as the operator's firewall counts."""

    at: float
    sas: dict[int, SA]
    forward: dict[Way, CounterValue]

    def bytes(self, way: Way, out: Callable[[SA], bool]) -> int:
        """Inner bytes of all SAs of one way; `out` tells an SA's."""
        return sum(sa.counters.bytes for sa in self.sas.values() if out(sa) == (way == "tx"))


class Meter:
    """`with Meter("gw1") as meter: before = meter.read()`. Reads by itself too; `readings` holds all of them."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self.readings: list[Reading] = []
        self._wanted, self._done = threading.Event(), threading.Event()
        self._news = threading.Condition()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._done.set()
        self._wanted.set()
        self._thread.join()

    def read(self) -> Reading:
        """A reading that began after this call. LabError if there comes none."""
        asked = time.monotonic()
        self._wanted.set()
        with self._news:
            if not self._news.wait_for(lambda: self._error or (self.readings and self.readings[-1].at >= asked), WAIT):
                raise LabError(f"{self._namespace}: its counters were not read within {WAIT:g} s")
        if self._error:
            raise self._error
        return self.readings[-1]

    def between(self, start: Reading, end: Reading) -> list[Reading]:
        """All readings from one to another, both included."""
        return [reading for reading in self.readings if start.at <= reading.at <= end.at]

    def _run(self) -> None:
        try:
            # The network namespace is the thread's: the sockets that it opens are gw1's.
            netns.setns(self._namespace, flags=0, fork=False)
            # Before everything else: a reading must not be older than its time says.
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            asyncio.run(self._loop())
        except Exception as error:  # noqa: BLE001 - raised again where a reading is asked for
            with self._news:
                self._error = error
                self._news.notify_all()

    async def _loop(self) -> None:
        nft = RealNft()
        async with AsyncXfrmSocket() as xfrm:
            while not self._done.is_set():
                self._wanted.clear()
                at = time.monotonic()
                sas = {sa.spi: sa for sa in await xfrm.sas() if not sa.larval}
                counters = nft.counters(SITE)
                with self._news:
                    self.readings.append(Reading(at, sas, {"tx": counters["tx"], "rx": counters["rx"]}))
                    self._news.notify_all()
                # Blocks the loop, which has nothing else to do.
                self._wanted.wait(EVERY)


def rate(points: list[tuple[float, int]]) -> float | None:
    """Bits a second between the first and the last tenth of the bytes, from (seconds, bytes so far).

    So neither a connection's beginning nor the moment at which somebody noticed its end is in it. None if nothing
    moved, or if it was over between two readings.
    """
    grown = [(at, value - points[0][1]) for at, value in points]
    total = grown[-1][1]
    start, end = (_when(grown, total * tenths / 10) for tenths in (1, 9))
    if start is None or end is None or end <= start:
        return None
    return total * 0.8 * 8 / (end - start)


def _when(points: list[tuple[float, int]], value: float) -> float | None:
    """The moment at which `value` was reached, between two readings in proportion."""
    for (before, low), (after, high) in pairwise(points):
        if low < value <= high:
            return before + (after - before) * (value - low) / (high - low)
    return None
