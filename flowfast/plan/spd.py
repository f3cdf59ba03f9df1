"""The SPD as disjoint regions of inner addresses: what the guard must hold, and what may be fast.

Only what a flow can be made of matters: policies of the forward direction say what arrives through a tunnel, those of
the out direction what leaves through one. A region whose first policy is more than "these prefixes through this tunnel"
(ports, a mark, a bypass) belongs to nobody: neither guarded nor fast, so that the kernel's own checks decide there.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import Direction, Mode, Policy
from flowfast.model.state import RouterState
from flowfast.model.tunnel import Tunnel, TunnelKey
from flowfast.plan.regions import Pair, Regions, TooFragmented, parse
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
    refused: dict[TunnelKey, Reason] = field(default_factory=dict)
    """Tunnels some of whose traffic stays on the full path, and why."""
    complete: bool = True
    """False where the guard cannot express the whole SPD: then the WAN must stay out of the flowtable."""


def cut(state: RouterState, tunnels: Iterable[Tunnel], *, counting: bool) -> SpdRegions:
    """Decorrelates the policies that work by address (without if_id). `counting`: tell tunnels apart, too."""
    by_key = {tunnel.key: tunnel for tunnel in tunnels}
    result = SpdRegions()
    for family, bits in BITS.items():
        inbound = list(_policies(state, Direction.FORWARD, family))
        _uses(result, inbound, by_key, family, bits)
        if counting:
            result.inbound[family] = _owners(result, inbound, by_key, bits)
            outbound = list(_policies(state, Direction.OUT, family))
            result.outbound[family] = _owners(result, outbound, by_key, bits)
    return result


def _policies(state: RouterState, direction: Direction, family: int) -> Iterator[Policy]:
    chosen = (
        policy
        for policy in state.policies
        # Type 0 is XFRM_POLICY_TYPE_MAIN. With an if_id a policy only sees the packets of its interface, and a
        # program's own (IKE's bypass) only those of its socket.
        if (policy.direction, policy.selector.family, policy.type) == (direction, family, 0)
        and not (policy.if_id or policy.socket)
    )
    # The kernel takes the lowest number first, and among equals the older one (xfrm_policy_inexact_lookup, 5.0).
    return iter(sorted(chosen, key=lambda policy: policy.priority))


def _plain(policy: Policy) -> str | None:
    """Why the policy is more than "these prefixes", or None."""
    selector = policy.selector
    if policy.mark is not None and policy.mark.mask:
        return "its policy matches on a mark, which a flow does not carry"
    if selector.proto or selector.sport_mask or selector.dport_mask or selector.ifindex:
        return "its policy matches on protocol, ports or a device, not on prefixes alone"
    return None


def _uses(
    result: SpdRegions, policies: list[Policy], by_key: Mapping[TunnelKey, Tunnel], family: int, bits: int
) -> None:
    regions: Regions[Use] = Regions(bits)
    for policy in policies:
        tunnel = by_key.get(policy_key(policy)) if policy.protects else None
        use = _use(result, policy, tunnel)
        try:
            regions.add(Pair(parse(policy.selector.src), parse(policy.selector.dst)), use)
        except TooFragmented:
            result.complete = result.complete and use is Use.NOTHING
            if tunnel is not None:
                result.refused.setdefault(tunnel.key, _fragmented(tunnel))
    result.guarded[family], result.fast[family] = [], []
    for element, use in regions.elements():
        if use is not Use.NOTHING:
            result.guarded[family].append(element)
        if use is Use.FAST:
            result.fast[family].append(element)


def _use(result: SpdRegions, policy: Policy, tunnel: Tunnel | None) -> Use:
    why = _plain(policy)
    if why is not None and tunnel is not None:
        result.refused.setdefault(tunnel.key, Reason("SELECTOR_NOT_PREFIX", tunnel.name, why, severity=Severity.INFO))
    if why is not None or not policy.protects:
        return Use.NOTHING
    template = next(each for each in policy.templates if not each.optional)
    if tunnel is not None and template.mode != Mode.TUNNEL:
        result.refused.setdefault(tunnel.key, _mode_reason(tunnel, template.mode))
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


def _owners(
    result: SpdRegions, policies: list[Policy], by_key: Mapping[TunnelKey, Tunnel], bits: int
) -> dict[tuple[str, str], Tunnel]:
    regions: Regions[TunnelKey | None] = Regions(bits)
    for policy in policies:
        key = policy_key(policy) if policy.protects and _plain(policy) is None else None
        try:
            regions.add(Pair(parse(policy.selector.src), parse(policy.selector.dst)), key if key in by_key else None)
        except TooFragmented:
            if key is not None and key in by_key:
                result.refused.setdefault(key, _fragmented(by_key[key]))
    return {element: by_key[key] for element, key in regions.elements() if key is not None}
