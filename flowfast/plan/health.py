"""health(): do flows really take the path that was planned? From two snapshots, by what was carried in between."""

from flowfast.model.reason import Reason
from flowfast.model.sa import Direction
from flowfast.model.snapshot import Snapshot
from flowfast.model.tunnel import Tunnel

ENOUGH = 1_000_000
"""Bytes between two snapshots below which nothing is said: the first packets of every connection take the full path."""
TOO_MUCH = 0.5
"""Share of a fast direction's bytes on the full path that wants an explanation."""


def health(before: Snapshot, now: Snapshot) -> list[Reason]:
    """A reason for every tunnel and direction that is planned fast, carried traffic, and carried most of it slowly."""
    reasons: list[Reason] = []
    if before.paused or now.paused:
        return reasons  # by somebody's wish: PAUSED says so
    for path in now.desired.paths:
        for direction, way in ((Direction.OUT, path.tx), (Direction.IN, path.rx)):
            share = _slow_share(before, now, path.tunnel, direction) if way.fast else None
            if share is not None and share > TOO_MUCH:
                seconds = now.state.taken_at - before.state.taken_at
                sentence = f"{share:.0%} of what went {direction} in the last {seconds:.0f} s took the full path"
                remedy = "flowfast show flows lists its connections, flowfast explain SRC DST tells why one is not fast"
                reasons.append(Reason("NOT_FAST", path.tunnel.name, sentence, remedy))
    return reasons


def _slow_share(before: Snapshot, now: Snapshot, tunnel: Tunnel, direction: Direction) -> float | None:
    """Full-path bytes of all bytes in between; None where too little is known or was carried."""
    counter = f"{direction}_{tunnel.slug}"
    total, had = now.totals.get((tunnel.name, direction)), before.totals.get((tunnel.name, direction))
    slow, had_slow = now.full_path.get(counter), before.full_path.get(counter)
    if total is None or had is None or slow is None or had_slow is None:
        return None
    grown = total.bytes - had.bytes
    return (slow.bytes - had_slow.bytes) / grown if grown >= ENOUGH else None
