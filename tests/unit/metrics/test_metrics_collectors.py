"""What each collector makes of a snapshot, beyond what the golden page shows."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from prometheus_client import Metric

from flowfast.metrics.collectors import guard, lifetimes, tunnels, xfrm
from flowfast.metrics.collectors.flows import Flows
from flowfast.metrics.collectors.sas import Sas
from flowfast.metrics.paths import PathBytes
from flowfast.model.reason import Reason
from flowfast.model.sa import Lifetime, Mode, Replay
from flowfast.model.state import Flow, Spd
from flowfast.model.tunnel import Topology, Tunnel, TunnelKey
from tests.unit.metrics.world import PEER, US, counters, flow, sa, snapshot, totals, tunnel

BERLIN = tunnel("berlin", (), (), ("10.1.0.0/16", "10.2.0.0/16"), ("fd01::/48", "fd02::/48"))
WIDE = tunnel("wide", (), (), ("0.0.0.0/0", "0.0.0.0/0"), key=TunnelKey(2, 7, US, PEER),
              topology=Topology.INTERFACE, interface="ipsec0")  # fmt: skip


def values(families: Iterable[Metric], name: str) -> dict[tuple[str, ...], float]:
    """Samples of one metric by their label values."""
    return {tuple(s.labels.values()): s.value for family in families for s in family.samples if s.name == name}


def flows(those: Iterable[Tunnel], *found: Flow) -> dict[tuple[str, ...], float]:
    fast, slow = (tuple(one for one in found if one.offloaded is which) for which in (True, False))
    return values(Flows().collect(snapshot(*those, flows=fast, slow_flows=slow or None)), "flowfast_flows")


def test_flows_are_told_by_their_inner_addresses_in_both_directions_and_families() -> None:
    assert flows(
        [BERLIN],
        flow("10.1.0.5", "10.2.0.9"),
        flow("10.2.0.9", "10.1.0.5"),
        flow("fd01::5", "fd02::9", hardware=True),
        flow("10.1.0.6", "10.2.0.9", offloaded=False),
        flow("10.1.0.7", "10.2.0.9", offloaded=False, established=False),
        flow("10.1.0.5", "10.3.0.9"),
    ) == {
        ("berlin", "offloaded"): 2, ("berlin", "hardware"): 1, ("berlin", "full"): 1,
        ("", "offloaded"): 1, ("", "hardware"): 0, ("", "full"): 0,
    }  # fmt: skip


def test_flows_behind_nat_are_told_by_what_the_tunnel_sees() -> None:
    source = flow("192.168.7.5", "10.2.0.9", reply_dst="10.1.0.1")  # masqueraded into the tunnel
    target = flow("10.2.0.9", "10.1.0.1", reply_src="192.168.7.5")  # a port forwarding out of it
    assert flows([BERLIN], source, target)["berlin", "offloaded"] == 2


def test_flow_from_tunnel_to_tunnel_belongs_to_both() -> None:
    spoke = tunnel("spoke", (), (), ("10.0.0.0/8", "10.9.0.0/16"))
    hub = tunnel("hub", (), (), ("10.9.0.0/16", "10.2.0.0/16"))
    found = flows([hub, spoke], flow("10.2.0.9", "10.9.0.5"))
    assert (found["hub", "offloaded"], found["spoke", "offloaded"], found["", "offloaded"]) == (1, 1, 0)


def test_most_specific_selectors_win_in_whatever_order_they_come() -> None:
    all_of_it = tunnel("all", (), (), ("10.1.0.0/16", "0.0.0.0/0"))
    for order in ([all_of_it, BERLIN], [BERLIN, all_of_it]):
        found = flows(order, flow("10.1.0.5", "10.2.0.9"), flow("10.1.0.5", "198.51.100.7"))
        assert (found["berlin", "offloaded"], found["all", "offloaded"]) == (1, 1)


def test_interface_with_selectors_from_anywhere_to_anywhere_is_not_told_and_not_zero() -> None:
    found = flows([WIDE], flow("10.1.0.5", "10.2.0.9"))
    assert found == {("", "offloaded"): 1, ("", "hardware"): 0}


def test_flows_on_the_full_path_are_absent_where_only_offloaded_ones_were_asked_for() -> None:
    assert ("berlin", "full") not in flows([BERLIN], flow("10.1.0.5", "10.2.0.9"))


def test_no_flows_at_all_where_conntrack_did_not_answer() -> None:
    assert list(Flows().collect(snapshot(BERLIN, flows=None))) == []
    assert flows([BERLIN])["berlin", "offloaded"] == 0


def test_flows_follow_selectors_that_change() -> None:
    collector = Flows()
    for remote, expected in (("10.2.0.0/16", 1), ("10.3.0.0/16", 0), ("10.2.0.0/16", 1)):
        moving = tunnel("t", (), (), ("10.1.0.0/16", remote))
        found = collector.collect(snapshot(moving, flows=(flow("10.1.0.5", "10.2.0.9"),)))
        assert values(found, "flowfast_flows")["t", "offloaded"] == expected


def test_sas_beyond_the_limit_are_the_least_busy_and_are_counted() -> None:
    busy = tunnel("t", [sa(spi, 100 * spi, spi) for spi in range(1, 6)])
    families = list(Sas(2).collect(snapshot(busy)))
    assert values(families, "flowfast_sa_bytes_total") == {
        ("t", "out", "0x00000005", "", "none"): 500,
        ("t", "out", "0x00000004", "", "none"): 400,
    }
    assert values(families, "flowfast_sa_series_left_out") == {(): 3}


def test_esp_and_ah_under_one_spi_do_not_make_a_series_twice() -> None:
    both = tunnel("t", [sa(1, 500, 5), sa(1, 400, 5, proto=51)])
    families = list(Sas().collect(snapshot(both)))
    assert [len(family.samples) for family in families if family.name == "flowfast_sa_bytes"] == [1]
    assert values(families, "flowfast_sa_series_left_out") == {(): 1}


def test_sa_bytes_are_inner_bytes_in_transport_mode_too() -> None:
    families = Sas().collect(snapshot(tunnel("t", [sa(1, 1080, 10, mode=Mode.TRANSPORT)])))
    assert values(families, "flowfast_sa_bytes_total") == {("t", "out", "0x00000001", "", "none"): 1280}


def test_bytes_by_path_and_packets_of_a_tunnel() -> None:
    now = snapshot(
        tunnel(), full_path=counters(out_t=40), before_flowtable=counters(out_t=1000), totals=totals(out=7000)
    )
    families = list(tunnels.collect(replace(now, by_path=PathBytes().update(now))))
    assert values(families, "flowfast_tunnel_bytes_total") == {
        ("t", "out", "flowtable"): 960,
        ("t", "out", "l3"): 40,
    }
    assert values(families, "flowfast_tunnel_packets_total") == {("t", "out"): 7}


def test_guard_names_the_device_also_where_it_is_gone() -> None:
    found = guard.collect(snapshot(before_flowtable=counters(guard_gone0=5000, out_t=1000)))
    assert values(found, "flowfast_guard_dropped_packets_total") == {("gone0",): 5}


def test_tunnel_is_up_with_sas_both_ways_and_down_also_where_nobody_asks_for_it() -> None:
    hidden = tunnel("hidden", key=TunnelKey(0, 9, "", ""), topology=Topology.CROSS_NETNS)
    now = snapshot(tunnel("up", [sa(1)], [sa(2)]), tunnel("half", [sa(3)]), hidden)
    gone = Reason("TUNNEL_MISSING", "gone", "no policy asks for it")
    now = replace(now, desired=replace(now.desired, reasons=(gone,)))
    assert values(tunnels.collect(now), "flowfast_tunnel_up") == {("up",): 1, ("half",): 0, ("gone",): 0}


def test_lifetimes_are_the_newest_sas_and_sequence_numbers_the_fullest_ones() -> None:
    old = sa(1, 900, 9, added=1000, replay=Replay(2**31, 0, 0, False), lifetime=Lifetime(hard_add_seconds=60))
    limits = Lifetime(hard_add_seconds=100, hard_bytes=4000, hard_packets=20)
    new = sa(2, 1000, 5, added=1050, lifetime=limits)
    endless = sa(3, src=PEER, dst=US, replay=Replay(0, 2**63, 128, True))
    families = list(lifetimes.collect(snapshot(tunnel("t", [old, new], [endless]))))
    assert values(families, "flowfast_tunnel_sequence_ratio") == {
        ("t", "out"): pytest.approx(0.5), ("t", "in"): pytest.approx(0.5),
    }  # fmt: skip
    assert values(families, "flowfast_tunnel_expiry_timestamp_seconds") == {("t", "out"): 1150}
    assert values(families, "flowfast_tunnel_lifetime_ratio") == {
        ("t", "out", "bytes"): 0.25, ("t", "out", "packets"): 0.25,
    }  # fmt: skip


def test_sas_that_no_policy_asks_for_are_orphans_and_placeholders_are_not() -> None:
    ours, orphan, larval = sa(1), sa(2, reqid=9), sa(0, algorithm=None)
    here = snapshot(tunnel("t", [ours]))
    there = tunnel("u", [sa(7)], key=TunnelKey(1, 5, US, PEER, "underlay"))
    now = replace(
        snapshot(tunnel("t", [ours]), there),
        state=replace(here.state, sas=(ours, orphan, larval), underlay={"underlay": Spd((sa(7), sa(8)), ())}),
    )
    assert values(xfrm.collect(now), "flowfast_xfrm_states") == {
        ("", "tunnel"): 1, ("", "larval"): 1, ("", "orphan"): 1,
        ("underlay", "tunnel"): 1, ("underlay", "larval"): 0, ("underlay", "orphan"): 1,
    }  # fmt: skip


def test_xfrm_errors_have_the_kernels_names_whatever_they_are() -> None:
    now = snapshot(xfrm_errors={"": {"XfrmInNoStates": 3, "XfrmBrandNew": 1}, "underlay": {"XfrmInError": 2}})
    assert values(xfrm.collect(now), "flowfast_xfrm_errors_total") == {
        ("", "XfrmInNoStates"): 3, ("", "XfrmBrandNew"): 1, ("underlay", "XfrmInError"): 2,
    }  # fmt: skip


def test_sas_with_a_limit_of_time_say_when_they_end() -> None:
    families = Sas().collect(snapshot(tunnel("t", [sa(1, added=500, lifetime=Lifetime(hard_add_seconds=60)), sa(2)])))
    expiry = values(families, "flowfast_sa_expiry_timestamp_seconds")
    assert expiry == {("t", "out", "0x00000001", "", "none"): 560}


def test_packets_of_an_sa_are_those_on_the_wire() -> None:
    segmented = sa(1, 64_000, 1, replay=Replay(45, 0, 0, True))
    families = Sas().collect(snapshot(tunnel("t", [segmented])))
    assert values(families, "flowfast_sa_packets_total") == {("t", "out", "0x00000001", "", "none"): 45}
