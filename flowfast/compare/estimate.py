"""How many times, and how sure: factors with a 95 % confidence interval, from pairs of neighbouring windows. Pure.

Student's t on the logarithms of the pairs' ratios. Why this and not another: both windows of a pair see nearly the same
traffic, so that its slow changes drop out of their ratio (which windows taken one by one, Welch's way, would keep as
noise); on a logarithm a factor of 2 and one of 1/2 are equally far from 1, and what disturbs a cost multiplies it;
and with a handful of pairs t keeps its promise, where a bootstrap, which can only repeat what it saw, gives intervals
that are too narrow. Tests hold the promise by simulation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A factor with its confidence interval, from so many pairs. `low`, `high` None: one pair tells no spread."""

    value: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def differs(self) -> bool:
        """True where the interval leaves no room for "no difference"."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def factor(pairs: Sequence[tuple[float | None, float | None]]) -> Estimate | None:
    """How many times the first of a pair is of the second, in the (geometric) mean; None without one usable pair.

    Pairs in which a value is unknown or not positive are left out.
    """
    logs = [math.log(one / other) for one, other in pairs if one and other and one > 0 and other > 0]
    return _from_logs(logs)


def _from_logs(logs: Sequence[float]) -> Estimate | None:
    if not logs:
        return None
    mean = fmean(logs)
    if len(logs) < 2:
        return Estimate(math.exp(mean), None, None, 1)
    reach = t_quantile(CONFIDENCE, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    return Estimate(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), len(logs))


def jackknife(pairs: int, estimate: Callable[[frozenset[int]], float | None]) -> Estimate | None:
    """A factor that needs all windows at once, with its interval from leaving out one pair after the other.

    `estimate` gives the factor from all pairs but those whose numbers it is passed; None where it cannot.
    """
    whole = estimate(frozenset())
    if whole is None or whole <= 0:
        return None
    if pairs < 2:
        return Estimate(whole, None, None, pairs)
    without = [estimate(frozenset({pair})) for pair in range(pairs)]
    logs = [math.log(each) for each in without if each is not None and each > 0]
    if len(logs) < pairs:
        return None
    mean = fmean(logs)
    error = math.sqrt((pairs - 1) / pairs * sum((each - mean) ** 2 for each in logs))
    reach = t_quantile(CONFIDENCE, pairs - 1) * error
    log = math.log(whole)
    return Estimate(whole, math.exp(log - reach), math.exp(log + reach), pairs)


def t_quantile(confidence: float, freedom: int) -> float:
    """Student's t with so many degrees of freedom: within this of 0, on both sides, is `confidence` of it.

    By bisection of its distribution, which is finite sums of cosines (Abramowitz and Stegun 26.7.3, 26.7.4).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """P(|t| < sqrt(freedom) tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    for step in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (step - 1) / step
        total += term
    if not odd:
        return sine * total
    return 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))
