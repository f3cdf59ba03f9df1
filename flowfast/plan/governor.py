"""The governor of profile auto: which stage costs a device's traffic least, found by trying; and when to try again.

Pure: it is told what every look saw, and says which stage is wanted. It knows no device and turns nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from flowfast.model.bulk import Choice, Figures, Stage

ENOUGH = 100
"""Packets on the wire between two looks below which the device is idle: nothing is learnt, and nothing changes."""
TRY_LOOKS = 5
"""Looks that a stage is judged by, after one that is not counted: two to three seconds."""
FEW_LOOKS = 2
"""Looks after which a stage that merged nothing is given up: it only costs."""
DRIFT_LOOKS = 6
"""Looks in a row that differ from what a stage was chosen by, after which all are tried again."""
DRIFT = 1.4
"""How much they differ: as many times as many packets, or as few, travel as one."""
PEEK_SECONDS = 10.0
"""With no stage on nobody sees what one would merge: this often the best one is on for two looks."""
MERGES, PAYS = 1.05, 1.2
"""Packets that travel as one: below the first a stage only costs; above the second it pays, where cost is not known."""
BUSY_SECONDS = 0.3
"""Time in softirq below which what was spent on a stage's packets says nothing: it is counted in ticks."""
AS_GOOD = 1.01
"""A stage that costs this much of the cheapest stays, rather than change for nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: since the one before, `packets` came by on the wire and CPUs spent `busy` seconds in softirq (None:
    not known). `factor`: packets that travelled as one; None where too few were looked at: nothing is learnt then.
    `at`: seconds, of any clock that does not jump."""

    at: float
    packets: int
    factor: float | None
    busy: float | None = None


class _Phase(StrEnum):
    SETTLED = "settled"
    PEEKING = "peeking"
    TRYING = "trying"


@dataclass(slots=True)
class Tried:
    """What was seen of a stage while it was on."""

    factors: list[float] = field(default_factory=list)
    packets: int = 0
    busy: float = 0.0
    known: bool = True
    looks: int = 0

    def add(self, seen: Seen) -> None:
        """Takes one look more."""
        self.looks += 1
        self.factors.append(seen.factor or 1.0)
        self.packets += seen.packets
        self.known = self.known and seen.busy is not None
        self.busy += seen.busy or 0.0

    @property
    def factor(self) -> float:
        """Packets that travelled as one, at most looks."""
        return median(self.factors) if self.factors else 1.0

    @property
    def cost(self) -> float | None:
        """Seconds of softirq a packet. None: too little was spent to say."""
        return self.busy / self.packets if self.known and self.busy >= BUSY_SECONDS and self.packets else None


class Governor:
    """What `auto` knows of one device.

    It settles within 11 s (four stages), after at most 10 s without a stage, or three with one, in which it notices a
    change. The stages that it may try come with each look: they are the planner's to say.
    """

    def __init__(self) -> None:
        self._stages: tuple[Stage, ...] = ()
        self._phase = _Phase.SETTLED
        self._choice: Choice | None = None
        self._results: dict[Stage, Tried] = {}
        self._now = Tried()
        self._left: list[Stage] = []
        self._on: Stage | None = None
        self._fresh = False
        self._drifted = 0
        self._reference = 1.0
        self._lost_at = 0.0
        self._peeked = 0.0

    @property
    def stage(self) -> Stage | None:
        """The stage that is wanted now. None: whatever the planner holds for best."""
        return self._on

    @property
    def trying(self) -> bool:
        """Whether it is comparing stages: no other device should then."""
        return self._phase is _Phase.TRYING

    @property
    def choice(self) -> Choice | None:
        """The last decision; None before the first."""
        return self._choice

    def look(self, seen: Seen, stages: tuple[Stage, ...], *, may_try: bool = True) -> bool:
        """Takes one look, with the stages that may be on, the best first and OFF last; whether another is wanted now.

        `may_try` False: another device is trying its stages, which would be in this one's figures.
        """
        if stages != self._stages:
            # A stage came or went: what was found is about other choices.
            self._stages, self._choice, self._phase, self._lost_at = stages, None, _Phase.SETTLED, 0.0
            return self._turn(stages[0])
        if len(stages) < 2 or seen.packets < ENOUGH or seen.factor is None:
            return False
        if self._fresh:  # begun before the stage was on
            self._fresh = False
            return False
        match self._phase:
            case _Phase.TRYING:
                return self._compare(seen)
            case _Phase.PEEKING:
                return self._peek(seen)
            case _Phase.SETTLED if self._choice is None:
                return may_try and self._begin()
            case _Phase.SETTLED if self._choice.stage is Stage.OFF:
                if may_try and seen.at - self._peeked >= PEEK_SECONDS:
                    self._phase = _Phase.PEEKING
                    return self._turn(stages[0])
                return False
            case _:
                return self._drift(seen) and may_try and self._begin()

    def _turn(self, stage: Stage) -> bool:
        changed, self._on = stage is not self._on, stage
        self._fresh, self._now = changed, Tried()
        return changed

    def _begin(self) -> bool:
        self._phase, self._results, self._drifted = _Phase.TRYING, {}, 0
        self._left = [stage for stage in self._stages if stage is not self._on]
        return self._turn(self._on or self._stages[0])

    def _compare(self, seen: Seen) -> bool:
        self._now.add(seen)
        if self._on is None or (self._now.looks < TRY_LOOKS and not self._hopeless()):
            return False
        self._results[self._on] = self._now
        if self._left and (self._left != [Stage.OFF] or any(each.factor >= MERGES for each in self._results.values())):
            return self._turn(self._left.pop(0))
        before = self._choice.stage if self._choice else None
        self._choice = decide(self._results, self._stages, before)
        self._phase, self._peeked, self._drifted = _Phase.SETTLED, seen.at, 0
        chosen = self._results.get(self._choice.stage)
        self._reference = chosen.factor if chosen else 1.0
        best = max(result.factor for result in self._results.values())
        self._lost_at = best if self._choice.stage is Stage.OFF else 0.0
        return self._turn(self._choice.stage)

    def _hopeless(self) -> bool:
        """Whether the stage that is on has merged nothing so far."""
        return self._on is not Stage.OFF and self._now.looks >= FEW_LOOKS and max(self._now.factors) < MERGES

    def _peek(self, seen: Seen) -> bool:
        """One look at what the best stage would merge; all are tried if that is more than when they lost."""
        self._peeked = seen.at
        if (seen.factor or 1.0) >= max(PAYS, self._lost_at * DRIFT):
            return self._begin()
        self._phase = _Phase.SETTLED
        return self._turn(Stage.OFF)

    def _drift(self, seen: Seen) -> bool:
        """Whether the traffic has changed for good."""
        factor = seen.factor or 1.0
        far = not self._reference / DRIFT <= factor <= self._reference * DRIFT
        self._drifted = self._drifted + 1 if far or factor < MERGES else 0
        return self._drifted >= DRIFT_LOOKS


def decide(results: Mapping[Stage, Tried], stages: tuple[Stage, ...], before: Stage | None) -> Choice:
    """The stage whose packets cost least, with the figures; the one from before where it is as good.

    A stage that merges nothing only costs; where none merges, OFF need not be tried. Where cost is not known, the best
    stage that merges enough is taken.
    """
    tried = {stage: Figures(result.factor, result.cost) for stage, result in results.items()}
    if Stage.OFF not in results:
        return Choice(Stage.OFF, _told(Stage.OFF, results, {}), tried)
    merging = [stage for stage in stages if stage is Stage.OFF or results[stage].factor >= MERGES]
    costs = {stage: cost for stage in merging if (cost := results[stage].cost) is not None}
    if len(costs) < len(merging):
        stage = next((each for each in merging if results[each].factor >= PAYS), Stage.OFF)
        return Choice(stage, _told(stage, results, {}), tried)
    stage = min(costs, key=lambda each: costs[each])
    if before in costs and costs[before] <= costs[stage] * AS_GOOD:
        stage = before
    return Choice(stage, _told(stage, results, costs), tried)


def _told(stage: Stage, results: Mapping[Stage, Tried], costs: Mapping[Stage, float]) -> str:
    def each(one: Stage) -> str:
        cost = f", {costs[one] * 1e6:.2f} us a packet" if one in costs else ""
        return f"{one} {results[one].factor:.1f} as one{cost}"

    others = "; ".join(each(one) for one in results if one is not stage)
    chosen = each(stage) if stage in results else f"{stage}, as nothing merges"
    return f"{chosen}; tried: {others}" if others else chosen
