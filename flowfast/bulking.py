"""Follows bulking while the controller runs: how packets arrive, who turns knobs back, how many travel as one."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from flowfast.apply.knobs import KnobJournal, turn_knobs
from flowfast.config.bulk import Bulk, Profile, Risk
from flowfast.kernel import Kernel
from flowfast.model.bulk import Arrival
from flowfast.model.desired import Desired
from flowfast.model.errors import FlowfastError
from flowfast.model.knob import Knob, KnobKind, Settings, Turn
from flowfast.model.state import RouterState

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
"""How long packet sockets are open at a time; packets pay for them only then."""
PAUSE_SECONDS = 0.4
FIRST_LOOK_SECONDS = 0.3
"""How long a command looks that looks but once."""
MOST_TURNS = 4
"""A knob is turned, and again three times where something else turns it back; then it is left alone."""
PAYS = 1.2
"""Packets that must travel as one on average, or a stage costs more than it saves (docs/bulking.md: 5 to 15 %)."""
POOR_LOOKS = 10
"""Looks in a row at which a stage did not pay, after which `auto` lets the device rest: five seconds."""
REST_SECONDS, LONGEST_REST_SECONDS = 20.0, 320.0
"""The first rest, and the longest: each that brought nothing is followed by one twice as long."""
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


@dataclass(slots=True)
class _Trial:
    """What `auto` knows of a device. `until`: it rests, by the clock; None: its stage is on, if one is qualified."""

    poor: int = 0
    until: float | None = None
    rest: float = REST_SECONDS


class Bulking:
    """What the controller keeps of bulking between two rounds."""

    def __init__(
        self,
        kernel: Kernel,
        config: Bulk,
        *,
        wake: Callable[[], None],
        journal: KnobJournal | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._trials: dict[int, _Trial] = {}
        self._kernel, self._config, self._wake = kernel, config, wake
        self._journal = journal or KnobJournal()
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
        contested = frozenset((knob.object, knob.name) for knob, turns in self._turns.items() if turns >= MOST_TURNS)
        resting = frozenset(
            name for name, at in self._indices.items() if (trial := self._trials.get(at)) and trial.until is not None
        )
        return replace(state, bulk=replace(state.bulk, arrivals=arrivals, contested=contested, resting=resting))

    def done(self, desired: Desired, turned: tuple[Turn, ...]) -> bool:
        """What a round wanted, and turned; whether that makes more possible, in another one."""
        before, self._desired = self._desired, desired
        for turn in turned:
            if turn.knob.kind not in (KnobKind.FEATURE, KnobKind.DEVICE) or turn.back:
                continue
            wanted_before = before is not None and before.knobs.get(turn.knob) == turn.value
            self._turns[turn.knob] = self._turns[turn.knob] + 1 if wanted_before else 1
        return any(turn.knob.kind is KnobKind.SHIELD for turn in turned)

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
        for name, now in (await self._kernel.arrivals.sample(devices, LOOK_SECONDS)).items():
            index = self._indices[name]
            self._govern(name, index, now)
            had = self._arrivals.get(index)
            unfinished = (had.unfinished if had else 0) + now.unfinished
            self._arrivals[index] = replace(now, seen=(had.seen if had else 0) + now.seen, unfinished=unfinished)
            if had is None or bool(had.unfinished) != bool(unfinished):
                if unfinished:
                    log.warning("%s: packets arrive with unfinished checksums", name)
                    self._off(name)
                self._wake()

    def _govern(self, device: str, index: int, now: Arrival) -> None:
        """Profile auto: a stage that puts nothing together goes off for a while. Too little traffic changes nothing."""
        if self._config.of(device) is not Profile.AUTO or now.factor is None:
            return
        trial = self._trials.setdefault(index, _Trial())
        if trial.until is not None:
            if self._clock() >= trial.until:
                trial.until, trial.poor = None, 0
                self._wake()
        elif now.factor >= PAYS:
            trial.poor, trial.rest = 0, REST_SECONDS
        elif self._desired is not None and self._desired.knobs.get(Knob(KnobKind.FEATURE, device, "rx-gro")) == "on":
            trial.poor += 1
            if trial.poor >= POOR_LOOKS:
                log.info("%s: %.2f packets travel as one: no stage for %.0f s", device, now.factor, trial.rest)
                trial.until = self._clock() + trial.rest
                trial.rest = min(2 * trial.rest, LONGEST_REST_SECONDS)
                self._wake()

    def _watched(self, device: str) -> bool:
        had = self._arrivals.get(self._indices[device])
        return self._config.of(device) not in (Profile.KEEP, Profile.OFF) and not (had and had.unfinished)

    def overtaken(self, state: RouterState, desired: Desired) -> Desired:
        """The plan without the stages of devices at which unfinished checksums have arrived since it was made."""
        known = {name for name, arrival in state.bulk.arrivals.items() if arrival.unfinished}
        news = {
            name for name, at in self._indices.items() if (had := self._arrivals.get(at)) and had.unfinished
        } - known
        return replace(desired, knobs={**desired.knobs, **self._stages_off(desired, news)}) if news else desired

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
        self._desired = replace(
            self._desired, knobs={**self._desired.knobs, **self._stages_off(self._desired, [device])}
        )
        turned, refused = turn_knobs(self._kernel.knobs, self._desired.knobs, self._journal)
        for turn in turned:
            log.warning("%s", turn)
        for reason in refused:
            log.error("%s", reason)
