"""The main job, as a user would see it: strongSwan's tunnels, real NICs, `flowfast run` on a gateway.

Policy-based and through xfrm interfaces, IPv4 and IPv6, both directions: what is sent arrives whole, and over the
flowtable; a rekey, a crash and a restart of the controller disturb nothing.
"""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowfast.lab.ike import Daemon, two_daemons
from flowfast.lab.topology import Family, TwoGateways, two_gateways
from flowfast.lab.traffic import UdpFlow, checksum_errors, tcp_transfer, udp_echo
from tests.guest.router import Router, router_samples

pytestmark = pytest.mark.guest(images=["debian14", "debian13"], nics=3)

CONFIG = """
devices: {lan: [lan0], wan: [wan0]}
exporter: {per_sa: true}
"""
PACKETS = 1500
TCP_BYTES = 3_000_000
FAMILIES: tuple[Family, ...] = (4, 6)


@dataclass
class Site:
    topo: TwoGateways
    ike: Daemon
    peer: Daemon
    router: Router
    lost_on_full_path: int

    def ways(self, family: Family) -> list[tuple]:
        """(client, server, server's address) of both directions."""
        h1, h2 = self.topo.h1, self.topo.h2
        return [(h1, h2, self.topo.host_address(2, family)), (h2, h1, self.topo.host_address(1, family))]


def rekey_under_load(topo: TwoGateways, ike: Daemon) -> int:
    """Packets lost of a flow in both directions, while its tunnel is rekeyed."""
    (child,) = {sa.name for sa in ike.list_sas()}
    before = {sa.spi_in for sa in ike.list_sas()}
    with UdpFlow(topo.h1, topo.h2, topo.host_address(2, 4), rate=200) as flow:
        time.sleep(1)
        ike.rekey(child)
        ike.wait_rekeyed(child, before)
        time.sleep(1)
        result = flow.stop()
    assert result.corrupt == result.duplicate == 0
    return result.lost


@pytest.fixture(scope="module", params=["policy", "xfrmi"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with two_gateways(request.param, wire="nic") as topo, two_daemons(topo) as (ike, peer):
        assert topo.ping(4)
        assert topo.ping(6)
        lost = rekey_under_load(topo, ike)
        topo.gw1.run(["nft", "-f", "-"], stdin=FIREWALL)
        with Router(topo.gw1, CONFIG, tmp_path_factory.mktemp("flowfast")) as router:
            yield Site(topo, ike, peer, router, lost)


FIREWALL = """
table inet operator {
  set blocked { type inet_service; elements = { 1 } }
  chain forward { type filter hook forward priority filter; policy accept;
    ct state established,related accept
    udp dport @blocked drop
  }
}
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_sent_arrives_whole_and_over_the_flowtable(site: Site, family: Family) -> None:
    hosts = (site.topo.h1, site.topo.h2)
    wrong = [checksum_errors(host) for host in hosts]
    (tunnel_sas,) = [sas_of(site)]
    before, carried = site.router.full_path_packets(), tunnel_sas
    for client, server, address in site.ways(family):
        udp = udp_echo(client, server, address, packets=PACKETS, rate=400, size=400)
        assert udp.intact, udp
        tcp = tcp_transfer(client, server, address, TCP_BYTES)
        assert tcp.intact, tcp
    seen = site.router.full_path_packets() - before
    went = sas_of(site) - carried
    assert went > 4 * PACKETS + 2 * (TCP_BYTES // 1500)
    assert seen < went / 100, f"the forward chain saw {seen} of {went} packets"
    assert [checksum_errors(host) for host in hosts] == wrong


def sas_of(site: Site) -> int:
    """Packets that the SAs of gw1 have counted, in and out."""
    return sum(sa.packets_in + sa.packets_out for sa in site.ike.list_sas())


def test_conntrack_says_offload_in_both_families(site: Site) -> None:
    for family in FAMILIES:
        client, server, address = site.ways(family)[0]
        assert udp_echo(client, server, address, packets=50, rate=200, source_port=4000 + family).intact
        assert any(f"sport={4000 + family} " in line for line in site.router.offloaded())


def test_metrics_show_the_paths_and_the_sas(site: Site) -> None:
    client, server, address = site.ways(4)[0]
    assert udp_echo(client, server, address, packets=500, rate=500, size=1000).intact
    time.sleep(11)  # the exporter serves the controller's last look, every ten seconds
    (out,) = {sa.spi_out for sa in site.ike.list_sas()}
    samples = router_samples(site.router.metrics())
    bytes_by = {
        path: value
        for name, value in samples.items()
        for path in ("flowtable", "l3")
        if name.startswith("flowfast_tunnel_bytes_total") and 'direction="out"' in name and f'path="{path}"' in name
    }
    assert bytes_by["flowtable"] > 450 * 1028
    assert bytes_by["l3"] < bytes_by["flowtable"] / 20
    assert any(name.startswith("flowfast_sa_bytes_total") and f"{out:08x}" in name for name in samples)
    assert samples['flowfast_feature{name="flowtable"}'] == 1


def test_a_rekey_under_load_loses_no_more_than_on_the_full_path(site: Site) -> None:
    lost = rekey_under_load(site.topo, site.ike)
    assert lost <= site.lost_on_full_path
    # and the flow is fast again on the new SA
    before = site.router.full_path_packets()
    client, server, address = site.ways(4)[0]
    assert udp_echo(client, server, address, packets=500, rate=500).intact
    assert site.router.full_path_packets() - before < 20


def test_kill_and_restart_disturb_nothing(site: Site) -> None:
    rules = site.router.rules()
    with UdpFlow(site.topo.h1, site.topo.h2, site.topo.host_address(2, 6), rate=100, source_port=4500 + 6) as flow:
        time.sleep(1)
        assert any("sport=4506 " in line for line in site.router.offloaded())
        before = site.router.full_path_packets()
        site.router.stop(signal.SIGKILL)
        time.sleep(1)
        site.router.start()
        result = flow.stop()
        assert any("sport=4506 " in line for line in site.router.offloaded())
    assert result.intact, result
    assert site.router.full_path_packets() - before < 4
    assert site.router.rules() == rules


def test_the_operators_drop_rule_stops_a_flow_that_is_fast(site: Site) -> None:
    address = site.topo.host_address(2, 4)
    with UdpFlow(site.topo.h1, site.topo.h2, address, rate=100, port=77) as flow:
        time.sleep(1.5)
        assert any("dport=77 " in line for line in site.router.offloaded())
        site.router.nft("insert", "rule", "inet", "operator", "forward", "udp", "dport", "77", "drop")
        time.sleep(1)
        blocked = udp_dropped(site)
        time.sleep(1)
        assert udp_dropped(site) > blocked
        result = flow.stop()
    site.router.ns.run(["nft", "-f", "-"], stdin="delete table inet operator\n" + FIREWALL)
    # Of some 350 packets those of the last two seconds are gone.
    assert result.lost > 150, result


def udp_dropped(site: Site) -> int:
    """Packets that h1 sent and gw1 took in, so that a stalled sender is not taken for a blocked flow."""
    return int(site.router.ns.read("/sys/class/net/lan0/statistics/rx_packets"))


def test_status_and_plan_agree_with_the_kernel(site: Site) -> None:
    assert site.router.flowfast("plan", str(site.router.config), "--detailed-exitcode", check=False).returncode == 0
    status = site.router.flowfast("status", str(site.router.config)).stdout
    assert "applied; flowtable on" in status
    assert "full path" not in status


def test_a_second_controller_is_refused(site: Site) -> None:
    second = site.router.flowfast("run", str(site.router.config), check=False)
    assert second.returncode == 1
    assert second.stderr.startswith(f"flowfast is running here already (process {site.router.process.pid})")


@pytest.mark.changes_foreign
def test_flush_ruleset_by_the_operator_is_repaired(site: Site) -> None:
    site.router.nft("flush", "ruleset")
    deadline = time.monotonic() + 20
    while "flowtable fast" not in site.router.nft("list", "ruleset"):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    site.router.ns.run(["nft", "-f", "-"], stdin=FIREWALL)
    client, server, address = site.ways(4)[0]
    assert udp_echo(client, server, address, packets=300, rate=300).intact
    assert site.router.counters()


def test_foreign_tables_are_as_the_operator_wrote_them(site: Site, tmp_path: Path) -> None:
    before = site.router.nft("-s", "list", "table", "inet", "operator")
    site.router.stop()
    removed = site.router.flowfast("apply", "--remove").stdout
    assert "all traffic is on the full path" in removed
    assert "flowfast" not in site.router.nft("list", "ruleset")
    assert site.router.nft("-s", "list", "table", "inet", "operator") == before
    site.router.start()
    assert site.router.nft("-s", "list", "table", "inet", "operator") == before
