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
from flowfast.model.knob import Knob, KnobKind, Settings

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
    assert [str(turn) for turn in turn_back(knobs, journal)] == [
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
    assert turn_back(knobs, journal) == []
    assert knobs.values[IRQ] == "2"


def test_a_refused_knob_is_a_reason_and_the_others_turn(journal: KnobJournal) -> None:
    knobs = FakeKnobs(BEFORE)
    knobs.refuse = {IRQ}
    done, (refusal,) = turn_knobs(knobs, {IRQ: "1", RPS: "1"}, journal)
    assert [turn.knob for turn in done] == [RPS]
    assert refusal.reason.code == "KNOB_REFUSED"
    assert refusal.reason.object == "24 smp_affinity_list"


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
