"""How much of the router's CPU time each tunnel's packets cost. Pure.

The kernel does not say; but CPU time follows the packets. Over slices of a window, time = cost of a packet of tunnel A
times A's packets + the same for B, and so on: least squares. What rises and falls together cannot be told apart, and
then nothing is said.
"""

import math
from collections.abc import Iterable, Sequence

from flowfast.compare.estimate import Estimate, jackknife
from flowfast.compare.result import Slice, Window

WIDEST = 1.5
"""An interval that reaches further than this, either way, says nothing of the tunnel."""
MOST = 16
"""Tunnels that are told apart; the slices of an experiment do not bear more."""


def tunnels_apart(pairs: Sequence[tuple[Window, Window]], tunnels: Sequence[str]) -> dict[str, Estimate | None]:
    """For each of the tunnels (the busiest first) how many times less CPU time a packet costs on the fast path.

    `pairs`: (full, fast). With a single tunnel this is the ratio of all CPU time by all packets.
    """
    named = list(tunnels[:MOST])
    found: dict[str, Estimate | None] = dict.fromkeys(tunnels)
    for tunnel in named:

        def without(left_out: frozenset[int], tunnel: str = tunnel) -> float | None:
            kept = [pair for number, pair in enumerate(pairs) if number not in left_out]
            full = _costs((each for one, _ in kept for each in one.slices), named)
            fast = _costs((each for _, other in kept for each in other.slices), named)
            if full is None or fast is None:
                return None
            at = named.index(tunnel)
            return full[at] / fast[at] if full[at] > 0 and fast[at] > 0 else None

        estimate = jackknife(len(pairs), without)
        if estimate is not None and _tells(estimate):
            found[tunnel] = estimate
    return found


def _tells(estimate: Estimate) -> bool:
    if estimate.low is None or estimate.high is None:
        return False
    return max(estimate.high / estimate.value, estimate.value / estimate.low) <= WIDEST


def _costs(slices: Iterable[Slice], tunnels: Sequence[str]) -> list[float] | None:
    """CPU seconds of a packet, by tunnel; packets of other tunnels count as one more. None: not to be told apart.

    Each slice weighs by its packets, as its error grows with them.
    """
    size = len(tunnels) + 1
    normal = [[0.0] * size for _ in range(size)]
    target = [0.0] * size
    for each in slices:
        total = sum(each.packets.values())
        if not total:
            continue
        row = [float(each.packets.get(tunnel, 0)) for tunnel in tunnels]
        row.append(total - sum(row))
        for i, one in enumerate(row):
            target[i] += one * each.softirq / total
            for j, other in enumerate(row):
                normal[i][j] += one * other / total
    used = [i for i in range(size) if normal[i][i] > 0]
    if not set(range(size - 1)) <= set(used):
        return None  # a tunnel without packets
    solved = _solve([[normal[i][j] for j in used] for i in used], [target[i] for i in used])
    return solved[: size - 1] if solved is not None else None


def _solve(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Gauss, with pivots; None for a matrix that is (nearly) singular."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        scale = max(map(abs, matrix[column]))
        if abs(rows[pivot][column]) <= 1e-9 * scale or math.isnan(rows[pivot][column]):
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in range(size):
            if row != column:
                share = rows[row][column] / rows[column][column]
                rows[row] = [one - share * other for one, other in zip(rows[row], rows[column], strict=True)]
    return [rows[at][size] / rows[at][at] for at in range(size)]
