"""The lab itself, in the guest: every topology on every wire carries traffic through ESP and nothing beside it."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from flowfast.lab import iperf
from flowfast.lab.capture import capture
from flowfast.lab.hub import hub_and_spokes
from flowfast.lab.ike import hub_daemons, two_daemons
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import LabError, Netns
from flowfast.lab.pktgen import Load, pktgen
from flowfast.lab.topology import BOTH, Family, Kind, TwoGateways, two_gateways
from flowfast.lab.traffic import UdpFlow, checksum_errors, tcp_transfer, udp_echo, udp_stream
from flowfast.lab.wires import WireKind, nic_pairs

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3), pytest.mark.long]

KINDS: tuple[Kind, ...] = ("policy", "xfrmi", "cross-netns")


def sa_packets(ns: Netns) -> list[int]:
    """Packets of every SA of a namespace."""
    listing = ns.run(["ip", "-s", "xfrm", "state"]).stdout
    return [int(packets) for packets in re.findall(r"\d+\(bytes\), (\d+)\(packets\)", listing)]


@pytest.mark.parametrize(("wire", "outer"), [("veth", 4), ("nic", 4), ("nic", 6)])
@pytest.mark.parametrize("kind", KINDS)
def test_both_families_go_through_esp_and_nothing_beside_it(kind: Kind, wire: WireKind, outer: Family) -> None:
    with two_gateways(kind, wire) as topology:
        manual_keys(topology, outer)
        with capture(*topology.wan) as seen:
            for family in BOTH:
                assert udp_echo(topology.h1, topology.h2, topology.host_address(2, family), packets=20).intact
        assert sa_packets(topology.underlay1) == [40, 40]
        assert seen.total >= 80
        assert seen.within(*topology.protected) == []
        assert topology.devices == (("lan0", "wan0") if kind == "policy" else ("lan0", "ipsec0"))


def test_the_capture_sees_what_is_not_encrypted() -> None:
    with two_gateways("policy") as topology, capture(*topology.wan) as seen:
        for family in BOTH:
            assert udp_echo(topology.h1, topology.h2, topology.host_address(2, family), packets=10).intact
    leaks = seen.within(*topology.protected)
    assert len(leaks) == 40
    assert {packet.source for packet in leaks} == {topology.host_address(s, f) for s in (1, 2) for f in BOTH}


def test_each_of_several_tunnels_carries_its_own_traffic() -> None:
    with two_gateways("xfrmi", tunnels=3, hosts=2) as topology:
        manual_keys(topology)
        for number in range(3):
            address = topology.host_address(2, 4, host=3, tunnel=number)
            assert udp_echo(topology.h1, topology.h2, address, packets=number + 1).intact
        assert sorted(sa_packets(topology.gw1)) == [1, 1, 2, 2, 3, 3]


@pytest.mark.guest(images=["debian14", "debian13", "debian12"])
@pytest.mark.parametrize("kind", KINDS)
def test_strongswan_brings_tunnels_up_rekeys_them_and_takes_them_down(kind: Kind) -> None:
    with two_gateways(kind, "nic") as topology, two_daemons(topology) as (ike, peer):
        (first,) = ike.list_sas()
        assert (first.name, first.state, first.if_id_in) == ("net0", "INSTALLED", topology.tunnels[0].if_id)
        assert [sa.spi_out for sa in peer.list_sas()] == [first.spi_in]
        for family in BOTH:
            assert udp_echo(topology.h1, topology.h2, topology.host_address(2, family), packets=10).intact
        ike.rekey("net0")
        second = ike.wait_rekeyed("net0", {first.spi_in})
        assert udp_echo(topology.h1, topology.h2, topology.host_address(2, 4), packets=10).intact
        assert second.spi_out != first.spi_out
        states = topology.underlay1.run(["ip", "xfrm", "state"]).stdout
        assert "rfc4106(gcm(aes))" in states
        assert "esn" in states
        ike.terminate("net0")
        assert ike.list_sas() == []


def test_strongswan_waits_for_traffic_and_encapsulates() -> None:
    with (
        two_gateways("policy") as topology,
        two_daemons(topology, encap=True, initiate=False, start_action="trap") as (
            ike,
            _,
        ),
    ):
        assert ike.list_sas() == []
        topology.ping(4, count=10)
        (sa,) = ike.list_sas()
        assert sa.encap
        assert "encap type espinudp" in topology.gw1.run(["ip", "xfrm", "state"]).stdout


def test_strongswan_keeps_an_sa_for_each_cpu() -> None:
    with two_gateways("policy") as topology, two_daemons(topology, per_cpu_sas="yes", start_action="trap") as (ike, _):
        # What is sent until the CPU's SA is there is lost, although there is one for all CPUs (kernel 7.2).
        topology.ping(4, count=10)
        assert {sa.cpu for sa in ike.list_sas()} == {None, 0}
        assert udp_echo(topology.h1, topology.h2, topology.host_address(2, 4), packets=50, rate=100).intact


def test_what_strongswan_cannot_do_is_told_with_its_log() -> None:
    with two_gateways("policy") as topology, two_daemons(topology, initiate=False) as (ike, _):
        with pytest.raises(LabError, match=r"strongSwan in gw1: swanctl --initiate --child nonesuch") as caught:
            ike.initiate("nonesuch")
        assert "its log said" in str(caught.value)


@pytest.mark.parametrize("kind", ["policy", "xfrmi"])
def test_spokes_reach_the_hub_and_each_other(kind: Kind) -> None:
    with hub_and_spokes(2, kind) as topology, hub_daemons(topology) as (hub, _spokes):
        one, other = topology.spokes
        for family in BOTH:
            assert udp_echo(one, other, topology.spoke_address(1, family), packets=10).intact
            assert udp_echo(topology.h0, one, topology.spoke_address(0, family), packets=5).intact
        assert sorted((sa.packets_in, sa.packets_out) for sa in hub.list_sas()) == [(20, 20), (30, 30)]


def test_a_hub_with_one_spoke_on_nics() -> None:
    with hub_and_spokes(1, "policy", "nic") as topology:
        manual_keys(topology)
        for family in BOTH:
            assert udp_echo(topology.h0, topology.spokes[0], topology.spoke_address(0, family), packets=10).intact


@pytest.mark.parametrize("family", BOTH)
def test_every_kind_of_traffic_arrives_and_is_counted(family: Family) -> None:
    with two_gateways("policy", "nic") as topology:
        manual_keys(topology)
        h1, h2, address = topology.h1, topology.h2, topology.host_address(2, family)
        transfer = tcp_transfer(h1, h2, address, 1 << 20)
        assert transfer.intact
        assert transfer.received == 1 << 20
        assert udp_stream(h1, h2, address, packets=300, size=1200, rate=1000).intact
        with UdpFlow(h1, h2, address, rate=200) as flow:
            assert iperf.iperf3(h1, h2, address, size=1 << 19).bytes == 1 << 19
            assert flow.stop().received > 20
        datagrams = iperf.iperf3(h1, h2, address, seconds=1, udp=True, bitrate="1M", length=1000, reverse=True)
        assert datagrams.packets is not None
        assert datagrams.packets > 50
        before = sa_packets(topology.gw1)
        mac = topology.gw1.read("/sys/class/net/lan0/address")
        flows = {"flows": 4, "burst": 8} if family == 4 else {}
        result = pktgen(h1, Load(topology.host_address(1, family), address, mac, 200, **flows))
        assert (result.packets, result.errors) == (200, 0)
        assert max(b - a for a, b in zip(before, sa_packets(topology.gw1), strict=True)) == 200
        for host in (h1, h2):
            assert not any(checksum_errors(host).values())


def lose_every_tenth(topology: TwoGateways) -> None:
    """Has gw1 drop one in ten of the UDP packets that it forwards."""
    rules = "table inet t { chain c { type filter hook forward priority 0; udp dport 7 numgen inc mod 10 0 drop; }; }"
    topology.gw1.run(["nft", "-f", "-"], stdin=rules)


def test_lost_packets_are_counted() -> None:
    with two_gateways("policy") as topology:
        lose_every_tenth(topology)
        result = udp_stream(topology.h1, topology.h2, topology.host_address(2, 4), packets=100)
        assert (result.sent, result.received, result.lost, result.corrupt) == (100, 90, 10, 0)


def test_bad_checksums_are_counted() -> None:
    with two_gateways("policy") as topology:
        # Changes the payload behind the checksum's back.
        rules = "table inet t { chain c { type filter hook forward priority 0; udp dport 7 @th,160,8 set 1; }; }"
        topology.gw2.run(["nft", "-f", "-"], stdin=rules)
        topology.gw2.run(["ethtool", "-K", "wan0", "rx", "off"], check=False)
        topology.h1.run(["ethtool", "-K", "e0", "tx", "off"])
        udp_stream(topology.h1, topology.h2, topology.host_address(2, 4), packets=20, size=64)
        arrived = checksum_errors(topology.h2)["Udp"]
        assert arrived == 20


def test_nics_come_back_as_new() -> None:
    before = nic_pairs()
    with two_gateways("policy", "nic") as topology:
        topology.gw1.run(["ethtool", "-K", "lan0", "gro", "off"])
        topology.gw1.write("/sys/class/net/lan0/gro_flush_timeout", "200000")
        assert nic_pairs().keys() == before.keys() - {0, 1, 2}
    assert nic_pairs().keys() == before.keys()
    lan = nic_pairs()[0][2]
    assert Path(f"/sys/class/net/{lan}/gro_flush_timeout").read_text().strip() == "0"
    features = subprocess.run(["ethtool", "-k", lan], capture_output=True, text=True, check=True).stdout
    assert "generic-receive-offload: on" in features


def test_too_few_nics_are_told() -> None:
    too_few = pytest.raises(LabError, match=r"no pair of NICs is left .* \(give the guest more --nics\)")
    with too_few, hub_and_spokes(3, "policy", "nic"):
        raise AssertionError("three spokes want five pairs")
    assert len(nic_pairs()) == 3


def test_a_namespace_takes_its_processes_with_it() -> None:
    with Netns("short") as ns:
        process = ns.popen(["sleep", "60"])
        assert ns.call(os.getpid) not in (os.getpid(), process.pid)
        with pytest.raises(LabError, match=r"short: false: exit code 1"):
            ns.run(["false"])
        with pytest.raises(ZeroDivisionError):
            ns.call(divmod, 1, 0)
        assert ns.run(["ip", "-br", "link"]).stdout.split()[0] == "lo"
    assert process.wait(10) == -9
    assert not Path("/run/netns/short").exists()


def test_the_modules_that_debian_leaves_out_are_there() -> None:
    for module in ("netdevsim", "xfrm_iptfs"):
        subprocess.run(["modprobe", module], check=True)


@pytest.mark.guest(images=["debian14", "debian13", "debian13-bpo", "debian12"])
def test_a_guest_has_its_tools_and_a_stock_kernel(image: str) -> None:
    kernels = {"debian14": "+deb14-amd64", "debian13": "6.12.", "debian13-bpo": "+deb13-amd64", "debian12": "6.1.0-"}
    assert kernels[image] in os.uname().release
    for program in ("nft", "ip", "conntrack", "ethtool", "iperf3", "tcpdump", "perf", "swanctl", "flowfast"):
        assert subprocess.run(["which", program], capture_output=True, check=False).returncode == 0, program
    assert Path("/src/pyproject.toml").is_file()
