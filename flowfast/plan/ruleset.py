"""Builds the ruleset that is wanted: two tables of our own, as sets, maps and few rules.

The cost of a packet does not grow with the number of tunnels, and everything that a rule says is in its text, so that a
hash of the text tells whether the kernel still holds it. What stands where, and why, is design.md's "The ruleset".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flowfast.config.offload import Exclude, Offload
from flowfast.config.schema import Accounting
from flowfast.model.nftables import Chain, Element, Flowtable, Hook, Ruleset, Set, Table, TableState, quoted
from flowfast.model.tunnel import Topology, Tunnel, identifier
from flowfast.plan.filters import excluded_counters, excluded_sets, filter_rules
from flowfast.plan.spd import SpdRegions

INET = Table("inet", "flowfast")
NETDEV = Table("netdev", "flowfast")
FLOWTABLE = "fast"
GUARD_PRIORITY = -10  # before the flowtable (0), on the same ingress hook
COUNT_PRIORITY = -9  # after the guard: what it drops is nobody's traffic
RAW = -300  # where conntrack has not looked yet
PLAIN = "rt ipsec missing meta ipsec missing"
"""Begins the rules for connections which no tunnel carries."""
PROTECTED = "protected"
"""Sets (by family) of what must not leave in the clear, where connections that no tunnel carries are fast."""
PAUSED = "paused"
"""Set of the address families whose flows are all kept off the flowtable for a moment (plan/pause.py)."""
LAST = 2147483000  # after every other forward chain: we only see what all of them accepted

_FAMILIES = {2: ("ip", "4", "ipv4_addr"), 10: ("ip6", "6", "ipv6_addr")}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the planner decided, in the terms of the ruleset."""

    lan: frozenset[str]
    guarded: frozenset[str]
    """WAN devices that are in the flowtable, each behind its guard."""
    interfaces: Mapping[str, Tunnel]
    """xfrm interfaces whose traffic may be fast."""
    regions: SpdRegions
    tunnels: tuple[Tunnel, ...]
    wan: frozenset[str] = frozenset()
    """WAN devices, in the flowtable or not."""
    offload: Offload = field(default_factory=Offload)
    exclude: Exclude = field(default_factory=Exclude)
    notrack: bool = False
    counting: bool = False
    counting_precisely: bool = False
    marks: Mapping[str, int] = field(default_factory=dict)
    """Tunnel -> mark that its inbound SAs set, where several peers are told apart by it."""
    endpoints: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Outer addresses of ours by family: IKE and NAT-T to them is never plaintext of a tunnel."""
    peers: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Outer addresses of the peers, by family."""

    @property
    def devices(self) -> frozenset[str]:
        """Everything that the flowtable is hooked on."""
        return self.lan | self.guarded | frozenset(self.interfaces)


def build(wanted: Wanted) -> Ruleset:
    """The whole ruleset. Without a guarded device or precise counting there is no netdev table."""
    inet = _inet(wanted)
    netdev = _netdev(wanted)
    tables = {INET: inet}
    if netdev.chains:
        tables[NETDEV] = netdev
    return Ruleset(tables)


def accounting(ruleset: Ruleset) -> Accounting:
    """How this ruleset has the bytes of both paths counted."""
    before, full = (ruleset.tables.get(table) for table in (NETDEV, INET))
    if before is not None and any(name.startswith("out_") for name in before.counters):
        return Accounting.PRECISE
    counting = full is not None and any(name.startswith("out_") for name in full.counters)
    return Accounting.SA if counting else Accounting.OFF


def _pair_set(name: str, family: int, elements: Iterable[Element]) -> Set:
    kind = _FAMILIES[family][2]
    return Set(name, f"{kind} . {kind}", interval=True, elements=dict.fromkeys(elements, ""))


def _pair_map(name: str, family: int, direction: str, owners: Mapping[tuple[str, str], Tunnel]) -> Set:
    kind = _FAMILIES[family][2]
    elements: dict[Element, str] = {pair: f"{direction}_{tunnel.slug}" for pair, tunnel in owners.items()}
    return Set(name, f"{kind} . {kind}", interval=True, data="counter", elements=elements)


def _named(things: Iterable[Set]) -> dict[str, Set]:
    return {thing.name: thing for thing in things}


def _inet(wanted: Wanted) -> TableState:
    sets = [_pair_set(f"fast{_FAMILIES[f][1]}", f, pairs) for f, pairs in wanted.regions.fast.items()]
    sets += [_pair_set(f"{PROTECTED}{_FAMILIES[f][1]}", f, pairs) for f, pairs in wanted.regions.protected.items()]
    sets += excluded_sets(wanted.exclude)
    sets.append(Set(PAUSED, "nf_proto", timeout=True))
    if wanted.counting:
        sets += _counting_maps(wanted)
    forward: list[str] = []
    if wanted.offload.clamp_mss:
        clamp = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"
        forward.append(f"rt ipsec exists {clamp}")
        if wanted.interfaces:
            forward.append(f"oifname {quoted(wanted.interfaces)} {clamp}")
    # In a pause a packet costs here what it costs a router without flowfast: it is not even counted.
    forward.append(f"meta nfproto @{PAUSED} return")
    if wanted.counting:
        forward += _counting_rules(wanted)
    forward.append("jump to_flowtable")
    chains = [
        # The jump's target first: a rule can only name a chain that is there.
        Chain("to_flowtable", tuple(_offload_rules(wanted))),
        Chain("forward", tuple(forward), Hook("filter", "forward", LAST)),
    ]
    if wanted.notrack:
        sets += [*_address_sets("own", wanted.endpoints), *_address_sets("peers", wanted.peers)]
        chains += _notrack()
    return TableState(
        INET,
        chains={chain.name: chain for chain in chains},
        sets=_named(sets),
        flowtables={FLOWTABLE: Flowtable(FLOWTABLE, wanted.devices)},
        counters=(_counters(wanted) if wanted.counting else frozenset())
        | excluded_counters(wanted.offload, wanted.exclude),
    )


def _counters(wanted: Wanted) -> frozenset[str]:
    return frozenset(f"{way}_{tunnel.slug}" for tunnel in wanted.tunnels for way in ("out", "in"))


def _counting_maps(wanted: Wanted) -> list[Set]:
    maps = []
    for family, (_, digit, _) in _FAMILIES.items():
        maps.append(_pair_map(f"out{digit}", family, "out", wanted.regions.outbound.get(family, {})))
        maps.append(_pair_map(f"in{digit}", family, "in", wanted.regions.inbound.get(family, {})))
    return maps


def _counting_rules(wanted: Wanted) -> list[str]:
    """Full-path traffic by tunnel. An interface's own counter where there is one, by prefixes elsewhere."""
    rules = []
    for name, tunnel in sorted(wanted.interfaces.items()):
        rules.append(f'oifname "{name}" counter name out_{tunnel.slug}')
        rules.append(f'iifname "{name}" counter name in_{tunnel.slug}')
    for ip, digit, _ in _FAMILIES.values():
        rules.append(f"rt ipsec exists counter name {ip} saddr . {ip} daddr map @out{digit}")
        rules.append(f"meta ipsec exists counter name {ip} saddr . {ip} daddr map @in{digit}")
    return rules


def _offload_rules(wanted: Wanted) -> list[str]:
    """A flow is added only for an established connection, by a packet from the LAN that will be encrypted, and only
    where the packets that come back are guarded: their addresses as on the wire are those of the conntrack tuple
    of the other direction, whatever NAT does."""
    protocols = ", ".join(sorted(wanted.offload.protocols))
    rules = [
        f"meta l4proto != {{ {protocols} }} return",
        "ct state != established return",
        f"iifname != {quoted(wanted.lan)} return",
        # IKE and NAT-T to a router's own address pass the guard: they must never be a flow.
        "udp sport { 500, 4500 } return",
        "udp dport { 500, 4500 } return",
        *filter_rules(wanted.offload, wanted.exclude),
    ]
    if wanted.regions.by_source:
        # The kernel looks for the policy once more after it has translated the source (nf_xfrm_me_harder(),
        # net/netfilter/nf_nat_proto.c); a flow keeps the tunnel that it had before.
        rules += ["rt ipsec exists ct direction original ct status snat return"]
        rules += ["rt ipsec exists ct direction reply ct status dnat return"]
    if wanted.regions.fast:
        rules += _by_wire("rt ipsec exists", "fast", f"flow add @{FLOWTABLE}")
    if wanted.interfaces:
        rules.append(f"oifname {quoted(wanted.interfaces)} flow add @{FLOWTABLE}")
    if wanted.offload.plain and wanted.wan:
        # What is translated into a tunnel's selectors is not yet known as IPsec here, and a flow would never be.
        rules += _by_wire(f"{PLAIN} ct status snat,dnat", PROTECTED, "return")
        rules.append(f"{PLAIN} oifname {quoted(wanted.wan)} flow add @{FLOWTABLE}")
    return rules


def _by_wire(condition: str, name: str, verdict: str) -> list[str]:
    """Rules on the addresses that a packet will have on the wire, the remote one first, whatever NAT does."""
    return [
        f"{condition} ct direction {way} ct {other} {ip} saddr . ct {other} {ip} daddr @{name}{digit} {verdict}"
        for ip, digit, _ in _FAMILIES.values()
        for way, other in (("original", "reply"), ("reply", "original"))
    ]


def _address_sets(name: str, addresses: Mapping[int, frozenset[str]]) -> list[Set]:
    sets = []
    for family, (_, digit, kind) in _FAMILIES.items():
        elements: dict[Element, str] = {(address,): "" for address in addresses.get(family, frozenset())}
        sets.append(Set(f"{name}{digit}", kind, elements=elements))
    return sets


def _notrack() -> list[Chain]:
    """The outer packets of known peers, and only theirs, pass conntrack by: an entry and a lookup less for each."""
    received, sent = [], []
    for ip, digit, _ in _FAMILIES.values():
        arriving = f"{ip} saddr @peers{digit} {ip} daddr @own{digit}"
        leaving = f"{ip} saddr @own{digit} {ip} daddr @peers{digit}"
        received += [f"{arriving} meta l4proto 50 notrack", f"{arriving} udp dport 4500 notrack"]
        sent += [f"{leaving} meta l4proto 50 notrack", f"{leaving} udp sport 4500 notrack"]
    return [
        Chain("notrack_in", tuple(received), Hook("filter", "prerouting", RAW)),
        Chain("notrack_out", tuple(sent), Hook("filter", "output", RAW)),
    ]


def _netdev(wanted: Wanted) -> TableState:
    sets: list[Set] = []
    chains: dict[str, Chain] = {}
    counters: set[str] = set()
    if wanted.guarded:
        for family, (_, digit, _) in _FAMILIES.items():
            sets.append(_pair_set(f"guarded{digit}", family, wanted.regions.guarded.get(family, ())))
        sets += _address_sets("own", wanted.endpoints)
        if wanted.marks:
            sets += [_marked_set(family, wanted) for family in _FAMILIES]
    for device in sorted(wanted.guarded):
        counters.add(f"guard_{identifier(device)}")
        for chain in _guard(device, confining=bool(wanted.marks)):
            chains[chain.name] = chain
    if wanted.counting_precisely:
        sets += _counting_maps(wanted)
        counters |= _counters(wanted)
        for chain in _precise(wanted):
            chains[chain.name] = chain
    return TableState(NETDEV, chains=chains, sets=_named(sets), counters=frozenset(counters))


def _marked_set(family: int, wanted: Wanted) -> Set:
    """Prefix pairs with the mark that their own peer's packets have."""
    _, digit, kind = _FAMILIES[family]
    elements: dict[Element, str] = {
        (*pair, str(wanted.marks[tunnel.name])): ""  # decimal, as nft lists it
        for pair, tunnel in wanted.regions.inbound.get(family, {}).items()
        if tunnel.name in wanted.marks
    }
    return Set(f"marked{digit}", f"{kind} . {kind} . mark", interval=True, elements=elements)


def _guard(device: str, *, confining: bool) -> list[Chain]:
    """Drops what claims to be a tunnel's inner packet but came without IPsec, before the flowtable can take it.

    Only protocols that a flow can have: everything else meets the kernel's policy check on the full path. ESP itself
    leaves after two comparisons. `confining`: what came with IPsec must have the mark of the peer whose it is.
    """
    slug = identifier(device)
    plaintext = [f"{ip} daddr @own{digit} udp dport {{ 500, 4500 }} return" for ip, digit, _ in _FAMILIES.values()] + [
        f"{ip} saddr . {ip} daddr @guarded{digit} counter name guard_{slug} drop" for ip, digit, _ in _FAMILIES.values()
    ]
    chains = [Chain(f"plaintext_{slug}", tuple(plaintext))]
    rules = [f"meta ipsec missing meta l4proto {{ 6, 17, 47 }} jump plaintext_{slug}"]
    if confining:
        foreign = [
            f"{ip} saddr . {ip} daddr @guarded{digit} {ip} saddr . {ip} daddr . meta mark != @marked{digit} "
            f"counter name guard_{slug} drop"
            for ip, digit, _ in _FAMILIES.values()
        ]
        chains.append(Chain(f"decrypted_{slug}", tuple(foreign)))
        rules.append(f"meta ipsec exists meta l4proto {{ 6, 17, 47 }} jump decrypted_{slug}")
    hook = Hook("filter", "ingress", GUARD_PRIORITY, device=device)
    return [*chains, Chain(f"guard_{slug}", tuple(rules), hook)]


def _precise(wanted: Wanted) -> list[Chain]:
    """Counts inner bytes before the flowtable, in the unit of the forward chain's counters."""
    chains = []
    for device in sorted(wanted.lan):
        rules = tuple(f"counter name {ip} saddr . {ip} daddr map @out{digit}" for ip, digit, _ in _FAMILIES.values())
        hook = Hook("filter", "ingress", COUNT_PRIORITY, device=device)
        chains.append(Chain(f"count_{identifier(device)}", rules, hook))
    for device in sorted(wanted.guarded):
        rules = tuple(
            f"meta ipsec exists counter name {ip} saddr . {ip} daddr map @in{digit}"
            for ip, digit, _ in _FAMILIES.values()
        )
        hook = Hook("filter", "ingress", COUNT_PRIORITY, device=device)
        chains.append(Chain(f"count_{identifier(device)}", rules, hook))
    for device, tunnel in sorted(wanted.interfaces.items()):
        if tunnel.topology is not Topology.POLICY:
            for way, hook_name in (("in", "ingress"), ("out", "egress")):
                hook = Hook("filter", hook_name, COUNT_PRIORITY, device=device)
                chains.append(Chain(f"count_{way}_{identifier(device)}", (f"counter name {way}_{tunnel.slug}",), hook))
    return chains
