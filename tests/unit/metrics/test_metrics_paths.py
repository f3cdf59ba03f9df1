"""Bytes by path: the flowtable's is what is left, from where both counters can be compared, and never shrinks."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from flowfast.metrics.keep import SPARE
from flowfast.metrics.paths import ByPath, PathBytes
from flowfast.model.sa import Direction
from flowfast.model.snapshot import Snapshot
from flowfast.model.state import CounterValue
from tests.unit.metrics.world import counters, snapshot, totals, tunnel

OUT, IN = ("t", Direction.OUT), ("t", Direction.IN)


def with_sas(full: int, total: int) -> Snapshot:
    """accounting: sa. The full path's counter, and what the SAs carried."""
    return snapshot(tunnel(), full_path=counters(out_t=full), totals=totals(out=total))


def precise(full: int, before: int) -> Snapshot:
    """accounting: precise. Both of them nft counters."""
    return snapshot(tunnel(), full_path=counters(out_t=full), before_flowtable=counters(out_t=before))


def bytes_of(paths: PathBytes) -> dict[tuple[str, Direction], ByPath]:
    return {key: by_path._replace(buffers=None) for key, by_path in paths.now.items()}


def test_buffers_are_counted_before_the_flowtable_alone_and_survive_rebuilt_tables() -> None:
    paths = PathBytes()
    for before in (CounterValue(3, 9000), CounterValue(5, 12000), CounterValue(2, 100)):
        full = {"out_t": CounterValue(0, 0)}
        paths.update(snapshot(tunnel(), full_path=full, before_flowtable={"out_t": before}))
    assert paths.now[OUT].buffers == 7
    again = PathBytes()
    again.restore(paths.state())
    again.update(snapshot(tunnel(), full_path=full, before_flowtable={"out_t": CounterValue(4, 200)}))
    assert again.now[OUT].buffers == 9
    again.update(with_sas(0, 5))
    assert again.now[OUT].buffers is None


def test_precise_counters_tell_the_whole_story_at_the_first_look() -> None:
    paths = PathBytes()
    paths.update(precise(40, 1000))
    assert bytes_of(paths) == {OUT: ByPath(960, 40)}
    assert paths.share("t", Direction.OUT) == 0.96


def test_what_sas_carried_before_the_first_look_took_no_path_that_we_know() -> None:
    paths = PathBytes()
    paths.update(with_sas(40, 5_000_000))
    assert bytes_of(paths) == {OUT: ByPath(0, 0)}
    assert paths.share("t", Direction.OUT) is None
    paths.update(with_sas(50, 5_000_100))
    assert bytes_of(paths) == {OUT: ByPath(90, 10)}
    assert paths.share("t", Direction.OUT) == 0.9


def test_unknown_is_absent() -> None:
    paths = PathBytes()
    paths.update(snapshot(tunnel(), totals=totals(out=5)))  # accounting: off
    assert bytes_of(paths) == {}
    paths.update(snapshot(tunnel(), full_path=counters(out_t=5)))  # nobody counts the whole
    assert bytes_of(paths) == {}
    assert paths.share("t", Direction.OUT) is None
    paths.update(snapshot(tunnel(), full_path=counters(in_t=5), totals=totals(**{"in": 9})))
    assert paths.now.keys() == {IN}


def test_rebuilt_tables_are_added() -> None:
    paths = PathBytes()
    paths.update(precise(100, 1000))
    paths.update(precise(20, 60))  # both from nothing: 20 and 40 more
    assert bytes_of(paths) == {OUT: ByPath(940, 120)}
    paths.update(precise(0, 80))  # the full path's alone
    assert bytes_of(paths) == {OUT: ByPath(960, 120)}


def test_precise_counter_younger_than_the_full_paths_is_compared_from_now_on() -> None:
    paths = PathBytes()
    paths.update(precise(1_000_000, 10))
    paths.update(precise(1_000_010, 110))
    assert bytes_of(paths) == {OUT: ByPath(90, 10)}


def test_change_of_accounting_goes_on_from_where_it_was() -> None:
    paths = PathBytes()
    paths.update(precise(100, 1000))
    paths.update(with_sas(100, 77))
    assert bytes_of(paths) == {OUT: ByPath(900, 100)}
    paths.update(with_sas(110, 127))
    assert bytes_of(paths) == {OUT: ByPath(940, 110)}
    paths.update(precise(110, 3))
    paths.update(precise(115, 28))
    assert bytes_of(paths) == {OUT: ByPath(960, 115)}


def test_counters_read_at_different_moments_take_nothing_back() -> None:
    paths = PathBytes()
    paths.update(precise(0, 100))
    paths.update(precise(50, 120))  # the full path was read a little later than the whole
    assert bytes_of(paths) == {OUT: ByPath(100, 50)}
    paths.update(precise(50, 170))
    assert bytes_of(paths) == {OUT: ByPath(120, 50)}


def test_tunnel_that_was_away_goes_on_and_a_thousand_that_left_are_forgotten() -> None:
    paths = PathBytes()
    paths.update(precise(100, 1000))
    paths.update(snapshot())
    assert bytes_of(paths) == {}
    paths.update(precise(100, 1200))
    assert bytes_of(paths) == {OUT: ByPath(1100, 100)}
    for number in range(2 * SPARE):
        name = f"r{number}"
        one = {f"out_{name}": CounterValue(1, 9)}
        paths.update(snapshot(tunnel(name), full_path=one, before_flowtable=one))
    assert len(paths._ways) <= SPARE + 2


def test_names_that_are_no_nft_identifiers_find_their_counters() -> None:
    odd = tunnel("büro 7")
    both: Mapping[str, CounterValue] = {f"out_{odd.slug}": CounterValue(1, 8)}
    paths = PathBytes()
    paths.update(snapshot(odd, full_path=both, before_flowtable=both))
    assert bytes_of(paths) == {("büro 7", Direction.OUT): ByPath(0, 8)}


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=30))
def test_never_backwards_whatever_the_counters_do(looks: list[tuple[bool, int, int]]) -> None:
    paths = PathBytes()
    last = ByPath(0, 0)
    for is_precise, full, total in looks:
        paths.update(precise(full, total) if is_precise else with_sas(full, total))
        now = paths.now[OUT]
        assert now.flowtable >= last.flowtable
        assert now.full >= last.full
        share = paths.share("t", Direction.OUT)
        assert share is None or 0 <= share <= 1
        last = now


@settings(deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 10**4), st.booleans(), st.booleans()), max_size=30),
)
def test_every_byte_is_on_the_path_it_took(old: int, looks: list[tuple[int, int, bool, bool]]) -> None:
    """(bytes on the flowtable, bytes on the full path, rebuilt, read) in each interval, whatever went before."""
    fast = slow = 0
    full, total = 0, old
    paths = PathBytes()
    paths.update(with_sas(full, total))
    for on_flowtable, on_full, rebuilt, read in [*looks, (0, 0, False, True)]:
        if rebuilt:  # everything was read before, so that nothing is lost with the table
            paths.update(with_sas(full, total))
            full = 0
            paths.update(with_sas(full, total))
        fast, slow = fast + on_flowtable, slow + on_full
        full, total = full + on_full, total + on_flowtable + on_full
        if read:
            paths.update(with_sas(full, total))
    assert bytes_of(paths) == {OUT: ByPath(fast, slow)}


def test_in_a_pause_everything_takes_the_full_path_though_nobody_counts_it() -> None:
    paths = PathBytes()
    paths.update(with_sas(0, 0))
    paths.update(replace(with_sas(10, 1000), paused=True))  # it has just begun
    paths.update(replace(with_sas(10, 3000), paused=True))
    assert bytes_of(paths) == {OUT: ByPath(990, 2010)}
    paths.update(with_sas(10, 4000))  # and has just ended
    assert bytes_of(paths) == {OUT: ByPath(990, 3010)}
    paths.update(with_sas(20, 5000))
    assert bytes_of(paths) == {OUT: ByPath(1980, 3020)}


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.booleans()), max_size=20))
def test_pauses_or_not_nothing_is_lost_nor_counted_twice(grown: list[tuple[int, int, bool]]) -> None:
    paths, full, total = PathBytes(), 0, 0
    paths.update(with_sas(0, 0))
    before = ByPath(0, 0)
    for slow, fast, paused in grown:
        full, total = full + slow, total + slow + fast
        paths.update(replace(with_sas(full, total), paused=paused))
        now = paths.now[OUT]
        assert now.flowtable + now.full == total
        assert now.flowtable >= before.flowtable
        assert now.full >= before.full
        before = now
