"""Bytes by path: how much of a tunnel's traffic took the full L3 path, and how much the flowtable.

The forward chain counts what took the full path. What went in altogether is counted before the flowtable (accounting:
precise) or by the SAs (accounting: sa); the difference took the flowtable. So the flowtable's share includes what
neither path forwards: the router's own traffic through the tunnel, and with precise accounting what the firewall drops.
SAs count packets one by one and the forward chain what GRO made of several, whose headers it then counts once: with
`sa` a few percent of bulked full-path traffic seem to take the flowtable.

While `flowfast compare` has all traffic on the full path, nothing is counted there: from a look that finds it so to the
next one, everything took the full path.
"""

from collections.abc import Iterable, Mapping

from flowfast.metrics.keep import SPARE, trim
from flowfast.model.sa import Direction
from flowfast.model.snapshot import ByPath, Snapshot

__all__ = ["ByPath", "PathBytes", "WayRow"]

WayRow = tuple[str, str, int, int, int, int, int, bool, int, int]
"""Tunnel, direction, bytes on the flowtable; of the full path's counter and of the whole's its last value and sum;
whether the whole was counted precisely; last value and sum of the buffers. What is written down and read again."""


class PathBytes:
    """Bytes by path of each tunnel and direction, accumulated from snapshots. They never go down.

    Reading is safe from any thread while one thread updates.
    """

    def __init__(self) -> None:
        self._ways: dict[tuple[str, Direction], _Way] = {}  # those absent longest come first
        self._paused = False
        self.now: dict[tuple[str, Direction], ByPath] = {}
        """By tunnel name and direction, as of the last snapshot; what is unknown is absent."""

    def update(self, snapshot: Snapshot) -> Mapping[tuple[str, Direction], ByPath]:
        """The bytes by path now, with this snapshot's. Counters that started again (a table rebuilt) are added."""
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
                precise, paused = counted is not None, self._paused
                by_path = way.update(full.bytes, total.bytes, precise=precise, paused=paused)
                now[key] = by_path if counted is None else by_path._replace(buffers=way.handled(counted.packets))
        self._paused = snapshot.paused
        trim(self._ways, 2 * len(snapshot.desired.paths) + SPARE)
        self.now = now
        return now

    def state(self) -> tuple[WayRow, ...]:
        """All of it as it is now."""
        return tuple((name, way.value, *each.row) for (name, way), each in self._ways.items() if each.full is not None)

    def restore(self, rows: Iterable[WayRow]) -> None:
        """Takes in what was written down, before the first update."""
        for row in rows:
            self._ways[row[0], Direction(row[1])] = _Way.of(row)

    def share(self, tunnel: str, direction: Direction) -> float | None:
        """The flowtable's share of the bytes since counting began, 0 to 1. None: unknown, or nothing went."""
        by_path = self.now.get((tunnel, direction))
        carried = by_path.flowtable + by_path.full if by_path is not None else 0
        return by_path.flowtable / carried if by_path is not None and carried else None


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

    __slots__ = ("buffers", "flowtable", "full", "precise", "total")

    def __init__(self) -> None:
        self.full: _Rising | None = None
        self.total = _Rising(0, 0)
        self.buffers: _Rising | None = None
        self.precise: bool | None = None
        self.flowtable = 0

    @classmethod
    def of(cls, row: WayRow) -> "_Way":
        """As it was written down."""
        way = cls()
        _, _, way.flowtable, full, passed, last, total, way.precise, buffers, handled = row
        way.full, way.total, way.buffers = _Rising(full, passed), _Rising(last, total), _Rising(buffers, handled)
        return way

    @property
    def row(self) -> tuple[int, int, int, int, int, bool, int, int]:
        """The numbers of a WayRow."""
        full = self.full or _Rising(0, 0)
        buffers = self.buffers or _Rising(0, 0)
        counted = (full.last, full.sum, self.total.last, self.total.sum)
        return self.flowtable, *counted, bool(self.precise), buffers.last, buffers.sum

    def handled(self, buffers: int) -> int:
        """Buffers before the flowtable, since counting began."""
        if self.buffers is None:
            self.buffers = _Rising(0, 0)
        return self.buffers.add(buffers)

    def update(self, full: int, total: int, *, precise: bool, paused: bool) -> ByPath:
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
        went = self.total.add(total)
        if paused:
            passed = self.full.sum = max(passed, went - self.flowtable)
        self.flowtable = max(self.flowtable, went - passed)
        return ByPath(self.flowtable, passed)
