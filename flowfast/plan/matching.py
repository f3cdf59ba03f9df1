"""Which tunnel of the config a tunnel of the kernel is: by interface, if_id, reqid, peer and inner prefixes."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from flowfast.config.schema import Config
from flowfast.config.schema import Tunnel as Entry
from flowfast.model.tunnel import Selectors, TunnelKey
from flowfast.plan.regions import Pair, Regions, parse


class Match(NamedTuple):
    """The configured name (None: found by itself), and whether the fast path is wanted."""

    name: str | None
    offload: bool


class Matcher:
    """Finds the entry of `tunnels:` for a live tunnel; logarithmic where entries name prefixes."""

    def __init__(self, config: Config) -> None:
        self._default = Match(None, config.defaults.offload)
        self._entries = config.tunnels
        self._regions: dict[int, Regions[str]] = {4: Regions(32), 6: Regions(128)}
        self._prefixless = [name for name, entry in config.tunnels.items() if not (entry.local and entry.remote)]
        self._several: dict[str, set[str]] = {}
        for name, entry in config.tunnels.items():
            for pair, version in _pairs(entry):
                regions = self._regions[version]
                # Entries may share prefixes when an if_id tells them apart: the region then leads to all of them.
                holders = {owner for _, owner in regions.overlapping(pair)}
                for owner in holders:
                    self._several.setdefault(owner, set()).add(name)
                regions.add(pair, name)

    def match(self, key: TunnelKey, selectors: Sequence[Selectors], interface: str | None) -> Match:
        """The first entry, in the order of the file, all of whose conditions hold."""
        names = set(self._prefixless)
        for selector in selectors:
            pair = Pair(parse(selector.local), parse(selector.remote))
            for _, owner in self._regions[4 if ":" not in selector.local else 6].overlapping(pair):
                names |= {owner} | self._several.get(owner, set())
        order = self._entries if len(names) > 1 else names
        for name in order:
            if name in names and _holds(self._entries[name], key, selectors, interface):
                return Match(name, self._offload(self._entries[name]))
        return self._default

    def _offload(self, entry: Entry) -> bool:
        return self._default.offload if entry.offload is None else entry.offload


def _pairs(entry: Entry) -> Iterator[tuple[Pair, int]]:
    for local, remote in entry.pairs:
        yield Pair(parse(str(local)), parse(str(remote))), local.version


def _holds(entry: Entry, key: TunnelKey, selectors: Sequence[Selectors], interface: str | None) -> bool:
    if entry.reqid is not None and entry.reqid != key.reqid:
        return False
    if entry.if_id is not None and entry.if_id != key.if_id:
        return False
    if entry.interface is not None and entry.interface != interface:
        return False
    if entry.peer is not None and (not key.remote or entry.peer != ip_address(key.remote)):
        return False
    if not (entry.local or entry.remote):
        return any(each is not None for each in (entry.reqid, entry.if_id, entry.interface, entry.peer))
    return any(_inside(entry, selector) for selector in selectors)


def _inside(entry: Entry, selector: Selectors) -> bool:
    version = 6 if ":" in selector.local else 4
    return _within(selector.local, entry.local, version) and _within(selector.remote, entry.remote, version)


def _within(inner: str, outers: Sequence[IPv4Network | IPv6Network], version: int) -> bool:
    base, length = parse(inner)
    bits = 32 if version == 4 else 128
    for outer in outers:
        if outer.version == version and outer.prefixlen <= length:
            rest = bits - outer.prefixlen
            if base >> rest == int(outer.network_address) >> rest:
                return True
    return False
