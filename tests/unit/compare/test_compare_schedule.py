"""Every schedule is balanced, made of neighbouring pairs, decided by lot and by nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.compare.schedule import LEAST_WINDOWS, WINDOW, arms, schedule
from flowfast.model.errors import UsageError
from tests.unit.compare.world import draws

even = st.integers(2, 200).map(lambda half: 2 * half)


@given(even, st.integers())
def test_every_pair_of_neighbours_has_both_paths(count: int, seed: int) -> None:
    found = arms(count, draws(seed))
    assert len(found) == count
    assert all({one, other} == {"full", "fast"} for one, other in zip(found[::2], found[1::2], strict=True))


@given(st.integers(1, 50), st.integers())
def test_a_linear_drift_falls_on_both_paths_alike(blocks: int, seed: int) -> None:
    found = arms(4 * blocks, draws(seed))
    at = {arm: sum(number for number, each in enumerate(found) if each == arm) for arm in ("full", "fast")}
    assert at["full"] == at["fast"]


def test_either_path_begins_a_block_by_lot() -> None:
    begins = [arms(4, draws(seed))[0] for seed in range(200)]
    assert 70 < begins.count("full") < 130


@given(even, st.integers())
def test_the_same_seed_gives_the_same_order(count: int, seed: int) -> None:
    assert arms(count, draws(seed)) == arms(count, draws(seed))


@given(st.floats(40, 36_000), st.integers())
def test_windows_fill_the_time(seconds: float, seed: int) -> None:
    found = schedule(seconds, None, seed)
    assert len(found.arms) * found.window == pytest.approx(seconds)
    assert found.on_full_path == pytest.approx(seconds / 2)
    assert 0 < found.settle < found.measure
    assert WINDOW / 2 < found.window < 2 * WINDOW


@pytest.mark.parametrize("windows", [0, 2, 5, -4])
def test_a_number_of_windows_that_makes_no_pairs_is_refused(windows: int) -> None:
    with pytest.raises(UsageError, match=f"--windows {windows}: an even number, {LEAST_WINDOWS} at least"):
        schedule(120, windows, 1)


def test_windows_that_are_too_short_are_refused() -> None:
    with pytest.raises(UsageError, match="too short to measure anything: 200 s at least"):
        schedule(120, 200, 1)
