"""Follows bulking while the controller runs: how packets arrive, who turns knobs back, how many travel as one."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from flowfast.apply.decisions import Decision, Decisions
from flowfast.apply.knobs import KnobJournal, turn_knobs
from flowfast.config.bulk import Bulk, Profile, Risk
from flowfast.kernel import Kernel
from flowfast.model.bulk import Arrival, Choice
from flowfast.model.desired import Desired
from flowfast.model.errors import FlowfastError
from flowfast.model.knob import Knob, KnobKind, Settings, Turn
from flowfast.model.state import RouterState
from flowfast.plan.governor import Governor, Seen

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
"""How long packet sockets are open at a time; packets pay for them only then."""
PAUSE_SECONDS = 0.4
FIRST_LOOK_SECONDS = 0.3
"""How long a command looks that looks but once."""
KINDS = frozenset(
    {KnobKind.FEATURE, KnobKind.DEVICE, KnobKind.NAPI, KnobKind.SIZE, KnobKind.NIC, KnobKind.SYSCTL, KnobKind.MODULE}
)
"""Knobs that are left alone where something else turns them back again and again (plan.bulk.MOST_AGAIN)."""
REMAKING = frozenset({KnobKind.SHIELD, KnobKind.NIC, KnobKind.FEATURE})
"""Knobs after which more can be planned: stages that the shield makes safe, NAPIs that were made anew."""
STAGES = ("rx-gro-list", "rx-udp-gro-forwarding")


def watched(config: Bulk) -> bool:
    """Whether a profile may ever turn a stage on."""
    profiles = {config.profile, *(each.profile for each in config.devices.values() if each.profile)}
    return bool(profiles - {Profile.KEEP, Profile.OFF})


async def with_arrivals(kernel: Kernel, state: RouterState, seconds: float = FIRST_LOOK_SECONDS) -> RouterState:
    """The state with how packets arrive, from one look, where somebody may look."""
    try:
        arrivals = await kernel.arrivals.sample([link.name for link in state.links if link.up], seconds)
    except FlowfastError as error:
        log.debug("how packets arrive cannot be seen: %s", error)
        return state
    return replace(state, bulk=replace(state.bulk, arrivals=arrivals))


class Bulking:
    """What the controller keeps of bulking between two rounds."""

    def __init__(
        self,
        kernel: Kernel,
        config: Bulk,
        *,
        wake: Callable[[], None],
        journal: KnobJournal | None = None,
        decisions: Decisions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._governors: dict[int, Governor] = {}
        self._received: dict[int, int] = {}
        """Packets by ifindex, as of the last look."""
        self._busy: float | None = None
        self._kernel, self._config, self._wake = kernel, config, wake
        self._journal = journal or KnobJournal()
        self._decisions = decisions or Decisions()
        self._arrivals: dict[int, Arrival] = {}
        """By ifindex: a device made anew under an old name is another one."""
        self._turns: Counter[Knob] = Counter()
        self._desired: Desired | None = None
        self._indices: dict[str, int] = {}

    @property
    def watches(self) -> bool:
        """Whether a profile may ever turn a stage on."""
        return watched(self._config)

    def told(self, state: RouterState) -> RouterState:
        """The state with what was seen of arrivals and of knobs that something else turns."""
        self._indices = {link.name: link.ifindex for link in state.links}
        arrivals = {name: self._arrivals[at] for name, at in self._indices.items() if at in self._arrivals}
        again = {knob: turns - 1 for knob, turns in self._turns.items() if turns > 1}
        chosen = {name: choice for name, at in self._indices.items() if (choice := self._chosen(at))}
        return replace(state, bulk=replace(state.bulk, arrivals=arrivals, turned_back=again, chosen=chosen))

    def _chosen(self, index: int) -> Choice | None:
        governor = self._governors.get(index)
        if governor is None or governor.stage is None:
            return None
        settled = governor.choice is not None and governor.choice.stage is governor.stage
        return governor.choice if settled else Choice(governor.stage)

    def done(self, desired: Desired, turned: tuple[Turn, ...]) -> bool:
        """What a round wanted, and turned; whether that makes more possible, in another one."""
        before, self._desired = self._desired, Desired(knobs=desired.knobs, stages=desired.stages)  # the rest is large
        for turn in turned:
            if turn.knob.kind not in KINDS or turn.back:
                continue
            wanted_before = before is not None and before.knobs.get(turn.knob) == turn.value
            self._turns[turn.knob] = self._turns[turn.knob] + 1 if wanted_before else 1
        return any(turn.knob.kind in REMAKING for turn in turned)

    async def watch(self) -> None:
        """Looks at what arrives, twice a second; returns only by cancellation."""
        while True:
            try:
                await self.look()
            except FlowfastError as error:
                log.debug("how packets arrive cannot be seen: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)

    async def look(self) -> None:
        """One look. Unfinished checksums turn the stages of their device off at once, not in the next round."""
        devices = [name for name in self._indices if self._watched(name)]
        found = await self._kernel.arrivals.sample(devices, LOOK_SECONDS)
        busy, was = self._kernel.arrivals.busy(), self._busy
        self._busy = busy
        came = {name: self._came(self._indices[name], now) for name, now in found.items()}
        # Softirq time is of all packets, so that what it is divided by is, too.
        share = None if busy is None or was is None else (busy - was) / max(sum(came.values()), 1)
        for name, now in found.items():
            index = self._indices[name]
            spent = None if share is None else share * came[name]
            self._govern(name, index, Seen(self._clock(), came[name], now.factor, spent))
            had = self._arrivals.get(index)
            unfinished = (had.unfinished if had else 0) + now.unfinished
            self._arrivals[index] = replace(now, seen=(had.seen if had else 0) + now.seen, unfinished=unfinished)
            if had is None or bool(had.unfinished) != bool(unfinished):
                if unfinished:
                    log.warning("%s: packets arrive with unfinished checksums", name)
                    self._off(name)
                self._wake()

    def _came(self, index: int, now: Arrival) -> int:
        """Packets on the wire since the last look; none at the first."""
        if now.received is None:
            return now.wire or 0
        before = self._received.get(index, now.received)
        self._received[index] = now.received
        return max(now.received - before, 0)

    def _govern(self, device: str, index: int, seen: Seen) -> None:
        """Profile auto: has the governor look, and turns the device to the stage that it wants."""
        if self._config.of(device) is not Profile.AUTO or self._desired is None:
            return
        stages = self._desired.stages.get(device)
        if not stages:
            return
        governor = self._governors.setdefault(index, Governor())
        others = any(other.trying for at, other in self._governors.items() if at != index)
        before = governor.choice
        if governor.look(seen, tuple(stages), may_try=not others) and governor.stage is not None:
            self._now({**self._desired.knobs, **stages[governor.stage]})
        if governor.choice is not None and governor.choice is not before:
            log.info("%s: %s", device, governor.choice.why)
            self._decisions.keep(device, Decision(governor.choice.stage, governor.choice.why, time.time()))
            self._wake()  # that what was chosen is shown

    def _watched(self, device: str) -> bool:
        had = self._arrivals.get(self._indices[device])
        return self._config.of(device) not in (Profile.KEEP, Profile.OFF) and not (had and had.unfinished)

    def overtaken(self, state: RouterState, desired: Desired) -> Desired:
        """The plan with what was learnt since it was made: another stage is wanted, or unfinished checksums came."""
        knobs = dict(desired.knobs)
        for name, at in self._indices.items():
            governor, planned = self._governors.get(at), state.bulk.chosen.get(name)
            if governor is not None and governor.stage is not None and planned != self._chosen(at):
                knobs |= desired.stages.get(name, {}).get(governor.stage, {})
        known = {name for name, arrival in state.bulk.arrivals.items() if arrival.unfinished}
        news = {
            name for name, at in self._indices.items() if (had := self._arrivals.get(at)) and had.unfinished
        } - known
        return replace(desired, knobs={**knobs, **self._stages_off(desired, news)})

    def _stages_off(self, desired: Desired, devices: Iterable[str]) -> Settings:
        """The UDP stages that the plan wants something of, all off; not where the config takes that risk."""
        knobs = [
            Knob(KnobKind.FEATURE, device, name)
            for device in devices
            if Risk.UNFINISHED not in self._config.accepted(device)
            for name in STAGES
        ]
        return {knob: "off" for knob in knobs if knob in desired.knobs}

    def _off(self, device: str) -> None:
        """Turns them off now; what else holds stays as it is."""
        if self._desired is None:
            return
        self._now({**self._desired.knobs, **self._stages_off(self._desired, [device])}, logging.WARNING)

    def _now(self, knobs: Settings, level: int = logging.INFO) -> None:
        """Turns knobs between two rounds; the next one finds them so."""
        if self._desired is None:
            return
        self._desired = replace(self._desired, knobs=knobs)
        turned, refused = turn_knobs(self._kernel.knobs, knobs, self._journal)
        for turn in turned:
            log.log(level, "%s", turn)
        for each in refused:
            log.error("%s", each.reason)
