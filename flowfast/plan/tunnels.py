"""Finds the tunnels: groups policies and SAs by reqid, if_id and endpoints, and gives them their names."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from flowfast.config.schema import Config
from flowfast.model.link import Link
from flowfast.model.sa import SA, Direction, Policy, Template
from flowfast.model.state import RouterState
from flowfast.model.tunnel import Selectors, Topology, Tunnel, TunnelKey
from flowfast.plan.matching import Matcher


@dataclass(slots=True)
class _Draft:
    key: TunnelKey
    selectors: dict[Selectors, None] = field(default_factory=dict)  # a set that keeps the order of the SPD
    inbound: list[SA] = field(default_factory=list)
    outbound: list[SA] = field(default_factory=list)


def policy_key(policy: Policy, demand: Template, netns: str | None = None) -> TunnelKey:
    """The tunnel that a policy with this demand asks for, seen from this router whatever the policy's direction."""
    if policy.direction is Direction.OUT:
        return TunnelKey(demand.reqid, policy.if_id, demand.src, demand.dst, netns)
    return TunnelKey(demand.reqid, policy.if_id, demand.dst, demand.src, netns)


def find_tunnels(state: RouterState, config: Config) -> tuple[Tunnel, ...]:
    """Every tunnel of the router, configured or not, sorted by name; with their live SAs, oldest first."""
    drafts: dict[TunnelKey, _Draft] = {}
    _gather(drafts, None, state.policies, state.sas)
    for netns, spd in state.underlay.items():
        # Without an if_id, tunnels over there are that namespace's own: no interface brings their traffic here.
        _gather(drafts, netns, [p for p in spd.policies if p.if_id], [sa for sa in spd.sas if sa.if_id])
    interfaces = {link.xfrm_if_id: link for link in state.links if link.is_xfrm and link.xfrm_if_id is not None}
    for if_id in interfaces.keys() - {key.if_id for key in drafts}:
        key = TunnelKey(0, if_id, "", "")  # its SAs are out of sight, its traffic is not
        drafts[key] = _Draft(key)
    return _named(drafts.values(), interfaces, Matcher(config))


def _gather(drafts: dict[TunnelKey, _Draft], netns: str | None, policies: Iterable[Policy], sas: Iterable[SA]) -> None:
    for policy in policies:
        if policy.direction is not Direction.OUT or policy.socket or (demand := policy.demand) is None:
            continue
        key = policy_key(policy, demand, netns)
        draft = drafts.get(key)
        if draft is None:
            draft = drafts[key] = _Draft(key)
        selector = policy.selector
        draft.selectors[Selectors(selector.src, selector.dst, selector.family, demand.mode)] = None
    for sa in sas:
        if sa.larval:
            continue
        if found := drafts.get(TunnelKey(sa.reqid, sa.if_id, sa.src, sa.dst, netns)):
            found.outbound.append(sa)
        elif found := drafts.get(TunnelKey(sa.reqid, sa.if_id, sa.dst, sa.src, netns)):
            found.inbound.append(sa)


def _named(drafts: Iterable[_Draft], interfaces: dict[int, Link], matcher: Matcher) -> tuple[Tunnel, ...]:
    found = []
    for draft in drafts:
        link = interfaces.get(draft.key.if_id) if draft.key.if_id else None
        selectors = tuple(draft.selectors)
        match = matcher.match(draft.key, selectors, link.name if link else None)
        found.append((draft, link, selectors, match))
    plain = [match.name or _plain_name(draft.key, link) for draft, link, _, match in found]
    often = Counter(plain)
    tunnels = [
        Tunnel(
            # One name, one tunnel: where a name fits several (a pool of peers), the peer tells them apart.
            name=name if often[name] == 1 else f"{name}-{draft.key.remote or draft.key.if_id}",
            key=draft.key,
            topology=_topology(draft.key, link),
            selectors=selectors,
            inbound=tuple(draft.inbound),
            outbound=tuple(draft.outbound),
            interface=link.name if link else None,
            configured=match.name is not None,
            offload=match.offload,
        )
        for name, (draft, link, selectors, match) in zip(plain, found, strict=True)
    ]
    return tuple(sorted(tunnels, key=lambda tunnel: tunnel.name))


def _plain_name(key: TunnelKey, link: Link | None) -> str:
    if link is not None:
        return link.name
    return f"reqid-{key.reqid}" if not key.if_id else f"if-{key.if_id}"


def _topology(key: TunnelKey, link: Link | None) -> Topology:
    if link is not None and (key.netns is not None or link.underlay_netns is not None):
        return Topology.CROSS_NETNS
    return Topology.INTERFACE if key.if_id else Topology.POLICY
