"""What bulking saves, in instructions: the full L3 path with GRO off against what flowfast plans, generator subtracted.

16 flows of 64-byte UDP with DF, each way (flowfast.lab.qualify.cost). That packets stay whole: test_bulk_whole.
"""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowfast.kernel.features import RealBulk
from flowfast.kernel.links import RealLinks
from flowfast.lab.demo.awake import Awake
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import Netns
from flowfast.lab.qualify.cost import establish, generator, inbound, outbound
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.model.bulk import Stage

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3, icount=True), pytest.mark.long(seconds=420)]

CONFIG = """
devices: {{lan: [lan0], wan: [wan0]}}
bulk: {{profile: {profile}, accept: [unfinished-checksums]}}
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
Way = tuple[str, int]
"""Out or in, and packets in a row."""
BURSTS: dict[Way, float] = {("out", 16): 2.7, ("out", 64): 2.7, ("in", 16): 1.8, ("in", 64): 1.8}
"""Where many packets travel as one, and how much cheaper they are at least than on the full L3 path."""
UNHELD = 2.4
"""The same with `udp-gro-forwarding`, where fraglist GRO is not for a router whose shield cannot be held."""
LONE: dict[Way, float] = {("out", 1): 1.8, ("in", 1): 1.3}
"""Flows interleaved packet by packet: `auto` ends without a stage (test_governor, test_bulk_auto). Twice was hoped for:
see docs/bulking.md."""


def gro(ns: Netns, *words: str) -> None:
    for device in ("lan0", "wan0"):
        ns.run(["ethtool", "-K", device, *words])


@pytest.fixture(scope="module")
def topo() -> Iterator[TwoGateways]:
    # The first is loaded by udev where the CPU has AES: without it GCM costs several thousand instructions a packet.
    subprocess.run(["modprobe", "-a", "aesni_intel", "esp4_offload", "esp6_offload"], check=True)
    with two_gateways("policy", "nic", families=(4,)) as built:
        manual_keys(built)
        assert built.ping(4, 3)
        for host in (built.h1, built.h2):
            host.run(["ethtool", "-K", "e0", "gro", "off"])
        gro(built.gw1, "gro", "off")
        # gw2 only makes the packets for the other direction, in bursts: it may do so fast.
        built.gw2.run(["nft", "-f", "-"], stdin=FLOWTABLE)
        built.gw2.run(["ethtool", "-K", "wan0", "gro", "off"])
        built.gw2.run(["ethtool", "-K", "lan0", "gro", "on", "rx-udp-gro-forwarding", "on"])
        built.gw2.write("/sys/class/net/lan0/gro_flush_timeout", "200000")
        built.gw2.write("/sys/class/net/lan0/napi_defer_hard_irqs", "1")
        yield built


def costs(topo: TwoGateways, ways: list[Way], generated: float) -> dict[Way, float]:
    establish(topo)
    return {
        (way, burst): outbound(topo, burst, generated) if way == "out" else inbound(topo, burst) for way, burst in ways
    }


def lan() -> tuple[Stage, str]:
    """The stage on the LAN, and the shield."""
    knobs = RealBulk().look(asyncio.run(RealLinks().links()))["lan0"]
    return knobs.stage, knobs.values["shield"]


def applied(topo: TwoGateways, folder: Path, profile: str) -> None:
    config = folder / "bulk.yaml"
    config.write_text(CONFIG.format(profile=profile))
    flowfast(topo, "apply", str(config), "--yes")


def flowfast(topo: TwoGateways, *arguments: str) -> None:
    with Awake():
        topo.gw1.run(["python3", "-m", "flowfast", *arguments], timeout=600)


def factors(full: dict[Way, float], fast: dict[Way, float], what: str) -> dict[Way, float]:
    found = {way: full[way] / cost for way, cost in fast.items()}
    for (way, burst), factor in found.items():
        told = f"{full[way, burst]:.0f} to {fast[way, burst]:.0f}"
        print(f"{what}: {way}, {burst} in a row: {told} instructions a packet, {factor:.2f}x")
    return found


def test_bulking_is_worth_what_it_says(topo: TwoGateways, tmp_path: Path) -> None:
    gw1 = topo.gw1
    generated = generator(topo)
    gw1.run(["nft", "-f", "-"], stdin=L3)
    full = costs(topo, [*LONE, *BURSTS], generated)
    gw1.run(["nft", "delete", "table", "inet", "plain"])
    try:
        applied(topo, tmp_path, "auto")
        assert gw1.call(lan) == (Stage.LIST, "on")
        held = factors(full, costs(topo, [*LONE, *BURSTS], generated), "auto")
        applied(topo, tmp_path, "off")
        rested = factors(full, costs(topo, [*LONE], generated), "without a stage")
        # A router without a bpffs, where the shield cannot be held: fraglist GRO is not for it.
        subprocess.run(["umount", "/run/bpf"], check=True)
        flowfast(topo, "apply", "--remove")
        applied(topo, tmp_path, "auto")
        assert gw1.call(lan) == (Stage.UDP, "on")
        unheld = factors(full, costs(topo, [way for way in BURSTS if way[0] == "out"], generated), "not held")
    finally:
        flowfast(topo, "apply", "--remove")
    assert all(held[way] >= least for way, least in BURSTS.items())
    assert min(unheld.values()) >= UNHELD
    assert all(rested[way] >= least for way, least in LONE.items())
    assert min(held.values()) > 1  # also where there is nothing to put together, until auto has found out
