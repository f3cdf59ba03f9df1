"""explain, show and top on a real router with strongSwan's tunnels: do they say what the kernel does?"""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from flowfast.lab.ike import ChildSa, Daemon, two_daemons
from flowfast.lab.topology import Family, TwoGateways, two_gateways
from flowfast.lab.traffic import UdpFlow, tcp_transfer, udp_echo, udp_stream
from tests.guest.router import COMMAND, START, Router

pytestmark = [pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=3), pytest.mark.long]

CONFIG = """
devices: {lan: [lan0], wan: [wan0]}
exclude: {ports: [7777]}
"""
HELPER = """
table inet helping {
  ct helper ftp { type "ftp" protocol tcp; }
  chain prerouting { type filter hook prerouting priority 0; tcp dport 2121 ct helper set "ftp"; }
}
"""


@dataclass
class Site:
    topo: TwoGateways
    ike: Daemon
    router: Router

    def sa(self) -> ChildSa:
        """The one CHILD_SA, as the daemon knows it."""
        (sa,) = self.ike.list_sas()
        return sa

    def ends(self, family: Family = 4) -> tuple[str, str]:
        return self.topo.host_address(1, family), self.topo.host_address(2, family)

    def flowfast(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command on the gateway, with time to start while it is busy with traffic."""
        done = self.router.ns.run([*COMMAND, *arguments], check=False, timeout=START)
        assert not done.stderr, done.stderr
        return done

    def ask(self, *arguments: object) -> tuple[int, dict[str, Any]]:
        """`flowfast explain`: its exit code, and what it says of the first connection that is meant."""
        done = self.flowfast("explain", *map(str, arguments), "--config", str(self.router.config), "--json")
        return done.returncode, json.loads(done.stdout)["connections"][0]

    def show(self, kind: str, *more: str) -> list[dict[str, Any]]:
        return json.loads(self.flowfast("show", kind, str(self.router.config), "--json", *more).stdout)["rows"]


@pytest.fixture(scope="module", params=["policy", "xfrmi"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with two_gateways(request.param, wire="nic") as topo, two_daemons(topo) as (ike, _):
        assert topo.ping(4)
        assert topo.ping(6)
        topo.gw1.run(["nft", "-f", "-"], stdin=HELPER)
        topo.gw1.write("/proc/sys/net/netfilter/nf_conntrack_acct", "1")
        with Router(topo.gw1, CONFIG, tmp_path_factory.mktemp("explain")) as router:
            yield Site(topo, ike, router)


@pytest.mark.parametrize("family", [4, 6])
def test_a_fast_connection_with_its_tunnel_and_sas(site: Site, family: Family) -> None:
    ours, theirs = site.ends(family)
    with UdpFlow(site.topo.h1, site.topo.h2, theirs, rate=50, port=700, source_port=4000 + family) as flow:
        time.sleep(1)
        code, said = site.ask(ours, theirs, "udp", 700)
        again, turned = site.ask(theirs, ours, "udp", 700, "--source-port", 4000 + family)
        assert flow.stop().intact
    assert (code, said["fast"], said["reason"]) == (0, True, None)
    assert (again, turned["connection"]) == (0, said["connection"])
    assert said["connection"].endswith(":700 udp")
    sa = site.sa()
    assert said["tx"]["sa"]["spi"] == sa.spi_out
    assert said["rx"]["sa"]["spi"] == sa.spi_in
    assert said["conntrack"]["offload"] == "software"
    assert said["conntrack"]["established"]
    assert sum(said["conntrack"]["packets"]) > 10


def test_one_that_the_far_side_opened(site: Site) -> None:
    ours, theirs = site.ends()
    with UdpFlow(site.topo.h2, site.topo.h1, ours, rate=50, port=701) as flow:
        time.sleep(1)
        code, said = site.ask(ours, theirs, "udp", 701)
        assert flow.stop().intact
    assert (code, said["fast"]) == (0, True)


def fits(site: Site, size: int) -> bool:
    """Whether a packet of that many bytes, not to be cut, gets to the other host. (20 of IPv4, 8 of ICMP.)"""
    _, theirs = site.ends()
    # Twice: the first one that is too large teaches h1 the path's MTU, and the second is refused at home.
    done = [
        site.topo.h1.run(["ping", "-q", "-M", "do", "-c", "1", "-W", "5", "-s", str(size - 28), theirs], check=False)
        for _ in range(2)
    ]
    return done[1].returncode == 0


def test_the_mtu_is_the_kernels(site: Site) -> None:
    ours, theirs = site.ends()
    _, said = site.ask(ours, theirs, "udp", 799)
    assert said["reason"]["code"] == "NOT_TRACKED"
    assert said["tx"]["path"] == said["rx"]["path"] == "flowtable"  # what one would take
    assert fits(site, said["mtu"])
    assert not fits(site, said["mtu"] + 1)
    code, large = site.ask(ours, theirs, "udp", 799, "--size", said["mtu"] + 1)
    assert (code, large["tx"]["reason"]["code"]) == (3, "OVER_MTU")


def test_what_keeps_to_the_full_path_says_why(site: Site) -> None:
    ours, theirs = site.ends()
    codes = {}
    assert site.topo.ping(4)
    codes["icmp"] = site.ask(ours, theirs, "icmp")
    assert udp_echo(site.topo.h1, site.topo.h2, theirs, packets=20, rate=50, port=7777).intact
    codes["excluded"] = site.ask(ours, theirs, "udp", 7777)
    assert udp_stream(site.topo.h1, site.topo.h2, theirs, packets=5, rate=50, port=702).received == 5
    codes["unanswered"] = site.ask(ours, theirs, "udp", 702)
    assert tcp_transfer(site.topo.h1, site.topo.h2, theirs, 100_000, port=2121).intact
    codes["closing"] = site.ask(ours, theirs, "tcp", 2121)
    found = {name: said["reason"]["code"] for name, (_, said) in codes.items()}
    assert found == {
        "icmp": "PROTOCOL",
        "excluded": "EXCLUDED",
        "unanswered": "NOT_ESTABLISHED",
        "closing": "CLOSING",
    }
    assert {code for code, _ in codes.values()} == {3}
    closing = codes["closing"][1]
    assert closing["conntrack"]["helper"] == "ftp"
    assert closing["conntrack"]["tcp_state"] in ("TIME_WAIT", "LAST_ACK", "CLOSE_WAIT", "FIN_WAIT", "CLOSE")
    assert closing["tunnel"] == codes["icmp"][1]["tunnel"]


def test_what_no_tunnel_carries(site: Site) -> None:
    ours, _ = site.ends()
    code, said = site.ask(ours, "198.51.100.7", "tcp", 80)
    assert (code, said["tunnel"]) == (3, None)
    assert said["tx"]["reason"]["code"] in ("NO_POLICY", "UNREACHABLE")
    own = site.topo.gw1.run(["ip", "-4", "-o", "addr", "show", "lan0"]).stdout.split()[3].partition("/")[0]
    code, said = site.ask(own, ours, "tcp", 22)
    assert said["tx"]["reason"]["code"] == "ROUTER_ITSELF"


def test_show_lists_what_the_kernel_holds(site: Site) -> None:
    _, theirs = site.ends()
    with UdpFlow(site.topo.h1, site.topo.h2, theirs, rate=50, port=703) as flow:
        time.sleep(1)
        flows = site.show("flows", "--offloaded")
        sas = {row["spi"]: row for row in site.show("sa")}
        assert flow.stop().intact
    (mine,) = [row for row in flows if row["dport"] == 703]
    assert (mine["path"], len(mine["tunnels"])) == ("flowtable", 1)
    sa = site.sa()
    assert {sas[sa.spi_in]["direction"], sas[sa.spi_out]["direction"]} == {"in", "out"}
    assert sas[sa.spi_out]["packets"] == pytest.approx(sa.packets_out, abs=200)
    assert sas[sa.spi_out]["sequence"] >= sas[sa.spi_out]["packets"]
    assert sas[sa.spi_out]["algorithm"] == "rfc4106(gcm(aes))"
    policy_based = site.topo.kind == "policy"
    devices = {row["device"]: row for row in site.show("devices")}
    assert devices["lan0"]["hooked"]
    assert (devices["wan0"]["hooked"], devices["wan0"]["guard"]) == (policy_based, policy_based)
    assert [name for name, row in devices.items() if row["role"] == "xfrm" and row["hooked"]] == (
        [] if policy_based else [name for name, row in devices.items() if row["kind"] == "xfrm"]
    )
    verdicts = {(row["direction"], row["verdict"]) for row in site.show("policies")}
    assert {("out", "fast"), ("fwd", "fast"), ("in", "nothing")} <= verdicts
    (tunnel,) = site.show("tunnels")
    assert tunnel["tx_path"].startswith("flowtable")


def test_top_sees_the_traffic_and_its_path(site: Site) -> None:
    _, theirs = site.ends()
    with UdpFlow(site.topo.h1, site.topo.h2, theirs, rate=100, port=704) as flow:
        time.sleep(1)
        done = site.flowfast("top", str(site.router.config), "--count", "2", "--interval", "2", "--json")
        assert flow.stop().intact
    *_, last = [json.loads(text) for text in done.stdout.splitlines()]
    ways = {line["direction"]: line for line in last["lines"]}
    for way in ways.values():
        assert way["packets_per_second"] > 20
        assert way["bytes_per_second"] == pytest.approx(128 * way["packets_per_second"], rel=0.01)
        assert way["share"] > 0.9
        assert (way["sas"], way["flows"] >= 1) == (1, True)


def test_without_a_config_and_before_anything_is_applied(site: Site) -> None:
    site.router.stop()
    try:
        ours, theirs = site.ends()
        bare = site.flowfast("explain", ours, theirs, "udp", "799")
        assert "no config" in bare.stdout
        assert "tx         flowtable" in bare.stdout  # it stays applied
        site.flowfast("apply", "--remove")
        code, said = site.ask(ours, theirs, "udp", 799)
        assert (code, said["tx"]["reason"]["code"]) == (3, "NOT_APPLIED")
    finally:
        site.router.start()
