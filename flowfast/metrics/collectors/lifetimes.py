"""Per tunnel: how near its SAs are to their end, by sequence numbers, time, bytes and packets."""

from collections.abc import Iterable

from prometheus_client import Metric

from flowfast.metrics.family import Family, gauge
from flowfast.model.sa import SA
from flowfast.model.snapshot import Snapshot

ALL_NUMBERS = {True: 2**64 - 1, False: 2**32 - 1}
"""The last sequence number, with ESN and without."""


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """What no SA of a tunnel has (a limit) is absent."""
    numbers = gauge(
        "flowfast_tunnel_sequence_ratio",
        "Share of the sequence numbers that is used up, 0 to 1, of the tunnel's SA that used most: at 1 the SA carries "
        "no more packets. Of 2^32 numbers, or with ESN of 2^64.",
        "tunnel",
        "direction",
    )
    expiry = gauge(
        "flowfast_tunnel_expiry_timestamp_seconds",
        "When the tunnel's newest SA reaches its hard limit of time, in seconds since the epoch: without a rekey "
        "before, the tunnel is down then.",
        "tunnel",
        "direction",
    )
    used = gauge(
        "flowfast_tunnel_lifetime_ratio",
        "Share of the hard limit of bytes or packets that the tunnel's newest SA has used up, 0 to 1.",
        "tunnel",
        "direction",
        "limit",
    )
    for path in snapshot.desired.paths:
        tunnel = path.tunnel
        if tunnel.outbound:
            _lifetimes(tunnel.name, "out", tunnel.outbound[-1], expiry, used)
            numbers.add((tunnel.name, "out", max([used_numbers(sa, inbound=False) for sa in tunnel.outbound])))
        if tunnel.inbound:
            _lifetimes(tunnel.name, "in", tunnel.inbound[-1], expiry, used)
            numbers.add((tunnel.name, "in", max([used_numbers(sa, inbound=True) for sa in tunnel.inbound])))
    return numbers, expiry, used


def used_numbers(sa: SA, *, inbound: bool) -> float:
    """Share of the SA's sequence numbers that were sent, or inbound the highest that was received."""
    replay = sa.replay
    return (replay.seq if inbound else replay.oseq) / ALL_NUMBERS[replay.esn]


def _lifetimes(name: str, way: str, newest: SA, expiry: Family, used: Family) -> None:
    limits = newest.lifetime
    if not (limits.hard_add_seconds or limits.hard_bytes or limits.hard_packets):
        return
    counters = newest.counters
    if limits.hard_add_seconds:
        expiry.add((name, way, counters.add_time + limits.hard_add_seconds))
    if limits.hard_bytes:
        used.add((name, way, "bytes", counters.bytes / limits.hard_bytes))
    if limits.hard_packets:
        used.add((name, way, "packets", counters.packets / limits.hard_packets))
