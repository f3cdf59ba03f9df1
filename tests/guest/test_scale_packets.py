"""What a packet costs a gateway does not grow with its tunnels; nor does it take longer to apply than nft itself needs.

Instructions, exactly: guest time under icount, over veth, so that no NIC's batching blurs them. Packets are dropped
where they would leave, before anybody looks at them, and what it costs to bring them to the gateway is subtracted.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest

from flowfast import bench
from flowfast.apply.commit import commands_of, commit
from flowfast.kernel.real import real_kernel
from flowfast.lab.demo.awake import Awake
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import Netns
from flowfast.lab.pktgen import Load, pktgen
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.lab.traffic import udp_echo
from flowfast.model.nftables import Ruleset
from flowfast.model.transaction import transaction_text
from flowfast.plan.diff import diff
from flowfast.plan.planner import plan
from tests.guest.scale import further, hold

IMAGES = ["debian14", "debian13", "debian12"]
pytestmark = [pytest.mark.guest(images=IMAGES, icount=True), pytest.mark.long(seconds=180)]

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\n"
MANY = 10_000
COUNTS = (200, 2000, 2000)


@pytest.fixture(scope="module")
def awake() -> Iterator[Awake]:
    with Awake() as awake:
        yield awake


@pytest.fixture(scope="module")
def topo(awake: Awake) -> Iterator[TwoGateways]:
    with two_gateways("policy", families=(4,)) as topo:
        manual_keys(topo, marks=True)
        yield topo


@contextmanager
def dropped(ns: Netns, device: str) -> Iterator[None]:
    """What arrives on the device is dropped before anything else."""
    chain = f'chain c {{\n type filter hook ingress device "{device}" priority -400; policy drop\n }}'
    ns.run(["nft", "-f", "-"], stdin=f"table netdev lab {{\n {chain}\n}}\n")
    try:
        yield
    finally:
        ns.run(["nft", "delete", "table", "netdev", "lab"])


def through(topo: TwoGateways, source: int) -> float:
    """Instructions that gw1 spends on a packet: from host 1 into the tunnel, or from host 2 out of it."""
    ends = [topo.host_address(side, 4) for side in ((1, 2) if source == 1 else (2, 1))]
    host, gateway = (topo.h1, topo.gw1) if source == 1 else (topo.h2, topo.gw2)
    mac = gateway.read("/sys/class/net/lan0/address")

    def cost() -> float:
        loads = [Load(source=ends[0], destination=ends[1], mac=mac, count=count) for count in COUNTS]
        return median([pktgen(host, load).nanoseconds_per_packet for load in loads][1:])

    with dropped(topo.gw1, "lan0" if source == 1 else "wan0"):
        before = cost()
    with dropped(*((topo.gw2, "wan0") if source == 1 else (topo.h1, "e0"))):
        return cost() - before


def costs(topo: TwoGateways, awake: Awake, tunnels: int, settings: str) -> tuple[float, float]:
    """Into the tunnel and out of it, with the ruleset of so many tunnels."""
    further(tunnels - 1)
    topo.gw1.call(hold, tunnels - 1, CONFIG + settings, timeout=300)
    topo.gw1.run(["conntrack", "-F"])
    assert topo.ping(4)
    assert udp_echo(topo.h1, topo.h2, topo.host_address(2, 4), packets=20, rate=200, port=9, source_port=9).received
    on_flowtable = "[OFFLOAD]" in topo.gw1.run(["conntrack", "-L"]).stdout
    assert on_flowtable == ("exclude" not in settings)
    with awake.paused():
        return through(topo, 1), through(topo, 2)


@pytest.mark.parametrize(
    ("few", "settings"),
    [
        (1, "offload: {trust_peers: true}"),
        (2, ""),  # each peer confined to its own mark
        (1, "offload: {trust_peers: true}\nexclude: {ports: [9]}"),
    ],
    ids=["fast path", "fast path, peers confined", "full path"],
)
def test_a_packet_costs_the_same_among_ten_thousand_tunnels(
    topo: TwoGateways, awake: Awake, few: int, settings: str
) -> None:
    small, large = (costs(topo, awake, tunnels, settings) for tunnels in (few, MANY))
    print("instructions a packet, into the tunnel and out of it:", few, small, MANY, large)
    for one, other in zip(small, large, strict=True):
        assert other < 1.03 * one


def test_what_the_accounting_modes_cost_a_packet(topo: TwoGateways, awake: Awake) -> None:
    """docs/metrics.md has the figures: nothing on the flowtable but where each packet is counted before it."""
    found = {
        (path, mode): costs(topo, awake, 1, f"offload: {{trust_peers: true}}\naccounting: {mode}\n{exclude}")
        for path, exclude in (("flowtable", ""), ("full", "exclude: {ports: [9]}\n"))
        for mode in ("off", "sa", "precise")
    }
    print("instructions a packet, into the tunnel and out of it:", found)
    for way in (0, 1):
        for path, of_sa in (("flowtable", 0), ("full", 1)):
            off, sa, precise = (found[path, mode][way] for mode in ("off", "sa", "precise"))
            assert 200 < precise - sa < 2000
            assert -0.02 * off < sa - off < 0.02 * off + 1000 * of_sa


def test_to_apply_ten_thousand_tunnels_takes_hardly_longer_than_nft_does(awake: Awake, tmp_path: Path) -> None:
    """The same commands, by `nft -f` in one transaction and by us in as many as are safe: from plan to kernel."""
    ruleset, file = plan(bench.hub(MANY), bench.CONFIG).ruleset, tmp_path / "ruleset.nft"
    file.write_text(transaction_text(commands_of(diff(ruleset, Ruleset()))))
    with Netns("apply") as ns:
        for device in ("lan0", "wan0"):
            ns.run(["ip", "link", "add", device, "type", "dummy"])
        theirs = ns.call(_timed, str(file), timeout=120)
        ours = ns.call(_applied, ruleset, timeout=120)
    print("seconds for 10 000 tunnels: nft -f", theirs, "flowfast", ours)
    assert ours < 1.3 * theirs


def _timed(file: str) -> float:
    began = time.monotonic()
    subprocess.run(["nft", "-f", file], check=True)
    took = time.monotonic() - began
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    return took


def _applied(ruleset: Ruleset) -> float:
    began = time.monotonic()
    commit(real_kernel().nft, diff(ruleset, Ruleset()))
    return time.monotonic() - began
