"""Rates from points in time."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowfast.lab.demo.rate import rate


def test_a_steady_rate_is_found_exactly() -> None:
    points = [(0.02 * n, 250_000 * n) for n in range(11)]
    assert rate(points) == pytest.approx(250_000 * 8 / 0.02)


def test_what_comes_before_and_after_does_not_count() -> None:
    waiting = [(0.02 * n, 0) for n in range(25)]
    moving = [(0.5 + 0.01 * n, 10_000 * n) for n in range(21)]
    over = [(0.72 + 0.02 * n, 200_000) for n in range(25)]
    assert rate([*waiting, *moving, *over]) == pytest.approx(1_000_000 * 8)


def test_a_counter_that_stands_still_has_no_rate() -> None:
    assert rate([(0.0, 5), (1.0, 5)]) is None
    assert rate([(0.0, 5)]) is None
    assert rate([]) is None


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-3, 0.1), st.integers(0, 10**9)), min_size=1, max_size=50),
    st.floats(0, 1e6),
    st.integers(0, 2**63),
)
def test_never_more_than_the_fastest_moment(steps: list[tuple[float, int]], start: float, first: int) -> None:
    points = [(start, first)]
    for seconds, grown in steps:
        points.append((points[-1][0] + seconds, points[-1][1] + grown))
    fastest = max((b - a) * 8 / (t - s) for (s, a), (t, b) in pairwise(points))
    found = rate(points)
    assert found is None or 0 < found <= fastest * 1.001


def test_points_too_far_apart_tell_nothing() -> None:
    assert rate([(0.0, 0), (0.2155, 445_609), (0.2171, 445_609)]) is None
