"""Follows steering while the controller runs: where packets really go, and when flows must be learnt anew."""

import asyncio
import logging
from dataclasses import replace

from flowfast.kernel import Kernel
from flowfast.kernel.machine import Machines
from flowfast.model.cpu import cpu_list
from flowfast.model.errors import FlowfastError
from flowfast.model.reason import Reason
from flowfast.model.snapshot import Snapshot
from flowfast.model.steering import Sightings
from flowfast.plan.steering.verify import Patience, elsewhere, fallback, frozen, misplaced, on_fallback

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How long the witness looks, once in an interval: what it costs, packets pay only then."""


class Steersman:
    """What the controller keeps of steering between two rounds."""

    def __init__(self) -> None:
        self._patience = Patience()
        self._seen: Sightings | None = None
        self._blind: Reason | None = None

    async def watch(self, kernel: Kernel, interval: float) -> None:
        """Looks every `interval` seconds; returns only by cancellation."""
        while True:
            await asyncio.sleep(interval)
            try:
                self._seen = await sight(kernel, LOOK_SECONDS)
                self._blind = None
            except FlowfastError as error:
                self._seen, self._blind = None, blind(error)

    def judge(self, before: Snapshot | None, now: Snapshot) -> tuple[Snapshot, bool]:
        """The snapshot with what became of the plan; and whether flows must leave the flowtable."""
        steering = now.desired.steering
        if steering is None:
            return now, False
        shares = elsewhere(steering, self._seen or {})
        reasons = misplaced(shares)
        if self._blind is not None:
            reasons.append(self._blind)
        carried = {}
        stale = any(reason.object.endswith(" out") for reason in reasons)
        if before is not None:
            carried = fallback(before, now)
            reasons += on_fallback(carried)
            self._patience.look(before, now)
            stale |= frozen(before, now)
        judged = replace(now, failures=(*now.failures, *reasons), elsewhere=shares, fallback=carried)
        return judged, stale

    def remember(self, machines: Machines, now: Snapshot) -> None:
        """Notes which CPUs get no SA, where it is news: a restart, and every other command, plans without them, too."""
        machine, refused = now.state.machine, self._patience.refused
        if machine is None or refused is None or machine.refused == refused:
            return
        try:
            machines.refuse(refused)
        except OSError as error:
            log.warning("CPUs %s get no SA, which cannot be noted: %s", cpu_list(refused), error)


def blind(error: FlowfastError) -> Reason:
    """Nobody can see where packets go: steering works, and whether it does is not known."""
    return Reason(
        "NO_WITNESS",
        "steering",
        "where packets go cannot be seen, so nobody knows whether they are on their CPUs",
        str(error),
    )


async def sight(kernel: Kernel, seconds: float) -> Sightings:
    """Where packets of each SA are processed for so many seconds. Raises FlowfastError where nobody can look."""
    seen = kernel.witness()
    looking = await asyncio.to_thread(seen.__enter__)  # attaching waits for every CPU to have passed by
    try:
        await asyncio.sleep(seconds)
        return looking.sightings()
    finally:
        await asyncio.to_thread(seen.__exit__, None, None, None)
