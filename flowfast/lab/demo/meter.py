"""Reads gw1's counters while traffic runs: a thread that lives in its namespace, so that a reading costs no process."""

import asyncio
import os
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from pyroute2 import netns

from flowfast.kernel.nft import RealNft
from flowfast.kernel.xfrm import AsyncXfrmSocket
from flowfast.lab.demo.result import Way
from flowfast.lab.demo.site import SITE
from flowfast.lab.netns import WAIT, LabError
from flowfast.model.sa import SA, Counters
from flowfast.model.state import CounterValue

EVERY = 0.02
"""Seconds between readings that nobody asked for."""


def esp_packets(sa: SA) -> int:
    """How many the SA has encrypted or decrypted, if the CPU does.

    One that goes out counts a packet that GRO made of many once; its sequence numbers do not. Of one that comes in, the
    highest number tells of packets that were lost, too.
    """
    return sa.replay.oseq or sa.counters.packets


@dataclass(frozen=True, slots=True)
class Reading:
    """All counters of a gateway at one moment: of its SAs by SPI, and by way as the operator's firewall counts.

    `took`: seconds from `at` until all was read. `esp`: ESP packets of each SA. No more is kept of an SA: there will be
    thousands of readings.
    """

    at: float
    took: float
    sas: dict[int, Counters]
    forward: dict[Way, CounterValue]
    esp: dict[int, int] = field(default_factory=dict)

    def bytes(self, spis: Collection[int]) -> int:
        """Inner bytes of some SAs."""
        return sum(counters.bytes for spi, counters in self.sas.items() if spi in spis)

    def esp_packets(self, spis: Collection[int]) -> int:
        """ESP packets of some SAs."""
        return sum(packets for spi, packets in self.esp.items() if spi in spis)


class Meter:
    """`with Meter("gw1") as meter: before = meter.read()`. Reads by itself too; `readings` holds all of them.

    `peer`: the namespace whose SAs are read instead of the gateway's own.
    """

    def __init__(self, namespace: str, peer: str | None = None) -> None:
        self._namespace, self._peer = namespace, peer
        self.readings: list[Reading] = []
        self.sas: dict[int, SA] = {}
        """Every SA that was seen, by SPI."""
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
        """All readings from one to another, both included; others only if they were quick, and so of one moment."""
        return [
            reading
            for reading in self.readings
            if reading in (start, end) or (start.at < reading.at < end.at and reading.took < EVERY / 4)
        ]

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
        async with AsyncXfrmSocket(self._peer) as xfrm:
            while not self._done.is_set():
                self._wanted.clear()
                at = time.monotonic()
                sas = {sa.spi: sa for sa in await xfrm.sas() if not sa.larval}
                forward = nft.counters(SITE)
                took = time.monotonic() - at
                counters = {spi: sa.counters for spi, sa in sas.items()}
                esp = {spi: esp_packets(sa) for spi, sa in sas.items()}
                with self._news:
                    self.sas |= sas
                    ways: dict[Way, CounterValue] = {"tx": forward["tx"], "rx": forward["rx"]}
                    self.readings.append(Reading(at, took, counters, ways, esp))
                    self._news.notify_all()
                # Blocks the loop, which has nothing else to do.
                self._wanted.wait(EVERY)
