"""SYNs are clamped both ways, to what the SAs have room for; and what is said of it takes no flow off."""

from dataclasses import replace

from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.sa import SA, Direction, Encap
from flowfast.model.state import RouterState
from flowfast.plan.diff import diff
from flowfast.plan.planner import plan
from flowfast.plan.ruleset import INET
from tests.unit.plan.router import IPSEC, LAN, PEER, US, WAN, as_read, config, policies, router

OTHER = "192.0.2.3"


def pair(peer: str = PEER, reqid: int = 1, if_id: int = 0, encap: Encap | None = None) -> tuple[SA, SA]:
    return (
        make_sa(US, peer, reqid=reqid)._replace(if_id=if_id, encap=encap),
        make_sa(peer, US, reqid=reqid, direction=Direction.IN)._replace(if_id=if_id, encap=encap),
    )


def clamp(state: RouterState, more: str = "") -> list[str]:
    chains = plan(state, config(more)).ruleset.tables[INET].chains
    assert ("clamp_mss" in chains) == any("jump clamp_mss" in rule for rule in chains["forward"].rules)
    return list(chains["clamp_mss"].rules) if "clamp_mss" in chains else []


def test_what_comes_out_of_a_policy_based_tunnel_is_clamped_to_what_its_sa_has_room_for() -> None:
    state = replace(router(policies(), policies("fd00:1::/64", "fd00:2::/64")), sas=pair())
    rules = clamp(state)
    # 1446 bytes of AES-GCM-128 over 1500, less the headers of IP and TCP.
    assert "ip saddr . ip daddr @fast4 tcp option maxseg size set 1406" in rules
    assert "ip6 saddr . ip6 daddr @fast6 tcp option maxseg size set 1386" in rules
    assert "rt ipsec exists tcp option maxseg size set rt mtu" in rules
    small = replace(state, links=(LAN, replace(WAN, mtu=1400)))
    assert "ip saddr . ip daddr @fast4 tcp option maxseg size set 1306" in clamp(small)
    assert clamp(state, "offload: {clamp_mss: false}") == []


def test_tunnels_of_several_sizes_are_told_apart_by_address() -> None:
    spd = (policies(), policies(remote="10.3.0.0/16", peer=OTHER, reqid=2))
    sas = (*pair(), *pair(OTHER, 2, encap=Encap(2, 4500, 4500)))
    rules = clamp(replace(router(*spd), sas=sas), "accounting: off\noffload: {trust_peers: true}")
    smaller = "ip saddr . ip daddr { 10.3.0.0/16 . 10.1.0.0/16 } tcp option maxseg size set 1398"
    rest = "ip saddr . ip daddr @fast4 tcp option maxseg size set 1406"
    assert rules.index(smaller) < rules.index(rest)


def test_an_interface_is_clamped_both_ways_to_the_smaller_of_its_mtu_and_its_sas() -> None:
    state = replace(router(policies(if_id=42), links=(LAN, WAN, IPSEC)), sas=pair(if_id=42))
    assert 'iifname { "ipsec0" } tcp option maxseg size set rt mtu' in clamp(state)
    assert 'iifname { "ipsec0" } meta nfproto ipv4 tcp option maxseg size set 1360' in clamp(state)
    large = replace(state, links=(LAN, WAN, replace(IPSEC, mtu=1500)))
    assert 'iifname { "ipsec0" } meta nfproto ipv4 tcp option maxseg size set 1406' in clamp(large)
    assert 'oifname { "ipsec0" } meta nfproto ipv6 tcp option maxseg size set 1386' in clamp(large)


def test_a_cipher_that_is_not_known_is_clamped_carefully_and_a_tunnel_that_is_down_not_at_all() -> None:
    odd = tuple(sa._replace(algorithm="odd") for sa in pair())
    assert "ip saddr . ip daddr @fast4 tcp option maxseg size set 1360" in clamp(replace(router(policies()), sas=odd))
    assert clamp(router(policies())) == ["rt ipsec exists tcp option maxseg size set rt mtu"]


def test_another_size_takes_no_flow_off() -> None:
    state = replace(router(policies()), sas=pair())
    before = as_read(plan(state, config()).ruleset)
    after = plan(replace(state, links=(LAN, replace(WAN, mtu=1400))), config()).ruleset
    steps = diff(after, before)
    assert steps
    assert not any(step.flushes for step in steps)
