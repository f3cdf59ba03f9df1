"""doctor on a real router with strongSwan: nothing to say of a good one, and each wrong setting found."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowfast.lab.ike import two_daemons
from flowfast.lab.inject import Arrivals, Injection, Tuple
from flowfast.lab.netns import Netns
from flowfast.lab.topology import TwoGateways, two_gateways
from tests.guest.oneshot import command, meet

pytestmark = [pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=3), pytest.mark.long]

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\n"


@dataclass
class Site:
    topo: TwoGateways
    config: str
    swanctl: Path

    def doctor(self) -> tuple[int, dict[str, Any]]:
        """Exit code, and what it says."""
        code, said = command(self.topo.gw1, "doctor", self.config, "--json")
        return code, json.loads(said)

    def codes(self) -> dict[str, str]:
        """Codes of what is wrong, with their severity, beside the kernel's features."""
        _, said = self.doctor()
        reasons = [check["reason"] for check in said["checks"]] + said["reasons"]
        return {reason["code"]: reason["severity"] for reason in reasons if reason}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    config = tmp_path_factory.mktemp("doctor") / "site.yaml"
    config.write_text(CONFIG)
    with two_gateways("policy") as topo, two_daemons(topo) as (ike, _):
        meet(topo)
        yield Site(topo, str(config), ike.folder / "swanctl.conf")


@contextmanager
def sysctl(ns: Netns, name: str, value: str) -> Iterator[None]:
    path = "/proc/sys/" + name.replace(".", "/")
    before = ns.read(path)
    ns.write(path, value)
    try:
        yield
    finally:
        ns.write(path, before)


EXPECTED = {"NO_FLOW_COUNTERS": "info"}
"""What a router as Debian makes it has: conntrack accounting off."""


def test_nothing_is_wrong_with_a_good_router(site: Site, image: str) -> None:
    code, said = site.doctor()
    assert code == 0
    areas = {check["area"]: check for check in said["checks"]}
    assert set(areas) == {"modules", "sysctls", "conntrack", "devices", "ipsec", "ike"}
    found = {(check["area"], check["name"].split()[0]): check["found"] for check in said["checks"]}
    assert ("ike", "strongSwan") in found
    version = next(check["name"] for check in said["checks"] if check["name"].startswith("strongSwan"))
    # Over the vici socket: the version of the daemon that runs.
    assert version.split()[1].startswith("5.9" if image == "debian12" else "6.")
    assert found["ike", "delete_rekeyed_delay"] == "1"
    assert found["ike", "install_routes"] == "no"
    assert found["ipsec", "replay"] == "128 packets"
    assert found["devices", "lan0"].startswith("lan, MTU 1500, veth")
    assert found["modules", "libnftables"][0] in "12"
    codes = site.codes()
    codes.pop("NO_ESP_GRO", None)  # whether a module is loaded depends on what this guest did before
    assert codes == EXPECTED


@pytest.mark.parametrize(
    ("name", "value", "code", "severity"),
    [
        ("net.ipv4.ip_forward", "0", "NOT_FORWARDING", "warning"),
        ("net.ipv6.conf.all.forwarding", "0", "NOT_FORWARDING", "warning"),
        ("net.ipv4.conf.wan0.disable_policy", "1", "POLICY_DISABLED", "error"),
        ("net.ipv4.conf.wan0.disable_xfrm", "1", "XFRM_DISABLED", "error"),
        ("net.netfilter.nf_conntrack_udp_timeout_stream", "20", "FLOW_TIMEOUT", "warning"),
        ("net.netfilter.nf_flowtable_tcp_timeout", "5", "FLOW_TIMEOUT", "info"),
    ],
)
def test_a_sysctl_that_is_wrong(site: Site, name: str, value: str, code: str, severity: str) -> None:
    with sysctl(site.topo.gw1, name, value):
        assert site.codes().get(code) == severity
        assert site.doctor()[0] == (1 if severity == "error" else 0)
    assert code not in site.codes()


def test_disable_policy_does_let_plaintext_in(site: Site) -> None:
    """What doctor says of it is so: without flowfast, too, a forged reply gets to the LAN."""
    topo = site.topo
    forged = [Tuple(topo.host_address(2, 4), topo.host_address(1, 4), 7, 4100)]
    mac = topo.gw1.read("/sys/class/net/wan0/address")
    counts = []
    for value in ("0", "1"):
        with ExitStack() as stack:
            stack.enter_context(sysctl(topo.gw1, "net.ipv4.conf.wan0.disable_policy", value))
            topo.gw1.run(["ip", "route", "flush", "cache"])
            arrived = stack.enter_context(Arrivals(topo.h1, "e0"))
            with Injection(topo.gw2, "wan0", mac, forged, rate=50) as sent:
                assert topo.ping(4, count=10)
            assert sent.sent > 20
        counts.append(arrived.count)
    assert counts[0] == 0
    assert counts[1] > 20


def test_bulking_in_front_of_esp(site: Site) -> None:
    """Which of it breaks packets on which kernel is the table's word (tests of bulking); here only that it is seen."""
    site.topo.gw1.run(["ethtool", "-K", "lan0", "rx-gro-list", "on"])
    try:
        _, said = site.doctor()
        (found,) = [check["found"] for check in said["checks"] if check["name"] == "rx-gro-list"]
        assert found == "on: lan0"
    finally:
        site.topo.gw1.run(["ethtool", "-K", "lan0", "rx-gro-list", "off"])


def test_a_port_of_a_bridge_is_not_what_packets_are_routed_on(site: Site) -> None:
    gw1 = site.topo.gw1
    gw1.run(["ip", "-batch", "-"], stdin="link add br0 type bridge\nlink set lan0 master br0\n")
    try:
        assert site.codes()["DEVICE_IS_PORT"] == "warning"
    finally:
        gw1.run(["ip", "-batch", "-"], stdin="link set lan0 nomaster\nlink del br0\n")


def test_children_of_the_daemon_and_what_is_not_loaded(site: Site) -> None:
    whole = site.swanctl.read_text()
    changed = whole.replace("mode = tunnel", "mode = tunnel\n copy_df = no\n hw_offload = packet\n policies = no")
    site.swanctl.write_text(changed.replace("connections {", "connections {\n later { children { x { } } }\n", 1))
    try:
        codes = site.codes()
        assert {"NO_ESP_DEVICE", "NO_POLICIES", "NOT_LOADED"} <= set(codes)
        _, said = site.doctor()
        secret = whole.split("secret = ")[1].split()[0].strip('"')
        assert secret not in json.dumps(said)
    finally:
        site.swanctl.write_text(whole)
    assert "NOT_LOADED" not in site.codes()


def test_the_text_names_each_area_and_the_remedy(site: Site) -> None:
    with sysctl(site.topo.gw1, "net.ipv4.ip_forward", "0"):
        code, said = command(site.topo.gw1, "doctor", site.config)
    assert code == 0
    for word in ("kernel ", "flowtable", "esp4_offload", "conntrack", "strongSwan", "sysctl -w net.ipv4.ip_forward=1"):
        assert word in said
