"""Per SA: bytes, packets, errors, sequence numbers used. Opt-in, and bounded: SPIs come and go."""

from collections.abc import Iterable, Iterator
from heapq import nlargest
from typing import NamedTuple

from prometheus_client import Metric

from flowfast.metrics.collectors.lifetimes import used_numbers
from flowfast.metrics.family import Family, counter, gauge
from flowfast.metrics.ledger import inner_bytes, wire_packets
from flowfast.model.sa import SA, Direction
from flowfast.model.snapshot import Snapshot

LIMIT = 1000
"""How many SAs get series of their own."""

_LABELS = ("tunnel", "direction", "spi", "cpu", "offload")


class _Row(NamedTuple):
    labels: tuple[str, ...]
    sa: SA
    inbound: bool


class Sas:
    """The `limit` SAs that counted most bytes."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit

    def collect(self, snapshot: Snapshot) -> Iterable[Metric]:
        """Series of the busiest SAs, and how many SAs got none."""
        every = sum([len(path.tunnel.outbound) + len(path.tunnel.inbound) for path in snapshot.desired.paths])
        chosen = nlargest(self._limit, _every(snapshot), key=lambda found: found[2].counters.bytes)
        rows = {row.labels: row for row in map(_row, chosen)}  # of AH and ESP under one SPI, one
        yield from _traffic(rows.values())
        yield from _errors(row for row in rows.values() if row.inbound)
        yield from _sequence(rows.values())
        left_out = gauge(
            "flowfast_sa_series_left_out",
            f"SAs without series of their own, because only the busiest {self._limit} have any.",
        )
        left_out.add((every - len(rows),))
        yield left_out


def _every(snapshot: Snapshot) -> Iterator[tuple[str, Direction, SA]]:
    for path in snapshot.desired.paths:
        tunnel = path.tunnel
        for sa in tunnel.outbound:
            yield tunnel.name, Direction.OUT, sa
        for sa in tunnel.inbound:
            yield tunnel.name, Direction.IN, sa


def _row(found: tuple[str, Direction, SA]) -> _Row:
    name, direction, sa = found
    cpu = "" if sa.pcpu is None else str(sa.pcpu)
    offload = "none" if sa.offload is None else "packet" if sa.offload.packet else "crypto"
    return _Row((name, direction.value, f"0x{sa.spi:08x}", cpu, offload), sa, direction is Direction.IN)


def _traffic(rows: Iterable[_Row]) -> Iterator[Metric]:
    octets = counter(
        "flowfast_sa_bytes_total",
        "Inner bytes (IP header included, ESP and outer header not) that the SA carried on either path. With "
        'offload="packet" the number is what the driver estimates.',
        *_LABELS,
    )
    packets = counter(
        "flowfast_sa_packets_total",
        "Packets of the SA on the wire: as it counted them, and by its sequence numbers where ESP segments what it "
        "counted once (GSO).",
        *_LABELS,
    )
    for labels, sa, _ in rows:
        octets.add((*labels, inner_bytes(sa, sa.counters.bytes, sa.counters.packets)))
        packets.add((*labels, wire_packets(sa.counters.packets, sa.counters.bytes, sa.replay.oseq)))
    yield octets
    yield packets


def _errors(rows: Iterable[_Row]) -> Iterator[Metric]:
    replayed = counter(
        "flowfast_sa_replay_errors_total",
        "Packets dropped because their sequence number had been seen already.",
        *_LABELS,
    )
    late = counter(
        "flowfast_sa_replay_window_errors_total",
        "Packets dropped because their sequence number was behind the replay window: reordered too far, or replayed.",
        *_LABELS,
    )
    forged = counter(
        "flowfast_sa_integrity_errors_total",
        "Packets dropped because their integrity check failed.",
        *_LABELS,
    )
    for labels, sa, _ in rows:
        replayed.add((*labels, sa.replay_errors))
        late.add((*labels, sa.replay_window_errors))
        forged.add((*labels, sa.integrity_errors))
    yield replayed
    yield late
    yield forged


def _sequence(rows: Iterable[_Row]) -> Iterator[Family]:
    numbers = gauge(
        "flowfast_sa_sequence_ratio",
        "Share of the SA's sequence numbers that is used up, 0 to 1: at 1 it carries no more packets. Of 2^32 "
        "numbers, or with ESN of 2^64.",
        *_LABELS,
    )
    expiry = gauge(
        "flowfast_sa_expiry_timestamp_seconds",
        "When the SA reaches its hard limit of time, in seconds since the epoch. Absent without one.",
        *_LABELS,
    )
    for labels, sa, inbound in rows:
        numbers.add((*labels, used_numbers(sa, inbound=inbound)))
        if sa.lifetime.hard_add_seconds:
            expiry.add((*labels, sa.counters.add_time + sa.lifetime.hard_add_seconds))
    yield numbers
    yield expiry
