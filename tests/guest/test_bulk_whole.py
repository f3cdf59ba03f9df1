"""Every packet of very many arrives whole, in order within its flow, once, while `auto` tries and chooses stages."""

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from flowfast.kernel.features import RealBulk
from flowfast.kernel.links import RealLinks
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import Netns
from flowfast.lab.qualify.scenario import trouble
from flowfast.lab.topology import TUNNEL_MTU, Family, TwoGateways, two_gateways
from tests.guest.flood import Ends, flood
from tests.guest.router import Router

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3), pytest.mark.long(seconds=400)]

CONFIG = """
devices: {lan: [lan0], wan: [wan0]}
bulk: {profile: auto, shield: true}
"""
PARTS = 8
"""A case's 10^6 packets come in so many tests, so that a test is over within minutes."""
PACKETS = 10**6 // PARTS
FAMILIES: tuple[Family, ...] = (4, 6)


@pytest.fixture(scope="module")
def topo() -> Iterator[TwoGateways]:
    subprocess.run(["modprobe", "-a", "esp4_offload", "esp6_offload"], check=True)
    with two_gateways("policy", "nic") as built:
        manual_keys(built)
        assert built.ping(4, 3)
        assert built.ping(6, 3)
        for ns, device in ((built.h1, "e0"), (built.h2, "e0"), (built.gw2, "lan0"), (built.gw2, "wan0")):
            ns.run(["ethtool", "-K", device, "gro", "off"])
        for host in (built.h1, built.h2):
            host.run(["ip", "link", "set", "e0", "mtu", str(TUNNEL_MTU)])
        yield built


@pytest.fixture(scope="module")
def auto(topo: TwoGateways, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    with Router(topo.gw1, CONFIG, tmp_path_factory.mktemp("auto")) as router:
        # Until auto has seen how packets arrive, and has its program on the LAN: a driver may lose some over that.
        (one, near), (two, far) = hosts(topo)
        for _ in range(20):
            flood(one, two, near, far, 3000)
            flood(two, one, far, near, 3000)
            if topo.gw1.call(shield) == "on":
                break
        else:
            raise AssertionError(router.log.read_text())
        yield router


def hosts(topo: TwoGateways) -> list[tuple[Netns, Ends]]:
    return [
        (topo.h1, {family: topo.host_address(1, family) for family in FAMILIES}),
        (topo.h2, {family: topo.host_address(2, family) for family in FAMILIES}),
    ]


def shield() -> str:
    return RealBulk().look(asyncio.run(RealLinks().links()))["lan0"].values["shield"]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("way", ["out", "in"])
def test_every_packet_arrives_whole_in_order_and_once(topo: TwoGateways, auto: Router, way: str, part: int) -> None:
    (sender, near), (receiver, far) = hosts(topo) if way == "out" else hosts(topo)[::-1]
    before = trouble(topo, receiver, sender)
    arrived = flood(sender, receiver, near, far, PACKETS)
    grown = {name: count - before[name] for name, count in trouble(topo, receiver, sender).items()}
    log = auto.log.read_text()
    print(way, part, arrived, grown, [line for line in log.splitlines() if "as one" in line][-2:])
    assert (arrived.got, arrived.wrong) == (arrived.sent, 0)
    assert all(got > 0 and whole for got, whole in arrived.streams)
    assert (grown["bad checksums"], grown["refused by xfrm"]) == (0, 0)
    # The stages that it is about were on: nobody is told of a comparison in which none was.
    assert ("lan0: " if way == "out" else "wan0: ") in "".join(line for line in log.splitlines() if "as one" in line)
