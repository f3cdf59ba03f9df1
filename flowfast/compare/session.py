"""One comparison of one router, from the first look to the result: what the command, and whoever else, calls."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowfast import __version__
from flowfast.compare.experiment import Experiment, Now, TakesLatency
from flowfast.compare.fingerprint import SYSCTLS, digest, fingerprint
from flowfast.compare.last import Last, comparison
from flowfast.compare.meter import Meter, ReadsLoad
from flowfast.compare.result import Result
from flowfast.compare.schedule import Schedule
from flowfast.compare.switch import Switch
from flowfast.compare.verdict import find
from flowfast.config.schema import Config
from flowfast.kernel import Kernel
from flowfast.kernel.hardware import hardware
from flowfast.kernel.load import spent
from flowfast.model.desired import Desired
from flowfast.model.nftables import Ruleset
from flowfast.model.state import RouterState
from flowfast.observe import observe
from flowfast.plan.planner import plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """The router as it was looked at, and how its load is read. `last`: where the exporter finds the factor."""

    kernel: Kernel
    config: Config
    state: RouterState
    desired: Desired
    load: ReadsLoad
    last: Last

    async def ready(self) -> None:
        """Raises FlowfastError where there is no fast path that could be compared. Ends a killed experiment's pause."""
        switch = self._switch()
        if switch.left_over():
            switch.fast()
        await switch.held()

    async def busiest(self, seconds: float = 1.0) -> float:
        """Share of its time that the busiest CPU is busy, now."""
        before = self.load.read()
        await asyncio.sleep(seconds)
        return spent(before, self.load.read()).busiest

    async def run(
        self,
        schedule: Schedule,
        stop: asyncio.Event,
        *,
        latency: TakesLatency | None = None,
        keep_going: bool = False,
        tell: Callable[[Now], None] = lambda _now: None,
    ) -> Result:
        """All of it; `stop` ends it early, with what there is until then. Raises FlowfastError."""
        meter = Meter(self.kernel, self.load, self.config, self.state)
        experiment = Experiment(
            self._switch(), meter, schedule, stop, latency=latency, keep_going=keep_going, tell=tell
        )
        seen, started = self._fingerprint(), time.time()
        windows, ended = await experiment.run()
        result = Result(
            version=__version__,
            host=socket.gethostname(),
            started=started,
            windows=tuple(windows),
            findings=find(windows),
            settle=schedule.settle,
            seed=schedule.seed,
            fingerprint=seen,
            fingerprint_hash=digest(seen),
            ended=ended,
        )
        try:
            self.last.write(comparison(result))
        except OSError as error:
            log.warning("%s: the result is no metric: %s", self.last.path, error.strerror)
        return result

    def _switch(self) -> Switch:
        return Switch(self.kernel, self._planned)

    async def _planned(self) -> Ruleset:
        state = await observe(self.kernel, self.state.features, self.config.underlay_netns)
        return plan(state, self.config).ruleset

    def _fingerprint(self) -> dict[str, Any]:
        devices = {link.name for link in self.state.links if link.name in self.state.hooked}
        return fingerprint(
            self.state,
            self.desired,
            self.config,
            release=self.kernel.system.release(),
            hardware=hardware(devices),
            sysctls={name: self.kernel.system.sysctl(name) for name in SYSCTLS},
            foreign=self.kernel.nft.foreign(),
        )
