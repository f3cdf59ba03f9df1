"""compare's factor against instructions: the same packets, counted exactly by a guest whose time counts instructions.

Over veth pairs and without GRO, where the count repeats to a few per mille; QEMU's NICs are polled when the host has
time for it.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowfast.lab.demo.awake import Awake
from flowfast.lab.demo.site import FIREWALL
from flowfast.lab.demo.stage import NOBODY
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import Netns
from flowfast.lab.pktgen import Load, pktgen
from flowfast.lab.topology import TwoGateways, two_gateways, wan_address
from flowfast.lab.traffic import udp_echo
from tests.guest.router import COMMAND

pytestmark = [pytest.mark.guest(images=["debian14"], icount=True), pytest.mark.long(seconds=500)]

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\ntunnels: {berlin: {local: [10.1.0.0/16], remote: [10.2.0.0/16]}}\n"
PACKETS = 4000
FOREVER = 0


@dataclass
class Bench:
    topo: TwoGateways
    awake: Awake

    def instructions(self) -> float:
        """Of a packet, everything that it causes; after a run that does not count."""
        with self.awake.paused():
            pktgen(self.topo.h1, load(self.topo, 200))
            return pktgen(self.topo.h1, load(self.topo, PACKETS)).nanoseconds_per_packet

    def generator(self) -> float:
        """The same of a packet that gw1 drops as soon as it has it: what is not gw1's (measured.md)."""
        hook = 'type filter hook ingress device "lan0" priority -500;'
        drop = f"table netdev sink {{\nchain ingress_all {{\n{hook}\ndrop\n}}\n}}\n"
        self.topo.gw1.run(["nft", "-f", "-"], stdin=drop)
        try:
            return self.instructions()
        finally:
            self.topo.gw1.run(["nft", "delete", "table", "netdev", "sink"])


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Awake() as awake, two_gateways("policy", wire="veth") as topo:
        manual_keys(topo)
        topo.gw1.run(["nft", "-f", "-"], stdin=FIREWALL)
        topo.h1.run(["ethtool", "-K", "e0", "tx", "off"])
        yield Bench(topo, awake)


def load(topo: TwoGateways, count: int) -> Load:
    mac = topo.gw1.read("/sys/class/net/lan0/address")
    return Load(source=topo.host_address(1, 4), destination=topo.host_address(2, 4), mac=mac, count=count)


def flowfast(ns: Netns, *arguments: str) -> str:
    return ns.run([*COMMAND, *arguments], timeout=500, check=False).stdout


def test_the_factor_agrees_with_instructions_within_five_per_cent(bench: Bench, tmp_path: Path) -> None:
    topo = bench.topo
    # The connection must be established, which nobody answers once the peer is a neighbour that is not there.
    config = tmp_path / "site.yaml"
    config.write_text(CONFIG)
    peer = topo.gw2.read("/sys/class/net/wan0/address")
    neighbour = ["ip", "neigh", "replace", wan_address(2, 4), "dev", "wan0", "nud", "permanent", "lladdr"]
    topo.gw1.run([*neighbour, peer])
    assert udp_echo(topo.h1, topo.h2, topo.host_address(2, 4), packets=20, rate=200, port=9, source_port=9).received
    topo.gw1.run([*neighbour, NOBODY])

    generator = bench.generator()
    full = bench.instructions() - generator
    flowfast(topo.gw1, "apply", str(config), "--yes")
    fast = bench.instructions() - generator
    assert "[OFFLOAD]" in topo.gw1.run(["conntrack", "-L"]).stdout

    with ThreadPoolExecutor() as pool, bench.awake.paused():
        endless = pool.submit(pktgen, topo.h1, load(topo, FOREVER), 600)
        said = flowfast(topo.gw1, "compare", str(config), "--seconds", "32", "--windows", "8", "--json", "--yes")
        topo.h1.write("/proc/net/pktgen/pgctrl", "stop")
        assert endless.result().errors == 0

    found = json.loads(said)["findings"]
    print(f"instructions: generator {generator:.0f}, full {full:.0f}, fast {fast:.0f}: {full / fast:.3f}x")
    print(f"compare: {found['per_packet']}, {[reason['code'] for reason in found['reasons']]}")
    assert found["factor"] is not None, found["reasons"]
    assert found["factor"]["value"] == pytest.approx(full / fast, rel=0.05)
    assert found["factor"]["low"] < full / fast * 1.02
    assert found["factor"]["high"] > full / fast * 0.98
    (berlin,) = found["tunnels"]
    assert berlin["cpu"]["value"] == pytest.approx(full / fast, rel=0.05)
