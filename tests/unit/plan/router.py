"""A router on paper, for the planner's tests: lan0, wan0, and tunnels by their policies."""

from dataclasses import replace

from flowfast.config.load import parse
from flowfast.config.schema import Config
from flowfast.model.link import Link
from flowfast.model.nftables import Chain, Ruleset, rule_hash
from flowfast.model.sa import Direction, Mode, Policy, Selector, Template
from flowfast.model.state import Feature, RouterState
from flowfast.plan.planner import GUARD_NEEDS, NEEDED, WATCH_NEEDS

US, PEER = "192.0.2.1", "192.0.2.2"
FEATURES = {
    name: Feature(name, True) for name in (*NEEDED, *GUARD_NEEDS, WATCH_NEEDS, "counter_map", "nftables", "xfrm")
}
LAN = Link(1, "lan0", None, True, 1500, ("10.1.0.1/16",))
WAN = Link(2, "wan0", None, True, 1500, (f"{US}/24",))
IPSEC = Link(3, "ipsec0", "xfrm", True, 1400, xfrm_if_id=42)


def config(more: str = "") -> Config:
    """A config with lan0 and wan0, and what else is given."""
    return parse(f"devices: {{lan: [lan0], wan: [wan0]}}\n{more}", "test.yaml").config


def policies(
    local: str = "10.1.0.0/16",
    remote: str = "10.2.0.0/16",
    peer: str = PEER,
    *,
    reqid: int = 1,
    if_id: int = 0,
    mode: int = Mode.TUNNEL,
    priority: int = 1000,
    **selector: int,
) -> tuple[Policy, ...]:
    """The three policies that an IKE daemon installs for a tunnel."""
    family = 10 if ":" in local else 2

    def one(direction: Direction, src: str, dst: str, outer: tuple[str, str]) -> Policy:
        template = Template(family, *outer, 50, 0, reqid, mode)
        chosen = Selector(family, src, dst, **selector)
        return Policy(chosen, direction, 0, priority, 0, (template,), if_id)

    return (
        one(Direction.OUT, local, remote, (US, peer)),
        one(Direction.IN, remote, local, (peer, US)),
        one(Direction.FORWARD, remote, local, (peer, US)),
    )


def bypass(local: str, remote: str, priority: int = 500) -> tuple[Policy, ...]:
    """Policies that let traffic through without IPsec."""
    return tuple(replace_templates(policy) for policy in policies(local, remote, priority=priority))


def replace_templates(policy: Policy) -> Policy:
    return policy._replace(templates=())


def router(*spd: tuple[Policy, ...], links: tuple[Link, ...] = (LAN, WAN), without: str = "") -> RouterState:
    """A state with these policies; `without` names a feature that is missing."""
    features = {name: feature for name, feature in FEATURES.items() if name != without}
    return RouterState(1.0, links, policies=tuple(p for group in spd for p in group), features=features)


def as_read(ruleset: Ruleset) -> Ruleset:
    """The ruleset as the kernel gives it back: rules as their hashes."""
    return Ruleset(
        {
            table: replace(
                state,
                chains={
                    name: Chain(name, tuple(rule_hash(rule) for rule in chain.rules), chain.hook)
                    for name, chain in state.chains.items()
                },
            )
            for table, state in ruleset.tables.items()
        }
    )
