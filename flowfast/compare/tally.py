"""What each SA carried between two dumps, whatever the IKE daemon did in between. Pure.

An SA that came in between counts from 0; of one that went, the event of its deletion has the last values. Outbound,
where ESP segments a GSO packet by itself, the SA's counter sees one packet and the sequence number every one of them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from flowfast.compare.result import Carried
from flowfast.metrics.ledger import inner_bytes
from flowfast.model.sa import SA, Direction, Mark
from flowfast.model.tunnel import Tunnel

MOST = 200
"""SAs that are listed for a window; the others are added up by tunnel."""

_COUNTED = frozenset((50, 51))  # as in metrics/ledger.py
_Key = tuple[str, int, int, Mark | None, int]


def _key(sa: SA) -> _Key:
    return sa.dst, sa.spi, sa.proto, sa.mark, sa.counters.add_time


class Tally:
    """One look at all tunnels; `deleted` meanwhile; `until` another look says what was carried in between."""

    def __init__(self, tunnels: Iterable[Tunnel]) -> None:
        self._at = {_key(sa): sa for sas in _by_way(tunnels).values() for sa in sas}
        self._gone: dict[_Key, SA] = {}

    def deleted(self, sa: SA) -> None:
        """An SA is gone: its last values, from the event."""
        self._gone[_key(sa)] = sa

    def until(self, tunnels: Iterable[Tunnel]) -> tuple[Carried, ...]:
        """The busiest first. SAs that carried nothing are left out."""
        found: list[Carried] = []
        ways = _by_way(tunnels)
        owners = {(sa.reqid, sa.if_id, sa.src, sa.dst): way for way, sas in ways.items() for sa in sas}
        for way, sas in ways.items():
            found += [_grown(way, sa, self._at.get(_key(sa))) for sa in sas]
        living = {_key(sa) for sas in ways.values() for sa in sas}
        for key, sa in self._gone.items():
            owner = owners.get((sa.reqid, sa.if_id, sa.src, sa.dst))
            if key not in living and owner is not None:
                found.append(_grown(owner, sa, self._at.get(key)))
        found = sorted((each for each in found if each.bytes > 0), key=lambda each: -each.bytes)
        return (*found[:MOST], *_together(found[MOST:]))


def by_tunnel(carried: Iterable[Carried]) -> dict[str, int]:
    """Packets of both directions."""
    packets: Counter[str] = Counter()
    for each in carried:
        packets[each.tunnel] += each.packets
    return dict(packets)


def _by_way(tunnels: Iterable[Tunnel]) -> Mapping[tuple[str, str], list[SA]]:
    return {
        (tunnel.name, way.value): [sa for sa in sas if sa.proto in _COUNTED]
        for tunnel in tunnels
        for way, sas in ((Direction.OUT, tunnel.outbound), (Direction.IN, tunnel.inbound))
    }


def _grown(way: tuple[str, str], sa: SA, had: SA | None) -> Carried:
    octets = sa.counters.bytes - (had.counters.bytes if had else 0)
    packets = sa.counters.packets - (had.counters.packets if had else 0)
    numbers = sa.replay.oseq - (had.replay.oseq if had else 0) if way[1] == Direction.OUT else 0
    return Carried(*way, sa.spi, inner_bytes(sa, octets, packets), max(packets, numbers))


def _together(rest: Iterable[Carried]) -> list[Carried]:
    octets: Counter[tuple[str, str]] = Counter()
    packets: Counter[tuple[str, str]] = Counter()
    for each in rest:
        octets[each.tunnel, each.direction] += each.bytes
        packets[each.tunnel, each.direction] += each.packets
    return [Carried(*way, None, octets[way], packets[way]) for way in octets]
