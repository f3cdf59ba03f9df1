"""The SPD as disjoint regions of inner addresses: what the guard must hold, and what may be fast.

Only what a flow can be made of matters: policies of the forward direction say what arrives through a tunnel, those of
the out direction what leaves through one. A region whose first policy is more than "these prefixes through this tunnel"
(ports, a mark, a bypass) belongs to nobody: neither guarded nor fast, so that the kernel's own checks decide there.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from operator import itemgetter
from typing import NamedTuple

from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import Direction, Mode, Policy, Template
from flowfast.model.state import RouterState
from flowfast.model.tunnel import Tunnel, TunnelKey
from flowfast.plan.regions import Pair, Regions, TooFragmented, parse, text_of
from flowfast.plan.tunnels import policy_key

BITS = {2: 32, 10: 128}
"""Address bits by address family (AF_INET, AF_INET6)."""

Pairs = list[tuple[str, str]]


class Use(IntEnum):
    """What may be done with a region."""

    NOTHING = 0
    GUARD = 1
    FAST = 2


@dataclass(slots=True)
class SpdRegions:
    """By family: pairs (remote, local) to guard and to make fast, and pairs -> tunnel by direction to count."""

    guarded: dict[int, Pairs] = field(default_factory=dict)
    fast: dict[int, Pairs] = field(default_factory=dict)
    inbound: dict[int, dict[tuple[str, str], Tunnel]] = field(default_factory=dict)
    outbound: dict[int, dict[tuple[str, str], Tunnel]] = field(default_factory=dict)
    protected: dict[int, Pairs] = field(default_factory=dict)
    """Pairs (remote, local) that any policy protects, be it only some protocols or marks of them."""
    by_source: bool = False
    """True where an address of the other side is behind several tunnels, and the source decides which one it is."""
    refused: dict[TunnelKey, Reason] = field(default_factory=dict)
    """Tunnels some of whose traffic stays on the full path, and why."""
    complete: bool = True
    """False where the guard cannot express the whole SPD: then the WAN must stay out of the flowtable."""


class _Entry(NamedTuple):
    """A policy that works by address: its rectangle as (source, destination), and the tunnel that it asks for."""

    priority: int
    pair: Pair
    demand: Template | None
    tunnel: Tunnel | None
    why_not: str | None
    """Why it is more than "these prefixes through this tunnel"."""


def cut(state: RouterState, tunnels: Iterable[Tunnel], *, counting: bool, plain: bool = False) -> SpdRegions:
    """Decorrelates the policies that work by address (without if_id).

    `counting`: tell tunnels apart, too. `plain`: say what any policy protects, too.
    """
    entries = _entries(state, {tunnel.key: tunnel for tunnel in tunnels})
    result = SpdRegions()
    for family, bits in BITS.items():
        inbound, outbound = entries.get((Direction.FORWARD, family), []), entries.get((Direction.OUT, family), [])
        _uses(result, inbound, family, bits)
        result.by_source = result.by_source or _by_source(outbound, bits)
        if plain:
            result.protected[family] = _protected(inbound, outbound, bits)
        if counting:
            result.inbound[family] = _owners(result, inbound, bits)
            result.outbound[family] = _owners(result, outbound, bits)
    return result


def _entries(state: RouterState, by_key: Mapping[TunnelKey, Tunnel]) -> dict[tuple[Direction, int], list[_Entry]]:
    """The SPD by direction and family, in the order in which the kernel looks."""
    found: defaultdict[tuple[Direction, int], list[_Entry]] = defaultdict(list)
    for policy in state.policies:
        # Type 0 is XFRM_POLICY_TYPE_MAIN. With an if_id a policy only sees the packets of its interface, and a
        # program's own (IKE's bypass) only those of its socket.
        if policy.direction is Direction.IN or policy.if_id or policy.socket or policy.type:
            continue
        selector, demand = policy.selector, policy.demand
        tunnel = by_key.get(policy_key(policy, demand)) if demand is not None else None
        pair = Pair(parse(selector.src), parse(selector.dst))
        entry = _Entry(policy.priority, pair, demand, tunnel, _plain(policy))
        found[policy.direction, selector.family].append(entry)
    for entries in found.values():
        # The kernel takes the lowest number first, and among equals the older one (xfrm_policy_inexact_lookup, 5.0).
        entries.sort(key=itemgetter(0))
    return found


def _plain(policy: Policy) -> str | None:
    """Why the policy is more than "these prefixes", or None."""
    selector = policy.selector
    if policy.mark is not None and policy.mark.mask:
        return "its policy matches on a mark, which a flow does not carry"
    if selector.proto or selector.sport_mask or selector.dport_mask or selector.ifindex:
        return "its policy matches on protocol, ports or a device, not on prefixes alone"
    return None


def _uses(result: SpdRegions, entries: list[_Entry], family: int, bits: int) -> None:
    regions: Regions[Use] = Regions(bits)
    for entry in entries:
        try:
            regions.add(entry.pair, _use(result, entry))
        except TooFragmented:
            result.complete = False
            if entry.tunnel is not None:
                result.refused.setdefault(entry.tunnel.key, _fragmented(entry.tunnel))
    placed = list(regions.elements())
    result.guarded[family] = [element for element, use in placed if use is not Use.NOTHING]
    result.fast[family] = [element for element, use in placed if use is Use.FAST]


def _by_source(outbound: list[_Entry], bits: int) -> bool:
    ends = sorted((entry.pair.dst, id(entry.tunnel)) for entry in outbound if entry.demand)
    last, owner = -1, 0
    for (first, length), tunnel in ends:
        if first > last:
            last, owner = first + (1 << (bits - length)) - 1, tunnel
        elif tunnel != owner:
            return True
    return False


def _protected(inbound: list[_Entry], outbound: list[_Entry], bits: int) -> Pairs:
    pairs = [entry.pair for entry in inbound if entry.demand]
    pairs += [Pair(entry.pair.dst, entry.pair.src) for entry in outbound if entry.demand]
    regions: Regions[bool] = Regions(bits)
    try:
        for pair in dict.fromkeys(pairs):
            regions.add(pair, True)
    except TooFragmented:
        everything = text_of((0, 0), bits)
        return [(everything, everything)]
    return [element for element, _ in regions.elements()]


def _use(result: SpdRegions, entry: _Entry) -> Use:
    tunnel, why = entry.tunnel, entry.why_not
    if why is not None and tunnel is not None:
        result.refused.setdefault(tunnel.key, Reason("SELECTOR_NOT_PREFIX", tunnel.name, why, severity=Severity.INFO))
    if why is not None or entry.demand is None:
        return Use.NOTHING
    if tunnel is not None and entry.demand.mode != Mode.TUNNEL:
        result.refused.setdefault(tunnel.key, _mode_reason(tunnel, entry.demand.mode))
        return Use.GUARD
    return Use.FAST if tunnel is not None and tunnel.offload else Use.GUARD


def _mode_reason(tunnel: Tunnel, mode: int) -> Reason:
    name = Mode(mode).name if mode in set(Mode) else str(mode)
    return Reason(
        "MODE_NOT_ELIGIBLE", tunnel.name, f"mode {name.lower()} keeps to the full path; only tunnel mode is fast"
    )


def _fragmented(tunnel: Tunnel) -> Reason:
    return Reason(
        "SELECTORS_OVERLAP",
        tunnel.name,
        "its selectors overlap so many policies of higher priority that they cannot be cut into few pieces",
        "give the tunnels selectors that do not overlap",
    )


def _owners(result: SpdRegions, entries: list[_Entry], bits: int) -> dict[tuple[str, str], Tunnel]:
    regions: Regions[Tunnel | None] = Regions(bits)
    for entry in entries:
        owner = entry.tunnel if entry.why_not is None else None
        try:
            regions.add(entry.pair, owner)
        except TooFragmented:
            if owner is not None:
                result.refused.setdefault(owner.key, _fragmented(owner))
    return {element: owner for element, owner in regions.elements() if owner is not None}
