"""What the controller keeps of bulking: arrivals, and knobs that something else turns back."""

import asyncio
from pathlib import Path

import pytest

from flowfast.apply.decisions import Decisions
from flowfast.apply.knobs import KnobJournal, turn_knobs
from flowfast.bulking import Bulking
from flowfast.config.bulk import Bulk, Profile, Risk
from flowfast.kernel.arrivals import FakeArrivals
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.knobs import FakeKnobs
from flowfast.kernel.links import FakeLinks
from flowfast.model.bulk import Arrival, Stage, knob_of
from flowfast.model.desired import Desired
from flowfast.model.knob import Knob, KnobKind, Turn
from flowfast.model.link import Link
from flowfast.model.state import RouterState
from flowfast.plan.bulk_knobs import MOST_AGAIN

GRO = Knob(KnobKind.FEATURE, "lan0", "rx-gro")
LIST = Knob(KnobKind.FEATURE, "lan0", "rx-gro-list")
WAIT = Knob(KnobKind.DEVICE, "lan0", "gro_flush_timeout")
WANTED = {LIST: "on", WAIT: "20000", GRO: "on"}
LAN = Link(7, "lan0", None, True, 1500, driver="veth")
STATE = RouterState(1.0, (LAN,))


class Watched:
    """A device whose list stage is on, and the watch over it."""

    def __init__(self, folder: Path, config: Bulk) -> None:
        self.kernel = FakeKernel(
            links=FakeLinks([LAN]), knobs=FakeKnobs({LIST: "off", WAIT: "0", GRO: "on"}), arrivals=FakeArrivals()
        )
        self.woken = 0
        journal = KnobJournal(folder)
        self.now = 0.0
        self.bulking = Bulking(
            self.kernel, config, wake=self._wake, journal=journal, decisions=Decisions(folder), clock=lambda: self.now
        )
        self.bulking.told(STATE)
        turned, _ = turn_knobs(self.kernel.knobs, WANTED, journal)
        self.bulking.done(Desired(knobs=WANTED), tuple(turned))
        self.journal = journal

    def _wake(self) -> None:
        self.woken += 1

    def look(self, seen: int, unfinished: int, wire: int | None = None, stack: int | None = None) -> None:
        self.kernel.arrivals.arrivals = {"lan0": Arrival(seen, unfinished, wire, stack)}
        asyncio.run(self.bulking.look())


THROUGHPUT = Bulk(profile=Profile.THROUGHPUT)


def test_unfinished_checksums_turn_the_stage_off_at_once_and_nothing_else(tmp_path: Path) -> None:
    lan = Watched(tmp_path, THROUGHPUT)
    lan.look(10, 0)
    assert lan.kernel.knobs.values == WANTED
    lan.look(10, 1)
    assert lan.kernel.knobs.values == WANTED | {LIST: "off"}
    assert lan.bulking.told(STATE).bulk.arrivals == {"lan0": Arrival(20, 1)}
    turn_knobs(lan.kernel.knobs, {}, lan.journal)
    assert lan.kernel.knobs.values == {LIST: "off", WAIT: "0", GRO: "on"}


def test_the_next_round_is_woken_when_what_is_known_changes(tmp_path: Path) -> None:
    lan = Watched(tmp_path, THROUGHPUT)
    lan.look(10, 0)
    assert lan.woken == 1
    lan.look(10, 0)
    assert lan.woken == 1
    lan.look(10, 3)
    assert lan.woken == 2


def test_whoever_takes_the_risk_keeps_the_stage(tmp_path: Path) -> None:
    lan = Watched(tmp_path, Bulk(profile=Profile.THROUGHPUT, accept=(Risk.UNFINISHED,)))
    lan.look(10, 10)
    assert lan.kernel.knobs.values == WANTED


@pytest.mark.parametrize("profile", [Profile.KEEP, Profile.OFF])
def test_without_a_stage_nobody_looks(tmp_path: Path, profile: Profile) -> None:
    lan = Watched(tmp_path, Bulk(profile=profile))
    lan.look(10, 10)
    assert lan.kernel.knobs.values == WANTED
    assert not lan.bulking.watches


def test_a_device_made_anew_is_looked_at_anew(tmp_path: Path) -> None:
    lan = Watched(tmp_path, THROUGHPUT)
    lan.look(10, 1)
    again = RouterState(1.0, (Link(8, "lan0", None, True, 1500, driver="e1000e"),))
    assert lan.bulking.told(again).bulk.arrivals == {}


def test_a_knob_is_turned_again_three_times(tmp_path: Path) -> None:
    lan = Watched(tmp_path, THROUGHPUT)
    turn = Turn(LIST, "on", "off")
    for again in range(MOST_AGAIN):
        assert lan.bulking.told(STATE).bulk.turned_back == ({LIST: again} if again else {})
        lan.bulking.done(Desired(knobs=WANTED), (turn,))
    assert lan.bulking.told(STATE).bulk.turned_back == {LIST: MOST_AGAIN}


@pytest.mark.parametrize(
    "knob",
    [
        knob_of("lan0", "napi 8193 gro_flush_timeout"),
        knob_of("lan0", "gro_max_size"),
        knob_of("lan0", "rings rx"),
        Knob(KnobKind.SYSCTL, "", "net.core.netdev_budget"),
        Knob(KnobKind.MODULE, "", "esp4_offload"),
    ],
    ids=str,
)
def test_every_kind_of_knob_that_something_else_turns_back_is_counted(tmp_path: Path, knob: Knob) -> None:
    lan = Watched(tmp_path, THROUGHPUT)
    for _ in range(3):
        lan.bulking.done(Desired(knobs={knob: "1"}), (Turn(knob, "1", "0"),))
    assert lan.bulking.told(STATE).bulk.turned_back == {knob: 2}


@pytest.mark.parametrize(("name", "more"), [("channels combined", True), ("rx-gro", True), ("gro_max_size", False)])
def test_what_makes_napis_anew_asks_for_another_round(tmp_path: Path, name: str, more: bool) -> None:
    lan, knob = Watched(tmp_path, THROUGHPUT), knob_of("lan0", name)
    assert lan.bulking.done(Desired(knobs={knob: "1"}), (Turn(knob, "1", "0"),)) is more


def test_a_knob_that_is_wanted_otherwise_is_not_contested(tmp_path: Path) -> None:
    lan = Watched(tmp_path, THROUGHPUT)
    for value, held in (("off", "on"), ("on", "off")) * 4:
        lan.bulking.done(Desired(knobs=WANTED | {LIST: value}), (Turn(LIST, value, held),))
    assert lan.bulking.told(STATE).bulk.turned_back == {}


AUTO = Bulk(profile=Profile.AUTO)
STAGES = {Stage.LIST: {LIST: "on", GRO: "on"}, Stage.OFF: {LIST: "off", GRO: "off"}}


class Governed(Watched):
    """A device of profile auto on which two stages may be on; packets cost a microsecond, and what the stage adds."""

    def __init__(self, folder: Path, merges: float) -> None:
        super().__init__(folder, AUTO)
        self.merges, self.received = merges, 0
        self.kernel.arrivals.spent = 0.0
        self.bulking.done(Desired(knobs=WANTED, stages={"lan0": STAGES}), ())

    @property
    def stage(self) -> Stage:
        return Stage.LIST if self.kernel.knobs.values[LIST] == "on" else Stage.OFF

    def looks(self, count: int, packets: int = 100_000) -> None:
        for _ in range(count):
            self.now += 0.5
            self.received += packets
            on = self.stage is Stage.LIST
            factor = self.merges if on else 1.0
            self.kernel.arrivals.spent = (self.kernel.arrivals.spent or 0.0) + packets * 1e-6 * (on * 0.1 + 1 / factor)
            stack = int(packets / factor)
            self.kernel.arrivals.arrivals = {"lan0": Arrival(10, 0, packets, stack, self.received)}
            asyncio.run(self.bulking.look())


def test_auto_turns_a_stage_off_that_only_costs_and_keeps_one_that_pays(tmp_path: Path) -> None:
    for merges, wanted in ((1.0, Stage.OFF), (4.0, Stage.LIST)):
        lan = Governed(tmp_path / str(merges), merges)
        lan.looks(30)
        assert lan.stage is wanted
        choice = lan.bulking.told(STATE).bulk.chosen["lan0"]
        assert choice.stage is wanted
        assert set(choice.tried) == ({Stage.LIST} if wanted is Stage.OFF else {Stage.LIST, Stage.OFF})
        kept = Decisions(tmp_path / str(merges)).read()["lan0"]
        assert (kept.stage, kept.why) == (wanted, choice.why)
        assert choice.why.startswith("off, as nothing" if wanted is Stage.OFF else f"{wanted} {merges:.1f} as one")
        lan.bulking.told(STATE)


def test_auto_changes_nothing_without_traffic(tmp_path: Path) -> None:
    lan = Governed(tmp_path, 1.0)
    lan.looks(100, packets=20)
    assert lan.kernel.knobs.turned == [(LIST, "on"), (WAIT, "20000")]  # what the first round did


def test_what_auto_turned_goes_back_like_all_else(tmp_path: Path) -> None:
    lan = Governed(tmp_path, 1.0)
    lan.looks(30)
    turn_knobs(lan.kernel.knobs, {}, lan.journal)
    assert lan.kernel.knobs.values == {LIST: "off", WAIT: "0", GRO: "on"}


def test_a_plan_made_before_auto_chose_does_not_turn_the_stage_back(tmp_path: Path) -> None:
    lan = Governed(tmp_path, 1.0)
    planned, state = Desired(knobs=WANTED, stages={"lan0": STAGES}), lan.bulking.told(STATE)
    lan.looks(30)
    assert lan.bulking.overtaken(state, planned).knobs == WANTED | STAGES[Stage.OFF]
    assert lan.bulking.overtaken(lan.bulking.told(STATE), planned).knobs == WANTED


def test_only_auto_governs(tmp_path: Path) -> None:
    lan = Watched(tmp_path, THROUGHPUT)
    lan.bulking.done(Desired(knobs=WANTED, stages={"lan0": STAGES}), ())
    for _ in range(60):
        lan.look(10, 0, 1000, 1000)
    assert lan.kernel.knobs.values == WANTED


def test_a_plan_made_before_unfinished_checksums_came_does_not_turn_the_stage_on_again(tmp_path: Path) -> None:
    lan = Watched(tmp_path, THROUGHPUT)
    planned, state = Desired(knobs=WANTED), lan.bulking.told(STATE)
    lan.look(10, 1)
    assert lan.bulking.overtaken(state, planned).knobs == WANTED | {LIST: "off"}
    # A plan that knew decides for itself: the table may have a stage for such packets.
    assert lan.bulking.overtaken(lan.bulking.told(STATE), planned) == planned
