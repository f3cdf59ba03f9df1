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
from flowfast.plan.clamp import CLAMP, Sizes, clamp_rules
from flowfast.plan.filters import excluded_counters, excluded_sets, filter_rules
from flowfast.plan.pairs import FAMILIES, Part, Shared, parts
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
    hardware: bool = False
    """The flowtable is one of NICs (`flags offload`)."""
    marks: Mapping[str, int] = field(default_factory=dict)
    """Tunnel -> mark that its inbound SAs set, where several peers are told apart by it."""
    endpoints: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Outer addresses of ours by family: IKE and NAT-T to them is never plaintext of a tunnel."""
    peers: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Outer addresses of the peers, by family."""
    rooms: Mapping[str, int] = field(default_factory=dict)
    """Tunnel -> bytes of the largest inner packet that its SAs carry, as far as it is known."""
    watched: frozenset[str] = frozenset()
    """WAN devices on which nothing of connections through xfrm interfaces may come in in the clear."""
    packet_offload: frozenset[str] = frozenset()
    """Devices that do all of ESP for some SA: what they decrypt has no secpath where packets are forwarded."""
    unguarded: Mapping[str, str] = field(default_factory=dict)
    """Own address -> the LAN device that has it: ESP that comes and goes there meets no guard."""

    @property
    def devices(self) -> frozenset[str]:
        """Everything that the flowtable is hooked on."""
        return self.lan | self.guarded | frozenset(self.interfaces)


def build(wanted: Wanted) -> Ruleset:
    """The whole ruleset. Without a guarded device or precise counting there is no netdev table."""
    lookups = _lookups(wanted)
    inet = _inet(wanted, lookups)
    netdev = _netdev(wanted, lookups)
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


@dataclass(frozen=True, slots=True)
class _Lookups:
    """The sets and maps of pairs of prefixes, the remote one first except in `out`; none where there is no use."""

    fast: list[Part]
    protected: list[Part]
    guarded: list[Part]
    marked: list[Part]
    """With the mark that the peer's own packets have as a third."""
    into: list[Part]
    out: list[Part]


def _lookups(wanted: Wanted) -> _Lookups:
    regions = wanted.regions
    marked: dict[int, dict[Element, str]] = {
        family: {
            (*pair, str(wanted.marks[tunnel.name])): ""  # decimal, as nft lists it
            for pair, tunnel in owners.items()
            if tunnel.name in wanted.marks
        }
        for family, owners in regions.inbound.items()
    }
    shared = Shared()

    def parted(
        name: str, by_family: Mapping[int, Mapping[Element, str]], *, data: str | None = None, mark: bool = False
    ) -> list[Part]:
        return [
            part
            for family, elements in by_family.items()
            for part in parts(name, FAMILIES[family], elements, data=data, mark=mark, shared=shared)
        ]

    return _Lookups(
        fast=parted("fast", _plain(regions.fast)),
        protected=parted(PROTECTED, _plain(regions.protected)),
        guarded=parted("guarded", _plain(regions.guarded)),
        marked=parted("marked", marked, mark=True) if wanted.marks else [],
        into=parted("in", _counters_of("in", regions.inbound), data="counter"),
        out=parted("out", _counters_of("out", regions.outbound), data="counter"),
    )


def _plain(pairs: Mapping[int, list[tuple[str, str]]]) -> dict[int, dict[Element, str]]:
    return {family: dict.fromkeys(those, "") for family, those in pairs.items()}


def _counters_of(way: str, owners: Mapping[int, Mapping[tuple[str, str], Tunnel]]) -> dict[int, dict[Element, str]]:
    return {
        family: {pair: f"{way}_{tunnel.slug}" for pair, tunnel in those.items()} for family, those in owners.items()
    }


def _named(things: Iterable[Set]) -> dict[str, Set]:
    return {thing.name: thing for thing in things}


def _inet(wanted: Wanted, lookups: _Lookups) -> TableState:
    sets = [part.set for part in (*lookups.fast, *lookups.protected)]
    sets += excluded_sets(wanted.exclude)
    sets.append(Set(PAUSED, "nf_proto", timeout=True))
    if wanted.counting:
        sets += [*(part.set for part in (*lookups.out, *lookups.into)), *_device_maps(wanted)]
    # The jump's target first: a rule can only name a chain that is there.
    chains = [Chain("to_flowtable", tuple(_offload_rules(wanted, lookups)))]
    forward = _in_the_clear(wanted)
    if wanted.offload.clamp_mss:
        sizes = Sizes(wanted.tunnels, frozenset(wanted.interfaces), wanted.rooms)
        chains.append(Chain(CLAMP, tuple(clamp_rules(sizes, lookups.fast, wanted.regions.inbound))))
        forward.append(f"tcp flags & (syn | rst) == syn jump {CLAMP}")
    # In a pause a packet costs here what it costs a router without flowfast: it is not even counted.
    forward.append(f"meta nfproto @{PAUSED} return")
    if wanted.counting:
        # A packet is looked for until it is found: of several sets it is in one.
        chains += [
            Chain(f"count_{way}", tuple(f"{_counted(part)} return" for part in among))
            for way, among in (("out", lookups.out), ("in", lookups.into))
        ]
        forward += _counting_rules(wanted)
    forward.append("jump to_flowtable")
    chains.append(Chain("forward", tuple(forward), Hook("filter", "forward", LAST)))
    if wanted.notrack:
        sets += [*_address_sets("own", wanted.endpoints), *_address_sets("peers", wanted.peers)]
        chains += _notrack()
    return TableState(
        INET,
        chains={chain.name: chain for chain in chains},
        sets=_named(sets),
        flowtables={FLOWTABLE: Flowtable(FLOWTABLE, wanted.devices, offload=wanted.hardware)},
        counters=(_counters(wanted, lookups) if wanted.counting else frozenset())
        | frozenset(f"guard_{identifier(device)}" for device in wanted.watched)
        | excluded_counters(wanted.offload, wanted.exclude),
    )


def _in_the_clear(wanted: Wanted) -> list[str]:
    """What belongs to a connection through an xfrm interface, and comes in on the WAN without IPsec.

    Policies with an if_id say nothing of it, and the connection's own entry lets it past most firewalls. On the
    flowtable it is not found (a flow's packets must come in by the interface), so it always comes to this chain.
    """
    return [
        f'iifname "{device}" meta ipsec missing ct state established fib saddr oifname {quoted(wanted.interfaces)} '
        f"counter name guard_{identifier(device)} drop"
        for device in sorted(wanted.watched)
    ]


def _counters(wanted: Wanted, lookups: _Lookups) -> frozenset[str]:
    """Their names; where a map has one, the same text and not another 20 000."""
    mapped = Shared()
    for part in (*lookups.into, *lookups.out):
        mapped.update(zip(names := part.set.elements.values(), names, strict=True))
    return frozenset([mapped[f"{way}_{tunnel.slug}"] for tunnel in wanted.tunnels for way in ("out", "in")])


def _device_maps(wanted: Wanted) -> list[Set]:
    """Interface -> counter of its tunnel: a rule for each would be 20 000 comparisons a packet at 10 000 tunnels."""
    if not wanted.interfaces:
        return []
    maps = []
    for way in ("out", "in"):
        elements: dict[Element, str] = {(name,): f"{way}_{tunnel.slug}" for name, tunnel in wanted.interfaces.items()}
        maps.append(Set(f"{way}_device", "ifname", data="counter", elements=elements))
    return maps


def _counting_rules(wanted: Wanted) -> list[str]:
    """Full-path traffic by tunnel. An interface's own counter where there is one, by prefixes elsewhere."""
    rules = []
    if wanted.interfaces:
        rules += ["counter name oifname map @out_device", "counter name iifname map @in_device"]
    rules += ["rt ipsec exists jump count_out", "meta ipsec exists jump count_in"]
    if wanted.packet_offload:
        # The policy check has taken the secpath away by now (secpath_reset in __xfrm_policy_check(), 6.2).
        rules.append(f"iifname {quoted(wanted.packet_offload)} meta ipsec missing jump count_in")
    return rules


def _counted(part: Part) -> str:
    return f"counter name {part.key()} map @{part.set.name}"


def _offload_rules(wanted: Wanted, lookups: _Lookups) -> list[str]:
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
    if wanted.lan:
        # ESP that leaves by a LAN device comes back there, where no guard stands.
        rules.append(f"rt ipsec exists oifname {quoted(wanted.lan)} return")
    if wanted.regions.by_source:
        # The kernel looks for the policy once more after it has translated the source (nf_xfrm_me_harder(),
        # net/netfilter/nf_nat_proto.c); a flow keeps the tunnel that it had before.
        rules += ["rt ipsec exists ct direction original ct status snat return"]
        rules += ["rt ipsec exists ct direction reply ct status dnat return"]
    rules += _by_wire("rt ipsec exists", lookups.fast, f"flow add @{FLOWTABLE}")
    if wanted.interfaces:
        rules.append(f"oifname {quoted(wanted.interfaces)} flow add @{FLOWTABLE}")
    if wanted.offload.plain and wanted.wan:
        # What is translated into a tunnel's selectors is not yet known as IPsec here, and a flow would never be.
        rules += _by_wire(f"{PLAIN} ct status snat,dnat", lookups.protected, "return")
        rules.append(f"{PLAIN} oifname {quoted(wanted.wan)} flow add @{FLOWTABLE}")
    return rules


def _by_wire(condition: str, among: Iterable[Part], verdict: str) -> list[str]:
    """Rules on the addresses that a packet will have on the wire, the remote one first, whatever NAT does."""
    return [
        f"{condition} ct direction {way} {part.key(f'ct {other} ')} @{part.set.name} {verdict}"
        for part in among
        for way, other in (("original", "reply"), ("reply", "original"))
    ]


def _address_sets(name: str, addresses: Mapping[int, frozenset[str]]) -> list[Set]:
    sets = []
    for family, (_, digit, kind) in FAMILIES.items():
        elements: dict[Element, str] = {(address,): "" for address in addresses.get(family, frozenset())}
        sets.append(Set(f"{name}{digit}", kind, elements=elements))
    return sets


def _notrack() -> list[Chain]:
    """The outer packets of known peers, and only theirs, pass conntrack by: an entry and a lookup less for each."""
    received, sent = [], []
    for ip, digit, _ in FAMILIES.values():
        arriving = f"{ip} saddr @peers{digit} {ip} daddr @own{digit}"
        leaving = f"{ip} saddr @own{digit} {ip} daddr @peers{digit}"
        received += [f"{arriving} meta l4proto 50 notrack", f"{arriving} udp dport 4500 notrack"]
        sent += [f"{leaving} meta l4proto 50 notrack", f"{leaving} udp sport 4500 notrack"]
    return [
        Chain("notrack_in", tuple(received), Hook("filter", "prerouting", RAW)),
        Chain("notrack_out", tuple(sent), Hook("filter", "output", RAW)),
    ]


def _netdev(wanted: Wanted, lookups: _Lookups) -> TableState:
    sets: list[Set] = []
    chains: dict[str, Chain] = {}
    counters: set[str] = set()
    if wanted.guarded:
        sets += [part.set for part in (*lookups.guarded, *lookups.marked)]
        sets += _address_sets("own", wanted.endpoints)
    for device in sorted(wanted.guarded):
        counters.add(f"guard_{identifier(device)}")
        for chain in _guard(device, lookups):
            chains[chain.name] = chain
    if wanted.counting_precisely:
        sets += [part.set for part in (*lookups.out, *lookups.into)]
        counters |= _counters(wanted, lookups)
        for chain in _precise(wanted, lookups):
            chains[chain.name] = chain
    return TableState(NETDEV, chains=chains, sets=_named(sets), counters=frozenset(counters))


def _guard(device: str, lookups: _Lookups) -> list[Chain]:
    """Drops what claims to be a tunnel's inner packet but came without IPsec, before the flowtable can take it.

    Only protocols that a flow can have: everything else meets the kernel's policy check on the full path. ESP itself
    leaves after two comparisons. Where peers have marks, what came with IPsec must have that of the peer whose it is.
    """
    slug = identifier(device)
    dropped = [f"{part.key()} @{part.set.name} counter name guard_{slug} drop" for part in lookups.guarded]
    ike = [f"{ip} daddr @own{digit} udp dport {{ 500, 4500 }} return" for ip, digit, _ in FAMILIES.values()]
    chains = [Chain(f"plaintext_{slug}", (*ike, *dropped))]
    rules = [f"meta ipsec missing meta l4proto {{ 6, 17, 47 }} jump plaintext_{slug}"]
    if lookups.marked:
        own = [f"{part.key()} . meta mark @{part.set.name} return" for part in lookups.marked]
        chains.append(Chain(f"decrypted_{slug}", (*own, *dropped)))
        rules.append(f"meta ipsec exists meta l4proto {{ 6, 17, 47 }} jump decrypted_{slug}")
    hook = Hook("filter", "ingress", GUARD_PRIORITY, device=device)
    return [*chains, Chain(f"guard_{slug}", tuple(rules), hook)]


def _precise(wanted: Wanted, lookups: _Lookups) -> list[Chain]:
    """Counts inner bytes before the flowtable, in the unit of the forward chain's counters."""
    chains = []
    for device in sorted(wanted.lan):
        hook = Hook("filter", "ingress", COUNT_PRIORITY, device=device)
        chains.append(Chain(f"count_{identifier(device)}", tuple(map(_counted, lookups.out)), hook))
    for device in sorted(wanted.guarded):
        rules = tuple(f"meta ipsec exists {_counted(part)}" for part in lookups.into)
        hook = Hook("filter", "ingress", COUNT_PRIORITY, device=device)
        chains.append(Chain(f"count_{identifier(device)}", rules, hook))
    for device, tunnel in sorted(wanted.interfaces.items()):
        if tunnel.topology is not Topology.POLICY:
            for way, hook_name in (("in", "ingress"), ("out", "egress")):
                hook = Hook("filter", hook_name, COUNT_PRIORITY, device=device)
                chains.append(Chain(f"count_{way}_{identifier(device)}", (f"counter name {way}_{tunnel.slug}",), hook))
    return chains
