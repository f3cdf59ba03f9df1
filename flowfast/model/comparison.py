"""What the last `flowfast compare` found, as far as others show it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Factor:
    """How many times less CPU time a packet costs on the fast path, and its 95 % confidence interval, if known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`taken_at`: seconds since the epoch. `router` None: the experiment came to no verdict."""

    taken_at: float
    router: Factor | None
    tunnels: Mapping[str, Factor] = field(default_factory=dict)
