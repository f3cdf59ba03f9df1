"""Knobs: turned journal first, back as they were, whenever the process is ended."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.apply.knobs import KnobJournal, pending, turn_back, turn_knobs
from flowfast.kernel.knobs import FakeKnobs, Files
from flowfast.model.cpu import cpu_list, cpu_mask, cpus_of, cpus_of_mask
from flowfast.model.errors import FlowfastError
from flowfast.model.knob import HIDDEN, Knob, KnobKind, Settings

RPS = Knob(KnobKind.DEVICE, "lan0", "queues/rx-0/rps_cpus")
IRQ = Knob(KnobKind.IRQ, "24", "smp_affinity_list")
FLOWS = Knob(KnobKind.SYSCTL, "", "net.core.rps_sock_flow_entries")
ALL = (RPS, IRQ, FLOWS)
BEFORE = {RPS: "", IRQ: "0-3", FLOWS: "0"}


class Killed(BaseException):
    """What a kill -9 is to the code: nothing runs after it."""


class Mortal(FakeKnobs):
    """Knobs, and the process ended before or after the n-th turn."""

    def __init__(self, values: Settings, turns: int, after: bool) -> None:
        super().__init__(values)
        self.turns, self.after = turns, after

    def turn(self, knob: Knob, value: str) -> None:
        self.turns -= 1
        if self.turns < 0 and not self.after:
            raise Killed
        super().turn(knob, value)
        if self.turns < 0:
            raise Killed


@pytest.fixture
def journal(tmp_path: Path) -> KnobJournal:
    return KnobJournal(tmp_path)


def test_what_is_wanted_is_turned_and_comes_back(journal: KnobJournal) -> None:
    knobs = FakeKnobs(BEFORE)
    done, refused = turn_knobs(knobs, {RPS: "0-3", IRQ: "0-3"}, journal)
    assert [str(turn) for turn in done] == ["lan0 queues/rx-0/rps_cpus: none -> 0-3"]
    assert not refused
    assert pending(knobs, {RPS: "0-3", IRQ: "0-3"}, journal) == []
    assert [str(turn) for turn in turn_back(knobs, journal)[0]] == [
        "lan0 queues/rx-0/rps_cpus: 0-3 -> none, as before flowfast"
    ]
    assert knobs.values == BEFORE
    assert journal.read() == {}


def test_the_first_value_is_what_comes_back(journal: KnobJournal) -> None:
    knobs = FakeKnobs(BEFORE)
    for wanted in ("0", "1", "2-3"):
        turn_knobs(knobs, {IRQ: wanted}, journal)
    turn_back(knobs, journal)
    assert knobs.values == BEFORE


def test_a_knob_that_somebody_else_turned_since_is_his(journal: KnobJournal) -> None:
    knobs = FakeKnobs(BEFORE)
    turn_knobs(knobs, {IRQ: "1"}, journal)
    knobs.values[IRQ] = "2"
    assert turn_back(knobs, journal) == ([], [])
    assert knobs.values[IRQ] == "2"


def test_a_refused_knob_is_a_reason_and_the_others_turn(journal: KnobJournal) -> None:
    knobs = FakeKnobs(BEFORE)
    knobs.refuse = {IRQ}
    done, (refusal,) = turn_knobs(knobs, {IRQ: "1", RPS: "1"}, journal)
    assert [turn.knob for turn in done] == [RPS]
    assert refusal.reason.code == "KNOB_REFUSED"
    assert refusal.reason.object == "24 smp_affinity_list"


def test_a_refused_knob_is_not_flowfasts(journal: KnobJournal) -> None:
    knobs = FakeKnobs({RING: "256"})
    knobs.refuse = {RING}
    for _ in range(2):
        turn_knobs(knobs, {RING: "9999"}, journal)
        assert journal.read() == {}
    knobs.refuse = set()
    knobs.values[RING] = "512"  # by somebody else
    assert turn_back(knobs, journal) == ([], [])
    assert knobs.values == {RING: "512"}
    turn_knobs(knobs, {RING: "1024"}, journal)
    knobs.refuse = {RING}
    turn_knobs(knobs, {RING: "9999"}, journal)
    knobs.refuse = set()
    turn_back(knobs, journal)
    assert knobs.values == {RING: "512"}


def test_a_knob_that_could_not_be_turned_back_is_remembered(journal: KnobJournal) -> None:
    knobs = FakeKnobs(BEFORE)
    turn_knobs(knobs, {IRQ: "1"}, journal)
    knobs.refuse = {IRQ}
    assert turn_knobs(knobs, {}, journal)[1]
    knobs.refuse = set()
    turn_back(knobs, journal)
    assert knobs.values == BEFORE


def test_a_knob_that_is_not_there_is_passed_over(journal: KnobJournal) -> None:
    knobs = FakeKnobs({IRQ: "0-3"})
    assert turn_knobs(knobs, {RPS: "1"}, journal) == ([], [])


def test_a_journal_of_another_kind_is_said(journal: KnobJournal) -> None:
    journal.path.write_text('{"version": 99}')
    with pytest.raises(FlowfastError, match="not a journal of this flowfast"):
        journal.read()


VALUES = st.sampled_from(["", "0", "1", "0-3"])
WANTED = st.dictionaries(st.sampled_from(ALL), VALUES)


@given(
    before=st.fixed_dictionaries(dict.fromkeys(ALL, VALUES)),
    rounds=st.lists(st.tuples(WANTED, st.integers(0, 3), st.booleans()), max_size=5),
)
def test_whenever_it_is_killed_everything_comes_back(
    tmp_path_factory: pytest.TempPathFactory, before: dict[Knob, str], rounds: list[tuple[Settings, int, bool]]
) -> None:
    journal, values = KnobJournal(tmp_path_factory.mktemp("knobs")), dict(before)
    for wanted, turns, after in rounds:
        knobs = Mortal(values, turns, after)
        with contextlib.suppress(Killed):
            turn_knobs(knobs, wanted, journal)
        values = knobs.values
    knobs = FakeKnobs(values)
    turn_back(knobs, journal)
    assert knobs.values == before
    assert journal.read() == {}


def test_files_are_read_and_written_as_lists_of_cpus(tmp_path: Path) -> None:
    rps = tmp_path / "sys/class/net/lan0/queues/rx-0/rps_cpus"
    rps.parent.mkdir(parents=True)
    rps.write_text("00000001,0000000f\n")
    files = Files(tmp_path)
    assert files.read(RPS) == "0-3,32"
    files.write(RPS, "1-2")
    assert rps.read_text().startswith("6")
    assert files.read(IRQ) is None


@given(st.frozensets(st.integers(0, 200)))
def test_lists_and_masks_of_cpus_say_the_same(cpus: frozenset[int]) -> None:
    assert cpus_of(cpu_list(cpus)) == cpus
    assert cpus_of_mask(cpu_mask(cpus)) == cpus


RING = Knob(KnobKind.NIC, "lan0", "rings rx")


def rounding(value: str = "256") -> FakeKnobs:
    """A NIC that makes 1008 of everything."""
    knobs = FakeKnobs({RING: value})
    knobs.makes = {RING: "1008"}
    return knobs


def test_what_a_driver_makes_of_a_value_is_said_and_not_asked_for_again(journal: KnobJournal) -> None:
    knobs = rounding()
    _, (remark,) = turn_knobs(knobs, {RING: "1001"}, journal)
    assert (remark.reason.code, remark.reason.sentence) == (
        "KNOB_ROUNDED",
        "1001 was asked for, and the driver made 1008 of it",
    )
    assert turn_knobs(knobs, {RING: "1001"}, journal) == ([], [remark])
    assert pending(knobs, {RING: "1001"}, journal) == []
    knobs.values[RING] = "512"  # by somebody else
    assert len(turn_knobs(knobs, {RING: "1001"}, journal)[0]) == 1
    assert len(turn_knobs(knobs, {RING: "2000"}, journal)[0]) == 1
    knobs.makes = {}
    turn_back(knobs, journal)
    assert knobs.values == {RING: "256"}


def test_what_a_driver_leaves_as_it_was_is_said(journal: KnobJournal) -> None:
    knobs = rounding("1008")
    (remark,) = turn_knobs(knobs, {RING: "1001"}, journal)[1]
    assert remark.reason.sentence == "the driver took 1001 and left it at 1008"
    assert len(knobs.turned) == 1
    turn_knobs(knobs, {RING: "1001"}, journal)
    assert len(knobs.turned) == 1


def test_what_a_driver_made_of_a_turn_comes_back_though_nobody_looked(journal: KnobJournal) -> None:
    knobs = Mortal({RING: "256"}, 0, after=True)
    knobs.makes = {RING: "1008"}
    with contextlib.suppress(Killed):
        turn_knobs(knobs, {RING: "1001"}, journal)
    after = FakeKnobs(knobs.values)
    assert after.values == {RING: "1008"}
    turn_back(after, journal)
    assert after.values == {RING: "256"}


def test_a_knob_that_does_not_come_back_is_said(journal: KnobJournal) -> None:
    knobs = rounding()
    turn_knobs(knobs, {RING: "1001"}, journal)
    _, (reason,) = turn_back(knobs, journal)
    assert (reason.code, reason.sentence) == (
        "KNOB_NOT_BACK",
        "it was to be 256 again, as before flowfast, and is 1008",
    )


FLUSH = Knob(KnobKind.NAPI, "lan0", "napi 8193 gro_flush_timeout")


def test_a_knob_that_hides_is_remembered_until_it_can_be_turned_back(journal: KnobJournal) -> None:
    knobs = FakeKnobs({FLUSH: "0"})
    turn_knobs(knobs, {FLUSH: "20000"}, journal)
    knobs.values[FLUSH] = HIDDEN
    assert [reason.code for reason in turn_back(knobs, journal)[1]] == ["KNOB_HIDDEN"]
    knobs.values[FLUSH] = "20000"
    assert turn_back(knobs, journal)[1] == []
    assert knobs.values == {FLUSH: "0"}


def test_a_napi_that_goes_while_another_knob_is_turned_is_no_refusal(journal: KnobJournal) -> None:
    channels = Knob(KnobKind.NIC, "lan0", "channels combined")
    knobs = FakeKnobs({channels: "2", FLUSH: "0"})
    done, refused = turn_knobs(knobs, {FLUSH: "20000", channels: "1"}, journal)
    assert [turn.knob for turn in done] == [channels]
    assert refused == []
    assert set(journal.read()) == {channels, FLUSH}


def test_a_journal_of_before_is_read(journal: KnobJournal) -> None:
    journal.path.write_text('{"version": 1, "turned": [["irq", "24", "smp_affinity_list", "0-3", ["1"]]]}')
    knobs = FakeKnobs({IRQ: "1"})
    turn_back(knobs, journal)
    assert knobs.values == {IRQ: "0-3"}
