"""What the journal says comes back as it was written, for any plan; and what is no journal is one clear line."""

from pathlib import Path

import pytest

from flowfast.apply.commit import commands_of
from flowfast.apply.journal import Entry, Journal, before
from flowfast.kernel.nft import FakeNft
from flowfast.model.errors import FlowfastError, Unavailable
from flowfast.model.knob import Knob, KnobKind
from flowfast.model.nftables import Ruleset
from flowfast.plan.diff import OWN, diff
from flowfast.plan.planner import plan
from tests.unit.plan.router import config, policies, router

A, B = policies(), policies("fd00:1::/64", "fd00:2::/64", reqid=3)


def ruleset(*spd: tuple, more: str = "accounting: precise\nnotrack: true\nexclude: {ports: [5060]}") -> Ruleset:
    return plan(router(*spd), config(more)).ruleset


def test_an_entry_comes_back_as_it_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.read() is None
    entry = Entry(ruleset(A), ruleset(A, B), 12.5)
    journal.write(entry)
    assert journal.read() == entry
    assert [path.name for path in tmp_path.iterdir()] == [journal.path.name]


def test_a_rollback_brings_back_what_the_kernel_held(tmp_path: Path) -> None:
    nft, journal = FakeNft(), Journal(tmp_path)

    def change(wanted: Ruleset) -> None:
        held = nft.read(OWN)
        journal.write(Entry(before(journal, held), wanted))
        nft.commit(commands_of(diff(wanted, held)))

    change(ruleset(A))
    held = nft.read(OWN)
    change(ruleset(A, B, more="offload: {protocols: [tcp]}"))
    last = journal.read()
    assert last is not None
    nft.commit(commands_of(diff(last.previous, nft.read(OWN))))
    assert nft.read(OWN) == held


def test_what_somebody_else_changed_since_is_not_brought_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(Entry(Ruleset(), ruleset(A)))
    assert before(journal, Ruleset()) == Ruleset()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 99}', '{"version": 1, "previous": 7}'])
def test_what_is_no_journal_is_one_line(tmp_path: Path, text: str) -> None:
    journal = Journal(tmp_path)
    journal.path.write_text(text)
    with pytest.raises(FlowfastError, match="not a journal of this flowfast"):
        journal.read()


def test_a_journal_that_cannot_be_written_stops_the_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="nothing was changed"):
        Journal(tmp_path / "file").write(Entry(Ruleset(), Ruleset()))


def test_the_knobs_of_before_come_back(tmp_path: Path) -> None:
    knobs = {Knob(KnobKind.DEVICE, "lan0", "queues/rx-0/rps_cpus"): "0-3"}
    journal = Journal(tmp_path)
    journal.write(Entry(Ruleset(), Ruleset(), knobs=knobs))
    assert journal.read() == Entry(Ruleset(), Ruleset(), knobs=knobs)
