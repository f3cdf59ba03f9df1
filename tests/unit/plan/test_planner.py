"""Which path a tunnel takes in each topology and mode, and the reason where it is the full one."""

from dataclasses import replace

import pytest

from flowfast.model.sa import Mark, Mode
from flowfast.model.state import Spd
from flowfast.model.tunnel import Topology
from flowfast.plan.planner import plan
from flowfast.plan.ruleset import INET, NETDEV
from tests.unit.plan.router import IPSEC, LAN, WAN, bypass, config, policies, router


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
