"""Which path a tunnel takes in each topology and mode, and the reason where it is the full one."""

import re
from dataclasses import replace

import pytest

from flowfast.config.load import parse
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.desired import Desired
from flowfast.model.nftables import Ruleset
from flowfast.model.reason import Reason
from flowfast.model.sa import SA, Direction, Mark, Mode, Offload
from flowfast.model.state import Feature, Spd
from flowfast.model.tunnel import Topology
from flowfast.plan.planner import plan
from flowfast.plan.ruleset import INET, NETDEV, accounting
from tests.unit.plan.router import IPSEC, LAN, PEER, US, WAN, bypass, config, policies, router


def test_policy_based_tunnel_is_fast_both_ways_behind_the_guard() -> None:
    desired = plan(router(policies()), config())
    (path,) = desired.paths
    assert (str(path.tx), str(path.rx)) == ("flowtable (bundle cached)", "flowtable (behind guard)")
    assert desired.ruleset.tables[INET].flowtables["fast"].devices == {"lan0", "wan0"}
    assert list(desired.ruleset.tables[NETDEV].sets["guarded4"].elements) == [("10.2.0.0/16", "10.1.0.0/16")]
    assert desired.reasons == ()


@pytest.mark.parametrize("missing", ["meta_ipsec_netdev"])
def test_without_a_guard_the_wan_stays_out(missing: str) -> None:
    desired = plan(router(policies(), without=missing), config())
    (path,) = desired.paths
    assert path.tx.fast
    assert path.rx.reason is not None
    assert path.rx.reason.code == "NO_GUARD"
    assert desired.ruleset.tables[INET].flowtables["fast"].devices == {"lan0"}
    assert NETDEV not in desired.ruleset.tables


def test_the_wan_is_never_in_the_flowtable_without_its_guard() -> None:
    for mode in ("guarded", "outbound-only", "off"):
        for missing in ("", "meta_ipsec_netdev", "flowtable", "rt_ipsec", "concat_interval_sets"):
            tables = plan(router(policies(), without=missing), config(f"offload: {{mode: {mode}}}")).ruleset.tables
            hooked = tables[INET].flowtables["fast"].devices if INET in tables else frozenset()
            guards = {c.hook.device for c in tables[NETDEV].chains.values() if c.hook} if NETDEV in tables else set()
            assert "wan0" not in hooked or "wan0" in guards


def test_outbound_only_says_so() -> None:
    (path,) = plan(router(policies()), config("offload: {mode: outbound-only}")).paths
    assert str(path.rx) == "full path (inbound keeps to the full path: WAN not in devices, mode outbound-only)"


def test_interface_tunnel_needs_no_wan() -> None:
    desired = plan(router(policies("0.0.0.0/0", "0.0.0.0/0", if_id=42), links=(LAN, WAN, IPSEC)), config())
    (path,) = desired.paths
    assert path.tunnel.topology is Topology.INTERFACE
    assert path.tunnel.name == "ipsec0"
    assert path.tx.fast
    assert path.rx.fast
    assert desired.ruleset.tables[INET].flowtables["fast"].devices == {"lan0", "ipsec0"}


def test_interface_that_is_missing_or_down_is_a_reason() -> None:
    spd = policies(if_id=42)
    assert plan(router(spd), config()).reasons[0].code == "NO_INTERFACE"
    down = replace(IPSEC, up=False)
    assert plan(router(spd, links=(LAN, WAN, down)), config()).reasons[0].code == "INTERFACE_DOWN"


def test_underlay_in_another_netns() -> None:
    there = replace(IPSEC, underlay_netns=0)
    state = replace(router(links=(LAN, there)), underlay={"underlay": Spd((), policies(if_id=42))})
    (path,) = plan(state, config()).paths
    assert path.tunnel.topology is Topology.CROSS_NETNS
    assert path.tunnel.key.netns == "underlay"
    assert path.tx.fast
    assert path.rx.fast


def test_configured_names_and_offload() -> None:
    text = """
tunnels:
  berlin: {local: [10.1.0.0/16], remote: [10.2.0.0/16]}
  paris: {peer: 192.0.2.3, offload: false}
"""
    other = policies("10.1.0.0/16", "10.3.0.0/16", "192.0.2.3", reqid=2)
    berlin, paris = plan(router(policies(), other), config(text)).paths
    assert (berlin.tunnel.name, berlin.tx.fast) == ("berlin", True)
    assert (paris.tunnel.name, paris.tx.fast) == ("paris", False)
    assert paris.tx.reason is not None
    assert paris.tx.reason.code == "EXCLUDED"


def test_an_excluded_tunnel_is_guarded_but_not_fast() -> None:
    tables = plan(router(policies()), config("defaults: {offload: false}")).ruleset.tables
    assert tables[INET].sets["fast4"].elements == {}
    assert len(tables[NETDEV].sets["guarded4"].elements) == 1


def test_a_bypass_of_higher_priority_is_neither_guarded_nor_fast() -> None:
    tables = plan(router(policies(), bypass("10.1.5.0/24", "10.2.0.0/16")), config()).ruleset.tables
    for elements in (tables[INET].sets["fast4"].elements, tables[NETDEV].sets["guarded4"].elements):
        assert ("10.2.0.0/16", "10.1.5.0/24") not in elements
        assert ("10.2.0.0/16", "10.1.128.0/17") in elements


@pytest.mark.parametrize(
    ("spd", "code"),
    [
        (policies(proto=6), "SELECTOR_NOT_PREFIX"),
        (policies(mode=Mode.BEET), "MODE_NOT_ELIGIBLE"),
        (tuple(p._replace(mark=Mark(1, 0xFF)) for p in policies()), "SELECTOR_NOT_PREFIX"),
    ],
)
def test_what_a_flow_cannot_express_keeps_to_the_full_path(spd: tuple, code: str) -> None:
    desired = plan(router(spd), config())
    assert [reason.code for reason in desired.reasons] == [code]
    assert desired.ruleset.tables[INET].sets["fast4"].elements == {}


def test_no_lan_no_ruleset() -> None:
    desired = plan(router(policies(), links=(WAN,)), config())
    assert desired.ruleset.tables == {}
    assert {reason.code for reason in desired.reasons} == {"DEVICE_MISSING", "NO_LAN"}


TWO = (policies(), policies("10.1.0.0/16", "10.3.0.0/16", "192.0.2.3", reqid=2))


def inbound(peer: str, reqid: int, mark: Mark | None) -> SA:
    return make_sa(peer, US, spi=reqid, reqid=reqid, direction=Direction.IN)._replace(output_mark=mark)


def test_several_peers_that_nothing_tells_apart_keep_inbound_on_the_full_path() -> None:
    desired = plan(router(*TWO), config())
    assert [path.rx.fast for path in desired.paths] == [True, True]  # no SA yet: nobody can send
    state = replace(router(*TWO), sas=(inbound(PEER, 1, None), inbound("192.0.2.3", 2, None)))
    desired = plan(state, config())
    assert [(path.tx.fast, path.rx.fast) for path in desired.paths] == [(True, False)] * 2
    assert {reason.code for reason in desired.reasons} == {"PEERS_NOT_CONFINED"}
    assert desired.ruleset.tables[INET].flowtables["fast"].devices == {"lan0"}
    trusted = plan(state, config("offload: {trust_peers: true}"))
    assert [path.rx.fast for path in trusted.paths] == [True, True]


def test_marks_of_their_own_tell_peers_apart() -> None:
    sas = (inbound(PEER, 1, Mark(0x11, 0xFFFFFFFF)), inbound("192.0.2.3", 2, Mark(0x22, 0xFFFFFFFF)))
    desired = plan(replace(router(*TWO), sas=sas), config())
    assert [path.rx.fast for path in desired.paths] == [True, True]
    assert set(desired.ruleset.tables[NETDEV].sets["marked4"].elements) == {
        ("10.2.0.0/16", "10.1.0.0/16", "17"),
        ("10.3.0.0/16", "10.1.0.0/16", "34"),
    }
    shared = (sas[0], inbound("192.0.2.3", 2, Mark(0x11, 0xFFFFFFFF)))
    assert not plan(replace(router(*TWO), sas=shared), config()).paths[0].rx.fast


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ("exclude: {ports: [5060, 7000-7100]}", "th dport { 5060, 7000-7100 } counter name excluded_ports return"),
        ("exclude: {addresses: [10.1.0.5]}", "ip saddr @excluded4 counter name excluded_addresses return"),
        ("exclude: {marks: [0x10/0xff]}", "meta mark & 0xff == 0x10 counter name excluded_marks return"),
        ("exclude: {dscp: [ef]}", "ip6 dscp { 46 } counter name excluded_dscp return"),
        (
            "offload: {ports: [443]}",
            "meta l4proto { 6, 17 } ct original proto-dst != { 443 } counter name excluded_conditions return",
        ),
        (
            "offload: {marks: [1, 2]}",
            "meta mark & 0xffffffff != 0x1 meta mark & 0xffffffff != 0x2 counter name excluded_conditions return",
        ),
        ("offload: {zones: [3]}", "ct zone != { 3 } counter name excluded_conditions return"),
        ("offload: {after_packets: 20}", "ct packets < 20 counter name excluded_conditions return"),
        ("offload: {protocols: [tcp]}", "meta l4proto != { tcp } return"),
    ],
)
def test_filters_stand_before_what_adds_flows(more: str, rule: str) -> None:
    table = plan(router(policies()), config(more)).ruleset.tables[INET]
    rules = table.chains["to_flowtable"].rules
    assert {name for name in table.counters if name.startswith("excluded_")} == set(
        re.findall(r"excluded_[a-z]+", rule)
    )
    assert rules.index(rule) < next(at for at, each in enumerate(rules) if "flow add" in each)


def test_plain_connections_are_added_only_towards_the_wan_and_never_where_a_policy_protects() -> None:
    tables = plan(router(policies()), config("offload: {plain: true}")).ruleset.tables
    rules = [rule for rule in tables[INET].chains["to_flowtable"].rules if "flow add" in rule]
    assert rules[-1] == 'rt ipsec missing meta ipsec missing oifname { "wan0" } flow add @fast'
    assert not any(rule.startswith("rt ipsec missing") for rule in plan_rules(""))


def test_what_is_translated_into_a_tunnel_is_never_fast_in_the_clear() -> None:
    tables = plan(router(policies(dport_mask=0xFFFF, dport=80)), config("offload: {plain: true}")).ruleset.tables
    assert set(tables[INET].sets["protected4"].elements) == {("10.2.0.0/16", "10.1.0.0/16")}
    rules = tables[INET].chains["to_flowtable"].rules
    for way, other in (("original", "reply"), ("reply", "original")):
        rule = (
            f"rt ipsec missing meta ipsec missing ct status snat,dnat ct direction {way} "
            f"ct {other} ip saddr . ct {other} ip daddr @protected4 return"
        )
        assert rules.index(rule) < len(rules) - 1
    assert "protected4" not in plan(router(policies()), config()).ruleset.tables[INET].sets


def test_what_is_translated_is_not_fast_where_the_source_decides_which_tunnel_it_takes() -> None:
    rule = "rt ipsec exists ct direction original ct status snat return"
    beside = policies("10.9.0.0/16", "10.2.1.0/24", reqid=2)
    elsewhere = policies("10.1.0.0/16", "10.3.0.0/16", reqid=2)
    for more, there in ((beside, True), (elsewhere, False)):
        found = plan(router(policies(), more), config()).ruleset.tables[INET].chains["to_flowtable"].rules
        assert (rule in found) == there


def plan_rules(more: str) -> tuple[str, ...]:
    return plan(router(policies()), config(more)).ruleset.tables[INET].chains["to_flowtable"].rules


def test_a_tunnel_excluded_by_a_glob_is_guarded_but_not_fast() -> None:
    tables = plan(router(policies()), config("exclude: {tunnels: ['reqid-*']}")).ruleset.tables
    assert tables[INET].sets["fast4"].elements == {}
    assert len(tables[NETDEV].sets["guarded4"].elements) == 1


def test_only_known_peers_are_untracked() -> None:
    table = plan(router(policies()), config("notrack: true")).ruleset.tables[INET]
    assert set(table.sets["peers4"].elements) == {(PEER,)}
    rules = [rule for name in ("notrack_in", "notrack_out") for rule in table.chains[name].rules]
    assert len(rules) == 8
    assert all("@peers" in rule and "@own" in rule and rule.endswith(" notrack") for rule in rules)
    assert "notrack_in" not in plan(router(policies()), config()).ruleset.tables[INET].chains


def test_waiting_for_packets_that_nobody_counts_is_a_reason() -> None:
    state = replace(router(policies()), sysctls={"net.netfilter.nf_conntrack_acct": "0"})
    assert [reason.code for reason in plan(state, config("offload: {after_packets: 9}")).reasons] == ["NO_ACCOUNTING"]
    counted = replace(state, sysctls={"net.netfilter.nf_conntrack_acct": "1"})
    assert plan(counted, config("offload: {after_packets: 9}")).reasons == ()


def test_tunnel_that_the_config_names_and_nobody_asks_for_is_said_to_be_missing() -> None:
    named = "tunnels: {berlin: {reqid: 1}, gone: {reqid: 99}}"
    reasons = plan(router(policies()), config(named)).reasons
    assert [reason.object for reason in reasons if reason.code == "TUNNEL_MISSING"] == ["gone"]
    off = plan(router(policies()), config(named + "\noffload: {mode: 'off'}")).reasons
    assert [reason.object for reason in off if reason.code == "TUNNEL_MISSING"] == ["gone"]


@pytest.mark.parametrize("mode", ["precise", "sa", "off"])
def test_accounting_is_told_by_the_ruleset(mode: str) -> None:
    assert accounting(plan(router(policies()), config(f"accounting: '{mode}'")).ruleset) == mode
    assert accounting(Ruleset()) == "off"


def packet_offloaded(ifindex: int) -> tuple[SA, ...]:
    both = (make_sa(US, PEER, reqid=1), make_sa(PEER, US, reqid=1, direction=Direction.IN))
    return tuple(sa._replace(offload=Offload(ifindex, 4)) for sa in both)


def adding(desired: Desired) -> list[str]:
    """The rules that decide on a flow, up to the first that adds one."""
    rules = list(desired.ruleset.tables[INET].chains["to_flowtable"].rules)
    return rules[: next(at for at, rule in enumerate(rules) if "flow add" in rule)]


@pytest.mark.parametrize("more", ["", "offload: {plain: true}", "offload: {mode: outbound-only}"])
@pytest.mark.parametrize("offloaded", [True, False])
def test_no_flow_is_ever_added_by_a_packet_from_the_wan(more: str, offloaded: bool) -> None:
    """A packet that a NIC decrypted has no secpath any more, by which the kernel itself would refuse (6.2)."""
    state = router(policies())
    state = replace(state, sas=packet_offloaded(WAN.ifindex)) if offloaded else state
    rules = adding(plan(state, config(more)))
    assert 'iifname != { "lan0" } return' in rules


def test_what_a_nic_decrypts_is_counted_without_its_secpath() -> None:
    forward = (
        plan(replace(router(policies()), sas=packet_offloaded(2)), config()).ruleset.tables[INET].chains["forward"]
    )
    assert 'iifname { "wan0" } meta ipsec missing jump count_in' in forward.rules
    forward = plan(router(policies()), config()).ruleset.tables[INET].chains["forward"]
    assert not any("meta ipsec missing" in rule for rule in forward.rules)


def test_a_device_that_decrypts_packets_is_no_lan_device() -> None:
    """Named so by a glob, it would have decrypted packets add flows."""
    other = replace(LAN, ifindex=9, name="lan9", addresses=())
    state = replace(router(policies(), links=(LAN, WAN, other)), sas=packet_offloaded(9))
    wanted = parse("devices: {lan: ['lan*'], wan: [wan0]}\n", "glob.yaml").config
    desired = plan(state, wanted)
    assert 'iifname != { "lan0" } return' in adding(desired)
    assert desired.ruleset.tables[INET].flowtables["fast"].devices == {"lan0", "wan0"}
    assert ("PACKET_OFFLOAD_LAN", "lan9") in [(reason.code, reason.object) for reason in desired.reasons]


def test_no_flow_whose_esp_leaves_by_a_lan_device() -> None:
    """It comes back there, too, and no guard stands in front of a LAN device."""
    wanted = parse("devices: {lan: ['*0'], wan: ['uplink*']}\n", "glob.yaml").config
    desired = plan(router(policies()), wanted)
    assert 'rt ipsec exists oifname { "lan0", "wan0" } return' in adding(desired)
    (path,) = desired.paths
    assert path.tx.reason is not None
    assert path.tx.reason.code == "WAN_IS_LAN"


NO_FIB = Reason("NO_FIB_OIF", "kernel", "cannot be told", "module nft_fib_inet")


def test_plaintext_of_a_connection_through_an_interface_is_dropped_on_the_wan() -> None:
    state = router(policies("0.0.0.0/0", "0.0.0.0/0", if_id=42), links=(LAN, WAN, IPSEC))
    table = plan(state, config()).ruleset.tables[INET]
    first = table.chains["forward"].rules[0]
    assert first == (
        'iifname "wan0" meta ipsec missing ct state established fib saddr oifname { "ipsec0" } '
        "counter name guard_wan0 drop"
    )
    assert "guard_wan0" in table.counters
    # A kernel that cannot tell lets it in, as it does without flowfast, and everything else goes on.
    missing = replace(state, features={**state.features, "fib_oif": Feature("fib_oif", False, NO_FIB)})
    desired = plan(missing, config())
    assert not any("fib saddr" in rule for rule in desired.ruleset.tables[INET].chains["forward"].rules)
    assert desired.reasons == (NO_FIB,)
    # Policies without an if_id say for themselves what they want encrypted.
    assert "guard_wan0" not in plan(router(policies()), config()).ruleset.tables[INET].counters
