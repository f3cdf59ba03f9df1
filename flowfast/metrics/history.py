"""What the status page shows beside a snapshot: rates of the last minutes, by path and tunnel, and numbers of SAs."""

from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from flowfast.metrics.keep import SPARE, trim
from flowfast.model.sa import Direction
from flowfast.model.snapshot import ByPath, Snapshot, Traffic

POINTS = 60
"""How many are kept."""
APART = 5.0
"""Seconds between two points at least: rounds may follow each other faster."""


class Point(NamedTuple):
    """Bytes a second of all tunnels, both directions, since the point before; `at` in seconds since the epoch.

    What `accounting: off` does not tell apart counts as `unknown`.
    """

    at: float
    fast: float
    slow: float
    unknown: float


class Rate(NamedTuple):
    """Bytes a second of one direction of a tunnel, and the flowtable's share; None: unknown, or nothing went."""

    bytes: float
    share: float | None


@dataclass(slots=True)
class _Seen:
    at: float
    totals: Mapping[tuple[str, Direction], Traffic]
    paths: Mapping[tuple[str, Direction], ByPath]


class History:
    """Fed with every snapshot. Reading is safe from any thread while one updates."""

    def __init__(self) -> None:
        self.points: tuple[Point, ...] = ()
        """The oldest first."""
        self.rates: dict[tuple[str, Direction], Rate] = {}
        """By tunnel and direction, of the last point."""
        self.sas: dict[str, tuple[int, int]] = {}
        """By tunnel: how many SAs it has now, inbound and outbound."""
        self._lines: dict[str, array[float]] = {}
        self._kept: deque[Point] = deque(maxlen=POINTS)
        self._last: _Seen | None = None

    def line(self, tunnel: str) -> tuple[float, ...]:
        """Bytes a second of a tunnel, both directions, at the last points."""
        return tuple(self._lines.get(tunnel, ()))

    def update(self, snapshot: Snapshot) -> None:
        """Adds a point, if it is time for one. 10 000 tunnels take about 50 ms."""
        tunnels = [path.tunnel for path in snapshot.desired.paths]
        self.sas = {tunnel.name: (len(tunnel.inbound), len(tunnel.outbound)) for tunnel in tunnels}
        at, last = snapshot.state.taken_at, self._last
        if last is not None and 0 <= at - last.at < APART:
            return
        totals, paths = snapshot.totals, snapshot.by_path
        self._last = _Seen(at, totals, paths)
        if last is None or at <= last.at:
            return
        seconds = at - last.at
        fast = slow = unknown = 0.0
        rates: dict[tuple[str, Direction], Rate] = {}
        for key, total in totals.items():
            grown = max(0, total.bytes - last.totals.get(key, total).bytes) / seconds
            by_path, had = paths.get(key), last.paths.get(key)
            share = None
            if by_path is None or had is None:
                unknown += grown
            else:
                there, here = (max(0, now - before) / seconds for now, before in zip(by_path[:2], had[:2], strict=True))
                fast, slow, grown = fast + there, slow + here, there + here
                share = there / grown if grown else None
            rates[key] = Rate(grown, share)
        self._draw(snapshot, rates)
        self._kept.append(Point(at, fast, slow, unknown))
        self.points, self.rates = tuple(self._kept), rates

    def _draw(self, snapshot: Snapshot, rates: dict[tuple[str, Direction], Rate]) -> None:
        for path in snapshot.desired.paths:
            name = path.tunnel.name
            line = self._lines.pop(name, None) or array("f")
            line.append(sum(rate.bytes for way in (Direction.OUT, Direction.IN) if (rate := rates.get((name, way)))))
            self._lines[name] = line[-POINTS:]
        trim(self._lines, 2 * len(snapshot.desired.paths) + SPARE)
