"""What is counted goes on after a restart and after kill -9: nothing twice, nothing of what was seen taken back."""

import asyncio
import json
import stat
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flowfast.metrics.books import Books
from flowfast.metrics.ledger import LedgerState
from flowfast.metrics.store import Store, Written
from flowfast.model.sa import SA, Direction, Mark
from flowfast.model.snapshot import ByPath, Snapshot, Traffic
from tests.unit.metrics.world import PEER, US, counters, sa, snapshot, tunnel
from tests.unit.pace import growth

OUT = ("t", Direction.OUT)


def look(books: Books, *sas: SA, full: int = 0, before: int | None = None) -> Snapshot:
    """One round: a dump with these SAs, and the counters of the full path and before the flowtable."""
    one = tunnel("t", sas)
    now = snapshot(one, totals=books.totals([one]), full_path=counters(out_t=full))
    if before is not None:
        now = replace(now, before_flowtable=counters(out_t=before))
    return asyncio.run(books.close(now))


@pytest.fixture
def store(tmp_path: Path) -> Callable[[], Store]:
    """The store of a controller that starts (again)."""
    return lambda: Store(tmp_path / "run" / "counts.jsonl", "this boot")


def test_restart_goes_on_and_adds_what_was_carried_meanwhile(store: Callable[[], Store]) -> None:
    look(Books(store()), sa(1, 500, 5), full=40)
    after = look(Books(store()), sa(1, 800, 8), full=60)
    assert after.totals[OUT] == Traffic(800, 8)
    assert after.by_path[OUT] == ByPath(280, 20)


def test_precise_counts_of_before_the_tables_were_rebuilt_survive_a_restart(store: Callable[[], Store]) -> None:
    first = Books(store())
    look(first, full=40, before=1000)
    look(first, full=0, before=10)
    assert look(Books(store()), full=5, before=30).by_path[OUT][:2] == (960 + 25, 45)


def test_end_of_an_sa_is_written_at_once(store: Callable[[], Store]) -> None:
    first = Books(store())
    look(first, sa(1, 500, 5))
    first.ended(sa(1, 900, 9))  # and kill -9
    assert look(Books(store())).totals[OUT] == Traffic(900, 9)


def test_end_that_comes_while_the_books_are_written_counts_once(
    store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, write = Books(store()), Store.write
    look(first, sa(1, 500, 5))
    writing = threading.Event()

    def slow(self: Store, written: Written) -> None:
        writing.set()
        first.ended(sa(1, 900, 9))
        write(self, written)

    monkeypatch.setattr(Store, "write", slow)
    look(first, sa(1, 800, 8))
    assert writing.is_set()
    assert look(Books(store())).totals[OUT] == Traffic(900, 9)


def test_sa_that_ended_while_nobody_looked_is_said_to_be_missed(store: Callable[[], Store]) -> None:
    look(Books(store()), sa(1, 500, 5), sa(2, 10, 1))
    second = Books(store())
    second.ended(sa(2, 20, 2))
    look(second)
    look(second)
    assert second.ends_missed == 1
    assert Books(store()).ends_missed == 1


def test_another_boot_counts_anew(store: Callable[[], Store]) -> None:
    look(Books(store()), sa(1, 500, 5))
    assert look(Books(Store(store().path, "next boot")), sa(1, 20, 2)).totals[OUT] == Traffic(20, 2)


@pytest.mark.parametrize("garbage", ["", "null\n", "{", "[1]\n", '{"version": 99}\n', "\0\0\0"])
def test_file_that_is_none_of_ours_counts_anew(store: Callable[[], Store], garbage: str) -> None:
    look(Books(store()), sa(1, 500, 5))
    store().path.write_text(garbage)
    assert look(Books(store()), sa(1, 20, 2)).totals[OUT] == Traffic(20, 2)


@pytest.mark.parametrize("row", ['{"accounts": [[1]]}', '{"sas": [[true]]}', '{"paths": [[]]}', '{"accounts": 7}'])
def test_rows_of_another_shape_count_anew(
    store: Callable[[], Store], row: str, caplog: pytest.LogCaptureFixture
) -> None:
    look(Books(store()), sa(1, 500, 5))
    with store().path.open("a") as file:
        file.write(row + "\n")
    assert look(Books(store()), sa(1, 20, 2)).totals[OUT] == Traffic(20, 2)
    assert "counting begins anew" in caplog.text


def test_line_that_was_cut_off_costs_itself_alone(store: Callable[[], Store]) -> None:
    first = Books(store())
    look(first, sa(1, 500, 5))
    first.ended(sa(1, 900, 9))
    text = store().path.read_text()
    store().path.write_text(text[:-20])
    assert look(Books(store()), sa(1, 600, 6)).totals[OUT] == Traffic(600, 6)


def test_folder_that_cannot_be_written_is_a_reason_and_no_failure(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    books = Books(Store(tmp_path / "run" / "counts.jsonl", "b"))
    now = look(books, sa(1, 500, 5))
    assert now.totals[OUT] == Traffic(500, 5)
    (reason,) = now.reasons
    assert (reason.code, reason.object) == ("COUNTS_NOT_KEPT", str(tmp_path / "run" / "counts.jsonl"))
    books.ended(sa(1, 600, 6))
    (tmp_path / "run").unlink()
    assert look(books).reasons == ()


def test_everything_that_tells_sas_apart_is_written(store: Callable[[], Store]) -> None:
    books = Books(store())
    marked = sa(1, 70, 7, mark=Mark(1, 0xFF))
    look(books, sa(1, 500, 5), marked, sa(1, 9, 1, proto=51))
    again = look(Books(store()), sa(1, 501, 6), marked, sa(1, 9, 1, proto=51))
    assert again.totals[OUT] == Traffic(580, 14)


def test_file_holds_numbers_and_addresses_and_is_replaced_whole(store: Callable[[], Store]) -> None:
    books = Books(store())
    look(books, *(sa(spi, 10, 1) for spi in range(1, 1201)))
    lines = [json.loads(line) for line in store().path.read_text().splitlines()]
    assert lines[0].keys() == {"version", "boot", "ends_missed"}
    assert max(len(rows) for line in lines[1:] for rows in line.values()) == 500
    assert list(store().path.parent.iterdir()) == [store().path]
    assert stat.S_IMODE(store().path.stat().st_mode) & 0o022 == 0


def test_without_a_store_nothing_is_written() -> None:
    books = Books()
    look(books, sa(1, 500, 5))
    books.ended(sa(1, 600, 6))
    assert look(books).totals[OUT] == Traffic(600, 6)


def test_thousands_of_sas_take_no_longer_each_to_write_than_hundreds(tmp_path: Path) -> None:
    def work(number: int) -> Callable[[], object]:
        books = Books(Store(tmp_path / f"{number}.jsonl", "b"))
        sas = [sa(n, 1000, 10) for n in range(number)]
        return lambda: look(books, *sas)

    assert growth(work, 500, 5_000) < 4


class Restarts(RuleBasedStateMachine):
    """A controller that is stopped or killed at any moment, while SAs carry, come and go."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now, self.live, self.carried, self.seen = 1000, dict[int, SA](), 0, Traffic(0, 0)
        self.fast = self.full = 0
        self.faithful = True
        self.restart()

    @rule()
    def restart(self) -> None:
        self.books = Books(Store(Path(self.folder.name) / "counts.jsonl", "b"))
        self.looked = 0  # a controller hears of ends after its first look

    @rule(spi=st.integers(1, 4))
    def add(self, spi: int) -> None:
        self.now += 1
        self.live.setdefault(spi, sa(spi, added=self.now, src=US, dst=PEER))

    @rule(which=st.integers(0, 3), packets=st.integers(1, 100), slow=st.booleans())
    def carry(self, which: int, packets: int, slow: bool) -> None:
        if spis := list(self.live):
            one = self.live[spis[which % len(spis)]]
            had = one.counters
            counted = had._replace(bytes=had.bytes + 100 * packets, packets=had.packets + packets)
            self.live[one.spi] = one._replace(counters=counted)
            self.carried += 100 * packets
            if slow:
                self.full += 100 * packets

    @rule(which=st.integers(0, 3), told=st.booleans())
    def delete(self, which: int, told: bool) -> None:
        if spis := list(self.live):
            one = self.live.pop(spis[which % len(spis)])
            if told and self.looked:
                self.books.ended(one)
            else:
                self.faithful = False

    @rule()
    def look(self) -> None:
        now = look(self.books, *self.live.values(), full=self.full)
        total = now.totals[OUT]
        assert total.bytes >= self.seen.bytes
        assert total.packets >= self.seen.packets
        assert total.bytes <= self.carried
        if self.faithful:
            assert total.bytes == self.carried
        self.seen = total
        self.looked += 1
        passed = now.by_path[OUT].flowtable + now.by_path[OUT].full
        assert passed <= total.bytes or not self.faithful
        assert passed >= self.fast
        self.fast = passed

    @invariant()
    def file_is_whole(self) -> None:
        assert not list(Path(self.folder.name).glob("*.new"))

    def teardown(self) -> None:
        if hasattr(self, "books"):
            self.look()
            self.folder.cleanup()


Restarts.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRestarts = Restarts.TestCase


def test_a_ledgers_changes_are_what_ended() -> None:
    books = Books()
    books.totals([tunnel("t", [sa(1, 500, 5)])])
    assert books._ledger.deleted(sa(9, 9, 9, reqid=77)) == LedgerState()
    changed = books._ledger.deleted(sa(1, 700, 7))
    assert changed.accounts == (("t", "out", 700, 7),)
    assert [(row[0], row[4]) for row in changed.sas] == [(True, 1)]
