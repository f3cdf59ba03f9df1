"""Which window runs on which path, and for how long. Pure.

Blocks of four in the order ABBA or BAAB, by lot: a drift of the traffic over the experiment falls on both paths alike
(it cancels where it is linear), and nothing periodic keeps step with the order. Windows that are neighbours make a
pair, one of each path, which is what estimate.py compares.
"""

from dataclasses import dataclass
from random import Random

from flowfast.compare.result import Arm
from flowfast.model.errors import UsageError

LEAST_WINDOWS = 4
LEAST_SECONDS = 1.0
"""Of a window: below it the CPUs' clocks, which tick 100 times a second, say little."""
WINDOW = 10.0
"""Seconds of a window where nobody chose: long enough for the clocks, short enough for many of them."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The windows in order. Each is `settle` seconds in which nothing is measured, then `measure` seconds, then
    `sample` seconds for what would disturb the measurement."""

    arms: tuple[Arm, ...]
    settle: float
    measure: float
    sample: float
    seed: int

    @property
    def window(self) -> float:
        """Seconds of a window, all together."""
        return self.settle + self.measure + self.sample

    @property
    def on_full_path(self) -> float:
        """Seconds that all traffic is on the full path, over all windows."""
        return self.arms.count("full") * self.window


def schedule(seconds: float, windows: int | None, seed: int) -> Schedule:
    """So many windows in so many seconds; `windows` None: as many of WINDOW seconds as fit.

    Raises UsageError for a number of windows that is odd or too small, and for windows that are too short.
    """
    count = windows if windows is not None else max(LEAST_WINDOWS, round(seconds / WINDOW) // 2 * 2)
    if count < LEAST_WINDOWS or count % 2:
        raise UsageError(f"--windows {count}: an even number, {LEAST_WINDOWS} at least: half of them on each path")
    window = seconds / count
    if window < LEAST_SECONDS:
        raise UsageError(
            f"--seconds {seconds:g}: {count} windows would be {window:.2g} s each, too short to measure anything: "
            f"{count * LEAST_SECONDS:g} s at least"
        )
    settle, sample = min(2.0, max(0.3, 0.1 * window)), min(0.5, 0.1 * window)
    order = arms(count, Random(seed))  # noqa: S311 - a lot, no secret
    return Schedule(order, settle, window - settle - sample, sample, seed)


def arms(count: int, lot: Random) -> tuple[Arm, ...]:
    """`count` arms (even): blocks of four, ABBA or BAAB by lot, and a pair at the end where two are left."""
    orders: tuple[tuple[Arm, Arm], ...] = (("full", "fast"), ("fast", "full"))
    found: list[Arm] = []
    while len(found) < count:
        first, second = lot.choice(orders)
        found += (first, second, second, first)[: count - len(found)]
    return tuple(found)
