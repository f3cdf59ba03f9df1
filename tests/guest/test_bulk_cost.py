"""What bulking saves, in instructions, with every packet whole: full L3 path with GRO off against what flowfast plans.

16 flows of 64-byte UDP with DF in bursts of 16 and 64, each way, generator subtracted (flowfast.lab.qualify.cost).
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import Netns
from flowfast.lab.qualify.cost import establish, generator, inbound, outbound
from flowfast.lab.qualify.kinds import Udp
from flowfast.lab.qualify.traffic import Ends, udp
from flowfast.lab.topology import TwoGateways, two_gateways

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3, icount=True), pytest.mark.long]

CONFIG = """
devices: {lan: [lan0], wan: [wan0]}
bulk: {profile: throughput, shield: true, accept: [unfinished-checksums]}
"""
L3 = """
table inet plain {
  chain forward { type filter hook forward priority 0;
    ct state established,new accept
  }
}
"""
FLOWTABLE = """
table inet generator {
  flowtable fast { hook ingress priority 0; devices = { lan0, wan0 }; }
  chain forward { type filter hook forward priority 0;
    ct state established flow add @fast
  }
}
"""
BURSTS = (16, 64)


def gro(ns: Netns, *words: str) -> None:
    for device in ("lan0", "wan0"):
        ns.run(["ethtool", "-K", device, *words])


@pytest.fixture(scope="module")
def topo() -> Iterator[TwoGateways]:
    subprocess.run(["modprobe", "-a", "esp4_offload", "esp6_offload"], check=True)
    with two_gateways("policy", "nic", families=(4,)) as built:
        manual_keys(built)
        assert built.ping(4, 3)
        for host in (built.h1, built.h2):
            host.run(["ethtool", "-K", "e0", "gro", "off"])
        gro(built.gw1, "gro", "off")
        # gw2 only makes the packets for the other direction, in bursts: it may do so fast.
        built.gw2.run(["nft", "-f", "-"], stdin=FLOWTABLE)
        gro(built.gw2, "gro", "on", "rx-gro-list", "on")
        built.gw2.write("/sys/class/net/lan0/gro_flush_timeout", "200000")
        built.gw2.write("/sys/class/net/lan0/napi_defer_hard_irqs", "1")
        yield built


def costs(topo: TwoGateways) -> dict[tuple[str, int], float]:
    establish(topo)
    found = {("out", burst): outbound(topo, burst, generator(topo, burst)) for burst in BURSTS}
    return found | {("in", burst): inbound(topo, burst) for burst in BURSTS}


def test_bulking_is_worth_what_it_says_and_every_packet_stays_whole(topo: TwoGateways, tmp_path: Path) -> None:
    gw1, config = topo.gw1, tmp_path / "bulk.yaml"
    config.write_text(CONFIG)
    gw1.run(["nft", "-f", "-"], stdin=L3)
    full = costs(topo)
    gw1.run(["nft", "delete", "table", "inet", "plain"])
    gw1.run(["python3", "-m", "flowfast", "apply", str(config), "--yes"], timeout=600)
    try:
        assert gw1.run(["ip", "-d", "link", "show", "lan0"]).stdout.count("flowfast_shield") == 1
        fast = costs(topo)
        factors = {key: full[key] / fast[key] for key in full}
        print({key: (round(full[key]), round(fast[key]), round(factors[key], 2)) for key in full})
        for burst in BURSTS:
            assert factors["out", burst] >= 2.7, factors
            assert factors["in", burst] >= 1.8, factors
        ends = Ends(topo.h1, topo.h2, topo.host_address(1, 4), topo.host_address(2, 4))
        back = Ends(topo.h2, topo.h1, topo.host_address(2, 4), topo.host_address(1, 4))
        for size in (1, 18, 22, 60, 300, 512, 1320):
            for way in (ends, back):
                arrived = udp(way, Udp(4, size, count=6400))
                assert (arrived.got, arrived.wrong) == (arrived.sent, 0), (size, arrived)
    finally:
        gw1.run(["python3", "-m", "flowfast", "apply", "--remove"], timeout=600)
