"""The experiment itself: window after window, and the fast path put back whatever happens.

The kernel ends every window on the full path by itself, a few seconds after it should have ended (SLACK); so what is
done here is only to be sooner. Somebody watches over the router: where the full path cannot carry the traffic, the
window ends at once, and with it the experiment.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from flowfast.compare.meter import Meter
from flowfast.compare.result import Arm, Latency, Window
from flowfast.compare.schedule import Schedule
from flowfast.compare.switch import Switch
from flowfast.compare.verdict import SATURATED
from flowfast.kernel.load import Spent
from flowfast.model.errors import FlowfastError

SLACK = 5.0
"""Seconds after the end of a window on the full path at which the kernel ends it, if nobody else did."""
TOO_MANY = 0.01
"""Share of the packets that the full path may drop with a CPU at its limit."""
FEWEST = 20
"""Dropped packets that are no accident."""


class TakesLatency(Protocol):
    """How long packets take through the router."""

    async def sample(self) -> Latency | None:
        """A sample, now; None where nothing could be told."""


@dataclass(frozen=True, slots=True)
class Now:
    """Where the experiment is: window `number` (from 1) of `count`, on which path."""

    number: int
    count: int
    arm: Arm


class Experiment:
    """`windows, ended = await Experiment(...).run()`; `stop` may be set at any time, by anybody.

    `keep_going`: also where the full path drops packets.
    """

    def __init__(
        self,
        switch: Switch,
        meter: Meter,
        schedule: Schedule,
        stop: asyncio.Event,
        *,
        latency: TakesLatency | None = None,
        keep_going: bool = False,
        tell: Callable[[Now], None] = lambda _now: None,
    ) -> None:
        self._switch, self._meter, self._schedule, self._stop = switch, meter, schedule, stop
        self._latency, self._keep_going, self._tell = latency, keep_going, tell
        self._ended: str | None = None

    async def run(self) -> tuple[list[Window], str | None]:
        """All windows, and why they are not all (None: they are). Raises FlowfastError where there is not even one.

        The fast path is back in any case.
        """
        windows: list[Window] = []
        count = len(self._schedule.arms)
        try:
            async with self._meter.listening():
                for number, arm in enumerate(self._schedule.arms, 1):
                    if self._stop.is_set():
                        break
                    self._tell(Now(number, count, arm))
                    windows.append(await self._window(arm))
        except FlowfastError as error:
            if not windows:
                raise
            self._ended = str(error)
        finally:
            self._switch.fast()
        if len(windows) < count or self._stop.is_set():
            return windows, self._ended or "it was stopped"
        return windows, None

    async def _window(self, arm: Arm) -> Window:
        plan, start = self._schedule, time.time()
        if arm == "full":
            await self._switch.full(plan.window + SLACK)
        await self._wait(plan.settle)
        window = await self._meter.window(arm, plan.measure, start, self._wait, self._watch)
        if self._latency and not self._stop.is_set():
            window = replace(window, latency=await self._latency.sample())
        if arm == "full" and not self._switch.fast():
            return replace(window, spoiled="the fast path was back before its end: the router was too busy to be asked")
        return window

    async def _wait(self, seconds: float) -> bool:
        """True as soon as the experiment is to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        return self._stop.is_set()

    def _watch(self, arm: Arm, used: Spent) -> None:
        drops = sum(count for name, count in used.drops.items() if name.endswith((" rx", " tx", "backlog")))
        too_many = max(FEWEST, TOO_MANY * (used.packets + drops))
        if arm == "full" and used.busiest >= SATURATED and drops > too_many and not self._keep_going:
            what = f"{drops:,} packets dropped in {used.seconds:.1f} s with a CPU at its limit"
            self._ended = f"the full path cannot carry this traffic: {what} (--keep-going measures all the same)"
            self._stop.set()
