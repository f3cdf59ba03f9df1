"""What the controller keeps of bulking: arrivals, and knobs that something else turns back."""

import asyncio
from pathlib import Path

import pytest

from flowfast.apply.knobs import KnobJournal, turn_knobs
from flowfast.bulking import LONGEST_REST_SECONDS, MOST_TURNS, POOR_LOOKS, REST_SECONDS, Bulking
from flowfast.config.bulk import Bulk, Profile, Risk
from flowfast.kernel.arrivals import FakeArrivals
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.knobs import FakeKnobs
from flowfast.kernel.links import FakeLinks
from flowfast.model.bulk import Arrival
from flowfast.model.desired import Desired
from flowfast.model.knob import Knob, KnobKind, Turn
from flowfast.model.link import Link
from flowfast.model.state import RouterState

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
        self.bulking = Bulking(self.kernel, config, wake=self._wake, journal=journal, clock=lambda: self.now)
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
    for _ in range(MOST_TURNS - 1):
        assert lan.bulking.told(STATE).bulk.contested == frozenset()
        lan.bulking.done(Desired(knobs=WANTED), (turn,))
    assert lan.bulking.told(STATE).bulk.contested == {("lan0", "rx-gro-list")}


def test_a_knob_that_is_wanted_otherwise_is_not_contested(tmp_path: Path) -> None:
    lan = Watched(tmp_path, THROUGHPUT)
    for value, held in (("off", "on"), ("on", "off")) * MOST_TURNS:
        lan.bulking.done(Desired(knobs=WANTED | {LIST: value}), (Turn(LIST, value, held),))
    assert lan.bulking.told(STATE).bulk.contested == frozenset()


AUTO = Bulk(profile=Profile.AUTO)


def resting(lan: Watched) -> bool:
    return lan.bulking.told(STATE).bulk.resting == {"lan0"}


def test_auto_rests_where_nothing_is_put_together_and_tries_again(tmp_path: Path) -> None:
    lan = Watched(tmp_path, AUTO)
    for _ in range(POOR_LOOKS):
        assert not resting(lan)
        lan.look(10, 0, 1000, 1000)
    assert resting(lan)
    lan.now = REST_SECONDS - 1
    lan.look(10, 0, 1000, 1000)
    assert resting(lan)
    lan.now = REST_SECONDS
    lan.look(10, 0, 1000, 1000)
    assert not resting(lan)


def test_auto_rests_longer_each_time_that_it_brought_nothing(tmp_path: Path) -> None:
    lan, rests = Watched(tmp_path, AUTO), []
    for _ in range(8):
        while not resting(lan):
            lan.look(10, 0, 1000, 1000)
        began = lan.now
        while resting(lan):
            lan.now += 1
            lan.look(10, 0, 1000, 1000)
        rests.append(lan.now - began)
    assert rests == [20, 40, 80, 160, 320, 320, 320, 320]
    assert rests[-1] == LONGEST_REST_SECONDS


def test_auto_keeps_what_pays_and_changes_nothing_without_traffic(tmp_path: Path) -> None:
    lan = Watched(tmp_path, AUTO)
    for _ in range(3 * POOR_LOOKS):
        lan.look(10, 0, 1000, 100)  # ten travel as one
        lan.look(10, 0, 50, 50)  # too few to say
    assert not resting(lan)


def test_only_auto_rests(tmp_path: Path) -> None:
    lan = Watched(tmp_path, THROUGHPUT)
    for _ in range(2 * POOR_LOOKS):
        lan.look(10, 0, 1000, 1000)
    assert not resting(lan)


def test_a_plan_made_before_unfinished_checksums_came_does_not_turn_the_stage_on_again(tmp_path: Path) -> None:
    lan = Watched(tmp_path, THROUGHPUT)
    planned, state = Desired(knobs=WANTED), lan.bulking.told(STATE)
    lan.look(10, 1)
    assert lan.bulking.overtaken(state, planned).knobs == WANTED | {LIST: "off"}
    # A plan that knew decides for itself: the table may have a stage for such packets.
    assert lan.bulking.overtaken(lan.bulking.told(STATE), planned) is planned
