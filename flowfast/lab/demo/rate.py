"""From points in time to a rate."""

from itertools import pairwise

COARSE = 0.25
"""Of the time that is measured: points further apart than that are too few to tell."""


def rate(points: list[tuple[float, float]]) -> float | None:
    """Bits a second between the first and the last tenth of the bytes, from (seconds, bytes so far).

    So neither a connection's beginning nor the moment at which somebody noticed its end is in it. None if nothing
    moved, or if those moments are not known: points too far apart, or all between two of them.
    """
    if not points:
        return None
    grown = [(at, value - points[0][1]) for at, value in points]
    total = grown[-1][1]
    start, end = (_when(grown, total * tenths / 10) for tenths in (1, 9))
    if start is None or end is None:
        return None
    (began, blur), (ended, other) = start, end
    if max(blur, other) > COARSE * (ended - began):
        return None
    return total * 0.8 * 8 / (ended - began)


def _when(points: list[tuple[float, float]], value: float) -> tuple[float, float] | None:
    """The moment at which `value` was reached, between two points in proportion; and how far apart those are."""
    for (before, low), (after, high) in pairwise(points):
        if low < value <= high:
            return before + (after - before) * (value - low) / (high - low), after - before
    return None
