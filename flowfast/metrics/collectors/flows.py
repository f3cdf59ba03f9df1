"""Tracked connections by tunnel, told by their inner addresses through the tunnels' selectors."""

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import Metric

from flowfast.metrics.family import gauge
from flowfast.model.snapshot import Snapshot
from flowfast.model.state import Flow
from flowfast.model.tunnel import Selectors, Topology, Tunnel
from flowfast.plan.regions import Pair, Regions, TooFragmented, parse

UNKNOWN = ""
"""The tunnel of a connection that no selectors tell: Prometheus takes an empty label for none."""

_BITS = {2: 32, 10: 128}

_Told = tuple[tuple[str, tuple[Selectors, ...]], ...]
"""Tunnel names, each with the selectors that tell its connections."""


class Flows:
    """Remembers the regions of the selectors, which cost more than a scrape, as long as the selectors are the same."""

    def __init__(self) -> None:
        self._told: _Told = ()
        self._regions: dict[int, Regions[str]] = {}

    def collect(self, snapshot: Snapshot) -> Iterable[Metric]:
        """Connections on the flowtable, in hardware and on the full path; nothing where conntrack did not answer.

        One that crosses two tunnels is counted for both. An xfrm interface with selectors from anywhere to anywhere
        cannot be told by address: its connections have tunnel="". Those on the full path are absent where they were not
        asked for.
        """
        if snapshot.flows is None:
            return
        told = tuple(_told(path.tunnel for path in snapshot.desired.paths))
        if told != self._told:
            self._told, self._regions = told, _regions(told)
        states = ["offloaded", "hardware"]
        if snapshot.slow_flows is not None:
            states.append("full")
        counts = self._count((*snapshot.flows, *(snapshot.slow_flows or ())))
        family = gauge(
            "flowfast_flows",
            "Connections that conntrack knows now, by the tunnel they go through and where their packets go: "
            "offloaded (on the flowtable), hardware (on the flowtable of the device), full (established, on the full "
            'L3 path). tunnel="" are connections that no tunnel\'s selectors tell.',
            "tunnel",
            "state",
        )
        for name in (*(name for name, _ in told), UNKNOWN):
            for state in states:
                family.add((name, state, counts[name, state]))
        yield family

    def _count(self, flows: Iterable[Flow]) -> Counter[tuple[str, str]]:
        counts: Counter[tuple[str, str]] = Counter()
        known: dict[tuple[str, str], str | None] = {}
        for flow in flows:
            state = _state(flow)
            if state is None:
                continue
            names = set()
            # As in the tunnel: what leaves has the addresses that the reply is sent to, what arrives the original's.
            for pair in ((flow.reply_dst, flow.reply_src), (flow.dst, flow.src)):
                if pair not in known:
                    known[pair] = self._owner(flow.family, *pair)
                names.add(known[pair])
            for name in names - {None} or {UNKNOWN}:
                counts[name or UNKNOWN, state] += 1
        return counts

    def _owner(self, family: int, local: str, remote: str) -> str | None:
        regions = self._regions.get(family)
        if regions is None:
            return None
        return next((name for _, name in regions.overlapping(Pair(parse(local), parse(remote)))), None)


def _state(flow: Flow) -> str | None:
    if flow.hardware:
        return "hardware"
    if flow.offloaded:
        return "offloaded"
    return "full" if flow.established else None


def _told(tunnels: Iterable[Tunnel]) -> Iterator[tuple[str, tuple[Selectors, ...]]]:
    for tunnel in tunnels:
        if telling := tuple(each for each in tunnel.selectors if _tells(tunnel, each)):
            yield tunnel.name, telling


def _tells(tunnel: Tunnel, selectors: Selectors) -> bool:
    if selectors.family not in _BITS:
        return False
    anywhere = selectors.local.endswith("/0") and selectors.remote.endswith("/0")
    return tunnel.topology is Topology.POLICY or not anywhere


def _regions(told: _Told) -> dict[int, Regions[str]]:
    """The most specific selectors first: an SPD that works has them in this order."""
    found: dict[int, list[tuple[Pair, str]]] = {family: [] for family in _BITS}
    for name, telling in told:
        for each in telling:
            found[each.family].append((Pair(parse(each.local), parse(each.remote)), name))
    result = {}
    for family, pairs in found.items():
        regions: Regions[str] = Regions(_BITS[family])
        for pair, name in sorted(pairs, key=lambda found: -(found[0].src[1] + found[0].dst[1])):
            try:
                regions.add(pair, name)
            except TooFragmented:
                continue  # its connections count as nobody's
        result[family] = regions
    return result
