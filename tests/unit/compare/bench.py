"""A router in memory with traffic, on a clock that jumps: what its CPU spends depends on the path of its ruleset."""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowfast.apply import converge
from flowfast.compare.experiment import Now
from flowfast.compare.last import Last
from flowfast.compare.result import Result
from flowfast.compare.schedule import schedule
from flowfast.compare.session import Session
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.links import FakeLinks
from flowfast.kernel.load import CpuTime, Load
from flowfast.kernel.nft import FakeNft
from flowfast.kernel.system import FakeSystem
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.model.sa import Direction
from flowfast.model.state import CounterValue
from flowfast.observe import observe
from flowfast.plan.diff import OWN
from flowfast.plan.pause import paused
from flowfast.plan.planner import plan
from flowfast.plan.ruleset import INET
from tests.unit.compare.world import FAST, FULL
from tests.unit.plan.router import LAN, PEER, US, WAN, config, policies

SPIS = {PEER: 0x1001, US: 0x2001}
CONFIG = "tunnels: {berlin: {local: [10.1.0.0/16], remote: [10.2.0.0/16]}}"
SIZE, RATE = 500, 20_000
"""Bytes of a packet, packets a second."""


class Clock:
    """An event loop's clock that jumps to whatever is due next: hours take no time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def loop(self) -> asyncio.AbstractEventLoop:
        """A loop that goes by this clock."""
        made = asyncio.SelectorEventLoop(_Jumps(self))
        made.time = lambda: self.now  # type: ignore[method-assign]
        return made


class _Jumps(selectors.DefaultSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing ever comes from outside, so waiting is only a number."""
        self._clock.now += timeout or 0.0
        return super().select(0)


class Traffic:
    """Packets by the clock, counted when somebody reads. `rate` on each path; `lost`: share lost on the full path;
    `not_fast`: share that takes the full path in spite of everything."""

    def __init__(self, kernel: FakeKernel, clock: Clock) -> None:
        self.kernel, self.clock = kernel, clock
        self.cost: Mapping[bool, float] = {True: FULL, False: FAST}
        self.rate: Mapping[bool, int] = {True: RATE, False: RATE}
        self.lost, self.not_fast = 0.0, 0.02
        self._at, self._idle, self._dropped, self._slow, self._packets = clock.now, 0.0, 0, 0, 0

    def read(self) -> Load:
        """Since the last reading the router was on one path."""
        elapsed, self._at = self.clock.now - self._at, self.clock.now
        slow = paused(self.kernel.nft.read(OWN))
        half = round(elapsed * self.rate[slow] / 2)
        for address, spi in SPIS.items():
            self.kernel.xfrm.count(address, spi, half * SIZE, half)
        self._packets += 2 * half
        self._idle += max(0.0, elapsed - 2 * half * self.cost[slow])
        if slow:
            self._dropped += round(2 * half * self.lost)
        else:
            self._slow += round(half * SIZE * self.not_fast)
        for way in ("out", "in"):
            self.kernel.nft.set_counter(INET, f"{way}_berlin", CounterValue(0, self._slow))
        return Load(
            self.clock.now, {0: CpuTime(self._idle, 0.0, 0.0)}, drops={"wan0 rx": self._dropped}, packets=self._packets
        )


class Bench:
    """A router with flowfast applied, to compare."""

    def __init__(self, folder: Path) -> None:
        inbound = make_sa(PEER, US, SPIS[US], direction=Direction.IN)
        self.kernel = FakeKernel(
            xfrm=FakeXfrm([make_sa(US, PEER, SPIS[PEER]), inbound], policies()),
            links=FakeLinks([LAN, WAN]),
            nft=FakeNft(devices={"lan0", "wan0"}),
            system=FakeSystem(sysctls={"net.core.netdev_budget": "300"}),
        )
        self.clock = Clock()
        self.traffic = Traffic(self.kernel, self.clock)
        self.last = Last(folder)
        self.stop: asyncio.Event
        self.seen: list[tuple[str, bool]] = []

    def compare(
        self, seconds: float = 120, windows: int | None = None, at: Callable[[Now], None] | None = None, **more: Any
    ) -> Result:
        """The whole experiment; `at` is called as each window begins, while the path is still the last one's."""
        with asyncio.Runner(loop_factory=self.clock.loop) as runner:
            return runner.run(self._compare(seconds, windows, at, more))

    async def _compare(
        self, seconds: float, windows: int | None, at: Callable[[Now], None] | None, more: dict[str, Any]
    ) -> Result:
        settings, features = config(CONFIG), await self.kernel.probe.features()
        state = await observe(self.kernel, features)
        if not state.ruleset.tables:
            await converge(self.kernel, plan(state, settings), state)
            state = await observe(self.kernel, features)
        session = Session(self.kernel, settings, state, plan(state, settings), self.traffic, self.last)
        await session.ready()
        self.stop = asyncio.Event()

        def tell(now: Now) -> None:
            self.traffic.read()
            self.seen.append((now.arm, self.paused))
            if at is not None:
                at(now)

        return await session.run(schedule(seconds, windows, 7), self.stop, tell=tell, **more)

    @property
    def paused(self) -> bool:
        """Whether the router is on the full path."""
        return paused(self.kernel.nft.read(OWN))
