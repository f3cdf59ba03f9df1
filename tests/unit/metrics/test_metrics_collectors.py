"""What each collector makes of a snapshot, beyond what the golden page shows."""

from collections.abc import Iterable
from dataclasses import replace

from prometheus_client import Metric

from flowfast.metrics.collectors import guard, tunnels
from flowfast.metrics.collectors.flows import Flows
from flowfast.metrics.collectors.sas import Sas
from flowfast.metrics.paths import PathBytes
from flowfast.model.sa import Mode
from flowfast.model.state import Flow
from flowfast.model.tunnel import Topology, Tunnel, TunnelKey
from tests.unit.metrics.world import PEER, US, counters, flow, sa, snapshot, totals, tunnel

BERLIN = tunnel("berlin", (), (), ("10.1.0.0/16", "10.2.0.0/16"), ("fd01::/48", "fd02::/48"))
WIDE = tunnel("wide", (), (), ("0.0.0.0/0", "0.0.0.0/0"), key=TunnelKey(2, 7, US, PEER),
              topology=Topology.INTERFACE, interface="ipsec0")  # fmt: skip


def values(families: Iterable[Metric], name: str) -> dict[tuple[str, ...], float]:
    """Samples of one metric by their label values."""
    return {tuple(s.labels.values()): s.value for family in families for s in family.samples if s.name == name}


def flows(those: Iterable[Tunnel], *found: Flow) -> dict[tuple[str, ...], float]:
    return values(Flows().collect(snapshot(*those, flows=found)), "flowfast_flows")


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
