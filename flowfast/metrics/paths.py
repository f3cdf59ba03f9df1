"""Bytes by path: how much of a tunnel's traffic took the full L3 path, and how much the flowtable.

The forward chain counts what took the full path. What went in altogether is counted before the flowtable (accounting:
precise) or by the SAs (accounting: sa); the difference took the flowtable. So the flowtable's share includes what
neither path forwards: the router's own traffic through the tunnel, and with precise accounting what the firewall drops.
SAs count packets one by one and the forward chain what GRO made of several, whose headers it then counts once: with
`sa` a few percent of bulked full-path traffic seem to take the flowtable.
"""

from typing import NamedTuple

from flowfast.metrics.keep import SPARE, trim
from flowfast.model.sa import Direction
from flowfast.model.snapshot import Snapshot


class ByPath(NamedTuple):
    """Inner bytes since counting began: on the flowtable, and on the full L3 path."""

    flowtable: int
    full: int


class PathBytes:
    """Bytes by path of each tunnel and direction, accumulated from snapshots. They never go down.

    Reading is safe from any thread while one thread updates.
    """

    def __init__(self) -> None:
        self._ways: dict[tuple[str, Direction], _Way] = {}  # those absent longest come first
        self.now: dict[tuple[str, Direction], ByPath] = {}
        """By tunnel name and direction, as of the last snapshot; what is unknown is absent."""

    def update(self, snapshot: Snapshot) -> None:
        """Adds what the counters grew by. Counters that started again (a table rebuilt) are added, not subtracted."""
        now: dict[tuple[str, Direction], ByPath] = {}
        for path in snapshot.desired.paths:
            tunnel, slug = path.tunnel, path.tunnel.slug
            for direction in (Direction.OUT, Direction.IN):
                full = snapshot.full_path.get(f"{direction}_{slug}")
                if full is None:
                    continue
                key = (tunnel.name, direction)
                counted = snapshot.before_flowtable.get(f"{direction}_{slug}")
                total = counted or snapshot.totals.get(key)
                if total is None:
                    continue
                way = self._ways.pop(key, None) or _Way()
                self._ways[key] = way
                now[key] = way.update(full.bytes, total.bytes, precise=counted is not None)
        trim(self._ways, 2 * len(snapshot.desired.paths) + SPARE)
        self.now = now

    def share(self, tunnel: str, direction: Direction) -> float | None:
        """The flowtable's share of the bytes since counting began, 0 to 1. None: unknown, or nothing went."""
        by_path = self.now.get((tunnel, direction))
        if by_path is None or not sum(by_path):
            return None
        return by_path.flowtable / sum(by_path)


class _Rising:
    """A counter that may start again from 0: `sum` goes on."""

    __slots__ = ("last", "sum")

    def __init__(self, last: int, start: int) -> None:
        self.last = last
        self.sum = start

    def add(self, value: int) -> int:
        self.sum += value - self.last if value >= self.last else value
        self.last = value
        return self.sum


class _Way:
    """One direction of a tunnel."""

    __slots__ = ("flowtable", "full", "precise", "total")

    def __init__(self) -> None:
        self.full: _Rising | None = None
        self.total = _Rising(0, 0)
        self.precise: bool | None = None
        self.flowtable = 0

    def update(self, full: int, total: int, *, precise: bool) -> ByPath:
        if self.full is None:
            # Both nft counters were made together and tell the whole story. Totals of SAs are older than the counter
            # of the full path, or younger: only what both see from now on can be compared.
            whole = precise and total >= full
            self.full = _Rising(full, full if whole else 0)
            self.total = _Rising(total, total if whole else 0)
            self.precise = precise
        passed = self.full.add(full)
        if precise is not self.precise:
            self.total = _Rising(total, passed + self.flowtable)
            self.precise = precise
        self.flowtable = max(self.flowtable, self.total.add(total) - passed)
        return ByPath(self.flowtable, passed)
