"""How long something takes beside something else, within one run: seconds alone say more of the machine than of us."""

import time
from collections.abc import Callable
from math import inf

ROUNDS = 7


def seconds(*works: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """CPU seconds of each, the best of some rounds: in turns, so that a slow while of the machine meets all alike."""
    best = [inf] * len(works)
    for _ in range(rounds):
        for number, work in enumerate(works):
            begin = time.process_time()
            work()
            best[number] = min(best[number], time.process_time() - begin)
    return best


def growth(work: Callable[[int], Callable[[], object]], small: int, large: int, rounds: int = 3) -> float:
    """How much faster than the number of things the time grows: 1 is linear, `large / small` is quadratic.

    `work(n)` makes ready, outside the measured time, and returns what is measured with `n` things.
    """
    few, many = seconds(work(small), work(large), rounds=rounds)
    return many / few * small / large
