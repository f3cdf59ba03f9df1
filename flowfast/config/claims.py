"""Which tunnels claim the same packets: selectors of two tunnels that overlap, and tunnels found by the same marks.

A selector pair is a rectangle: local prefix by remote prefix. Prefixes either nest or are apart, so walking the pairs
from the shortest local prefix on, only the prefixes *around* a pair's local one need be asked: a few look-ups a pair,
not a comparison of every pair with every other (10 000 tunnels: under a second).
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple, Protocol

Prefix = IPv4Network | IPv6Network
MAX_PAIRS = 250_000  # of all tunnels together; a bound on time, well above the 100 000 tunnels of the largest hub


class Claimant(Protocol):
    """What this module needs of a tunnel."""

    @property
    def pairs(self) -> tuple[tuple[Prefix, Prefix], ...]:
        """Local and remote prefixes of the same family."""

    @property
    def own(self) -> Hashable | None:
        """What tells its SAs apart from others with the same selectors (if_id, xfrm interface); None: nothing."""

    @property
    def marks(self) -> tuple[Hashable, ...]:
        """All matchers other than selectors."""


class Pair(NamedTuple):
    """One selector pair of a tunnel. `order` is the tunnel's place in the file."""

    local: Prefix
    remote: Prefix
    order: int
    tunnel: str
    own: Hashable | None


class Clash(NamedTuple):
    """Two tunnels that claim one thing. `later` stands further down in the file. Without pairs: the same marks."""

    later: str
    earlier: str
    later_pair: Pair | None = None
    earlier_pair: Pair | None = None


def count_pairs(tunnels: Mapping[str, Claimant]) -> int:
    """How many selector pairs the tunnels have together."""
    return sum(len(tunnel.pairs) for tunnel in tunnels.values())


def clashes(tunnels: Mapping[str, Claimant]) -> Iterator[Clash]:
    """Every tunnel that claims what another one claims, at least once each, in no particular order."""
    yield from _same_marks(tunnels)
    yield from _same_packets(tunnels)


def _same_marks(tunnels: Mapping[str, Claimant]) -> Iterator[Clash]:
    first: dict[Hashable, str] = {}
    for name, tunnel in tunnels.items():
        if not tunnel.pairs and (known := first.setdefault(tunnel.marks, name)) != name:
            yield Clash(name, known)


def _same_packets(tunnels: Mapping[str, Claimant]) -> Iterator[Clash]:
    pairs = [
        Pair(local, remote, order, name, tunnel.own)
        for order, (name, tunnel) in enumerate(tunnels.items())
        for local, remote in tunnel.pairs
    ]
    pairs.sort(key=lambda pair: (pair.local.prefixlen, pair.remote.prefixlen, pair.order))
    # What nothing tells apart clashes with everything; what has an if_id, with its own kind and with the former.
    everything = _Index()
    groups: defaultdict[Hashable | None, _Index] = defaultdict(_Index)
    seen: set[tuple[int, int]] = set()
    for pair in pairs:
        others = (everything,) if pair.own is None else (groups[pair.own], groups[None])
        for other in filter(None, (index.overlapping(pair) for index in others)):
            earlier, later = sorted((pair, other), key=lambda one: one.order)
            if (earlier.order, later.order) not in seen:
                seen.add((earlier.order, later.order))
                yield Clash(later.tunnel, earlier.tunnel, later, earlier)
        everything.add(pair)
        groups[pair.own].add(pair)


class _Index:
    """Pairs by local prefix. Pairs must be added from the shortest local prefix to the longest."""

    def __init__(self) -> None:
        self._remotes: dict[tuple[int, int, int], _Remotes] = {}
        self._lengths: dict[int, set[int]] = {4: set(), 6: set()}

    def add(self, pair: Pair) -> None:
        key = _key(pair.local, pair.local.prefixlen)
        self._lengths[pair.local.version].add(pair.local.prefixlen)
        if key not in self._remotes:
            self._remotes[key] = _Remotes()
        self._remotes[key].add(pair)

    def overlapping(self, pair: Pair) -> Pair | None:
        """A pair of another tunnel that overlaps this one."""
        for length in self._lengths[pair.local.version]:
            remotes = self._remotes.get(_key(pair.local, length))
            if remotes is not None and (other := remotes.overlapping(pair)):
                return other
        return None


class _Remotes:
    """Pairs of one local prefix, by remote prefix."""

    def __init__(self) -> None:
        self._exact: defaultdict[tuple[int, int, int], list[Pair]] = defaultdict(list)
        self._lengths: set[int] = set()
        self._starts: list[tuple[int, int]] = []  # first address and length of every remote prefix, sorted

    def add(self, pair: Pair) -> None:
        remote = pair.remote
        known = self._exact[_key(remote, remote.prefixlen)]
        if not known:
            self._lengths.add(remote.prefixlen)
            insort(self._starts, (int(remote.network_address), remote.prefixlen))
        known.append(pair)

    def overlapping(self, pair: Pair) -> Pair | None:
        """A pair of another tunnel whose remote prefix is around this one's, or within it."""
        remote = pair.remote
        around = (_key(remote, length) for length in self._lengths if length <= remote.prefixlen)
        return self._foreign(around, pair) or self._foreign(self._within(remote), pair)

    def _within(self, remote: Prefix) -> Iterator[tuple[int, int, int]]:
        first, last = int(remote.network_address), int(remote.broadcast_address)
        at = bisect_left(self._starts, (first, 0))
        while at < len(self._starts) and self._starts[at][0] <= last:
            start, length = self._starts[at]
            yield remote.version, length, start
            at += 1

    def _foreign(self, keys: Iterator[tuple[int, int, int]], pair: Pair) -> Pair | None:
        pairs = (known for key in keys for known in self._exact.get(key, ()))
        return next((known for known in pairs if known.order != pair.order), None)


def _key(prefix: Prefix, length: int) -> tuple[int, int, int]:
    """The prefix cut to `length` bits, which must not be more than it has, as a key."""
    bits = prefix.max_prefixlen - length
    return prefix.version, length, int(prefix.network_address) >> bits << bits
