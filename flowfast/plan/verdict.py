"""verdicts(): what becomes of each policy: guarded, fast, or nothing, and why.

The planner thinks in regions of addresses (plan/spd.py); this says the same of every policy that they were cut from.
"""

from dataclasses import dataclass
from enum import StrEnum

from flowfast.model.reason import Reason
from flowfast.model.sa import Direction, Policy
from flowfast.model.state import RouterState
from flowfast.model.tunnel import Tunnel
from flowfast.plan.case import Sight
from flowfast.plan.flows import tunnel_of
from flowfast.plan.regions import Pair, Regions, TooFragmented, parse
from flowfast.plan.ruleset import NETDEV
from flowfast.plan.spd import BITS


class Verdict(StrEnum):
    """What a policy's traffic may be."""

    FAST = "fast"  # on the flowtable; what comes in is guarded as well
    GUARDED = "guarded"  # on the full path, and plaintext of it is dropped where a guard stands
    NOTHING = "nothing"  # flowfast leaves it to the kernel's own checks


@dataclass(frozen=True, slots=True)
class Judged:
    """A policy, whose it is, and what becomes of it. `netns`: where it is, if not here."""

    policy: Policy
    tunnel: Tunnel | None
    verdict: Verdict
    why: str
    netns: str | None = None


def verdicts(sight: Sight) -> list[Judged]:
    """One for each policy of the SPD, in the kernel's order of looking; socket policies are left out."""
    shadowed = {id(policy) for policy in _shadowed(sight.state)}
    found = []
    spds = {None: sight.state.policies} | {netns: spd.policies for netns, spd in sight.state.underlay.items()}
    for netns, policies in spds.items():
        for policy in sorted(policies, key=lambda policy: (policy.direction, policy.priority)):
            if not policy.socket:
                tunnel = tunnel_of(sight.by_key, policy, netns)
                verdict, why = _judge(sight, policy, tunnel, hidden=id(policy) in shadowed)
                found.append(Judged(policy, tunnel, verdict, why, netns))
    return found


def _judge(sight: Sight, policy: Policy, tunnel: Tunnel | None, *, hidden: bool) -> tuple[Verdict, str]:
    if policy.type:
        return Verdict.NOTHING, "a sub-policy"
    if policy.action:
        return Verdict.NOTHING, "blocks: what it matches is dropped by the kernel"
    if not policy.protects:
        return Verdict.NOTHING, "lets pass without IPsec"
    if policy.direction is Direction.IN:
        return Verdict.NOTHING, "of packets to the router itself, which are not forwarded"
    if hidden:
        return Verdict.NOTHING, "policies of higher priority come first in all of it"
    if tunnel is None:
        return Verdict.NOTHING, "no policy of the other direction makes it a tunnel"
    if policy.if_id and tunnel.interface is None:
        return Verdict.NOTHING, f"no xfrm interface here has if_id {policy.if_id}"
    path = sight.paths.get(tunnel.key)
    if path is not None:
        way = path.tx if policy.direction is Direction.OUT else path.rx
        return (Verdict.FAST, way.how) if way.fast else (_slow(sight, policy, path.tx.reason), way.how)
    refused = sight.regions.refused.get(tunnel.key)
    if refused is not None:
        return _slow(sight, policy, refused), refused.sentence
    return Verdict.FAST, "where the ruleset is applied"


def _slow(sight: Sight, policy: Policy, why: Reason | None) -> Verdict:
    """Guarded is what comes in; not where prefixes say too little of it, and not behind an interface."""
    ruleset = sight.desired.ruleset if sight.desired else sight.state.ruleset
    table = ruleset.tables.get(NETDEV)
    guards = table is not None and any(name.startswith("guard_") for name in table.chains)
    prefixes = why is None or why.code != "SELECTOR_NOT_PREFIX"
    forwarded_in = policy.direction is Direction.FORWARD and not policy.if_id
    return Verdict.GUARDED if guards and prefixes and forwarded_in else Verdict.NOTHING


def _shadowed(state: RouterState) -> list[Policy]:
    """Policies without an address pair of their own: others of the same direction come first in all of them."""
    hidden = []
    for direction in (Direction.OUT, Direction.FORWARD):
        for family, bits in BITS.items():
            regions: Regions[int] = Regions(bits)
            concerned = [
                policy
                for policy in sorted(state.policies, key=lambda policy: policy.priority)
                if (policy.direction, policy.selector.family, policy.type) == (direction, family, 0)
                and not (policy.if_id or policy.socket)
            ]
            cut = set()
            for at, policy in enumerate(concerned):
                selector = policy.selector
                try:
                    regions.add(Pair(parse(selector.src), parse(selector.dst)), at)
                except TooFragmented:
                    cut.add(at)
            owning = {at for _, at in regions.elements()}
            hidden += [policy for at, policy in enumerate(concerned) if at not in owning | cut]
    return hidden
