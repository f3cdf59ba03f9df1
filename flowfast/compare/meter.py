"""What one window cost and carried: CPU time before and after, SAs by dump, deletions by event, drops by counter."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Protocol

from flowfast.compare.result import Arm, Slice, Window
from flowfast.compare.tally import Tally, by_tunnel
from flowfast.config.schema import Config
from flowfast.kernel import Kernel
from flowfast.kernel.load import Load, Spent, spent
from flowfast.kernel.xfrm import SaDeleted
from flowfast.model.sa import Direction
from flowfast.model.state import CounterValue, RouterState, Spd
from flowfast.model.tunnel import Tunnel
from flowfast.plan.ruleset import INET
from flowfast.plan.tunnels import find_tunnels

SLICES = 8
"""Parts of a window, to tell tunnels apart by; fewer where a dump of all SAs takes its time."""
SLICE = 0.5
"""Seconds of a part at least."""
LOOK = 0.5
"""Seconds between looks at the CPUs and what they drop."""
MANY = 2000
"""SAs, above which a window is one part: looking would cost more than it shows."""


class ReadsLoad(Protocol):
    """CPU time and drops, now."""

    def read(self) -> Load:
        """One reading."""


class Meter:
    """`async with meter.listening(): ...`, and in it `await meter.window(...)`, one at a time."""

    def __init__(self, kernel: Kernel, load: ReadsLoad, config: Config, state: RouterState) -> None:
        self._kernel, self._load, self._config, self._state = kernel, load, config, state
        self._tallies: list[Tally] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """SAs that are deleted meanwhile count to their end."""
        async with self._kernel.xfrm.events() as events:
            task = asyncio.create_task(self._follow(events))
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _follow(self, events: AsyncIterator[object]) -> None:
        async for event in events:
            if isinstance(event, SaDeleted):
                for tally in self._tallies:
                    tally.deleted(event.sa)

    async def tunnels(self) -> Sequence[Tunnel]:
        """Every tunnel with its SAs, now: SAs and policies are asked for, the rest is as it was at the beginning."""
        kernel, underlay = self._kernel, {}
        for netns in self._config.underlay_netns:
            async with kernel.xfrm_in(netns) as there:
                underlay[netns] = Spd(tuple(await there.sas()), tuple(await there.policies()))
        sas, policies = tuple(await kernel.xfrm.sas()), tuple(await kernel.xfrm.policies())
        return find_tunnels(replace(self._state, sas=sas, policies=policies, underlay=underlay), self._config)

    async def window(
        self,
        arm: Arm,
        seconds: float,
        start: float,
        wait: Callable[[float], Awaitable[bool]],
        watch: Callable[[Arm, Spent], None],
    ) -> Window:
        """Measures for so many seconds, or until `wait` says that it was stopped (then the window is spoiled).

        `start`: seconds since the epoch; `watch` is told what was spent, every LOOK seconds.
        """
        # Always the CPUs first, then the SAs, so that both ends of a part are as far apart in both.
        first = last = self._load.read()
        tunnels = await self.tunnels()
        sas = sum(len(tunnel.inbound) + len(tunnel.outbound) for tunnel in tunnels)
        count = 1 if sas > MANY else max(1, min(SLICES, int(seconds / SLICE)))
        whole, part = Tally(tunnels), Tally(tunnels)
        self._tallies = [whole, part]
        slow = self._slow()
        slices, stopped = [], False
        for number in range(count):
            stopped = await self._until(first.at + seconds * (number + 1) / count, wait, lambda used: watch(arm, used))
            now, tunnels = self._load.read(), await self.tunnels()
            slices.append(Slice(spent(last, now).softirq, by_tunnel(part.until(tunnels))))
            last, part = now, Tally(tunnels)
            self._tallies = [whole, part]
            if stopped:
                break
        self._tallies = []
        used = spent(first, last)
        return Window(
            arm=arm,
            start=start,
            seconds=used.seconds,
            softirq=used.softirq,
            process=used.process,
            busiest=used.busiest,
            carried=whole.until(tunnels),
            slices=tuple(slices),
            slow_bytes=_grown(slow, self._slow()) if arm == "fast" else None,
            drops=used.drops,
            polls=used.polls,
            spoiled="it was stopped before its end" if stopped else None,
        )

    async def _until(
        self, end: float, wait: Callable[[float], Awaitable[bool]], watch: Callable[[Spent], None]
    ) -> bool:
        """Waits until then, and looks at the load meanwhile; True as soon as `wait` says that it was stopped."""
        last, now = self._load.read(), asyncio.get_running_loop().time
        while (left := end - now()) > 0:
            if await wait(min(left, LOOK)):
                return True
            before, last = last, self._load.read()
            watch(spent(before, last))
        return await wait(0.0)

    def _slow(self) -> Mapping[str, CounterValue]:
        """The forward chain's counters, by tunnel and direction."""
        ways = tuple(f"{way.value}_" for way in (Direction.IN, Direction.OUT))
        counters = self._kernel.nft.counters(INET)
        return {name: value for name, value in counters.items() if name.startswith(ways)}


def _grown(before: Mapping[str, CounterValue], now: Mapping[str, CounterValue]) -> int | None:
    """Bytes; None without counters. A counter that began again counts from 0."""
    if not now:
        return None
    grown = 0
    for name, value in now.items():
        had = before[name].bytes if name in before else 0
        grown += value.bytes - had if value.bytes >= had else value.bytes
    return grown
