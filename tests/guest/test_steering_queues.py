"""NICs with several queues: RSS that has each SA on the queue of its CPU, by interrupts or beside irqbalance."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import LabError, Netns
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.model.sa import Direction
from tests.guest.router import Router
from tests.guest.steered import Flows, add_sas_by_cpu, fallback_share, knobs, listening, watching

# virtio-net with mq and rss. Its hash knows no SPI, so the SAs are told apart by the ports of ESP in UDP.
pytestmark = [pytest.mark.guest(images=["debian14"], nics=3, cpus=4, queues=4), pytest.mark.long(seconds=240)]

CONFIG = "devices: {{lan: [lan0], wan: [wan0]}}\nsteering: {{wan: {}, lan: {}}}\n"
IN, OUT = Direction.IN, Direction.OUT


@pytest.fixture(scope="module", autouse=True)
def silence() -> None:
    """No packet before both ends are up, no multicast of IPv6's: such may be what QEMU's RSS stumbles over.

    It is not all: NICs were seen that stayed silent with this, too.
    """
    Path("/proc/sys/net/core/devconf_inherit_init_net").write_text("1")
    for which in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")


def settled(stack: ExitStack) -> TwoGateways:
    """And if one was sent all the same: NICs that were bound anew have forgotten it."""
    for _ in range(2):
        with suppress(LabError):
            return stack.enter_context(two_gateways("policy", wire="nic", families=(4,)))
    return stack.enter_context(two_gateways("policy", wire="nic", families=(4,)))


@pytest.fixture
def topo() -> Iterator[TwoGateways]:
    with ExitStack() as stack:
        made = settled(stack)
        stack.enter_context(listening(made.gw1, made.gw2))
        manual_keys(made)
        assert made.ping(4)
        yield made


def steady(topo: TwoGateways, flows: Flows, router: Router) -> None:
    deadline = time.monotonic() + 60
    while fallback_share(topo, flows) > 0.01:
        assert time.monotonic() < deadline, router.log.read_text()


def holds(topo: TwoGateways, flows: Flows) -> None:
    with watching(topo.gw1) as seen:
        assert flows.send(30) > 0.99
    assert seen.working(OUT) == 4, seen
    assert seen.own_share(OUT) >= 0.99, seen
    assert seen.own_share(IN) >= 0.99, seen
    assert max(seen.fallback_share(OUT), seen.fallback_share(IN)) < 0.01, seen


def test_rss_has_each_sa_on_its_cpu(topo: TwoGateways, tmp_path: Path) -> None:
    before = knobs(topo.gw1)
    with Router(topo.gw1, CONFIG.format("rss", "rss"), tmp_path) as router, Flows(topo) as flows:
        flows.send(5)
        add_sas_by_cpu(topo, ports=True)
        steady(topo, flows, router)
        holds(topo, flows)
        planned = router.flowfast("plan", str(router.config), "--detailed-exitcode", check=False)
        assert planned.returncode == 0, planned.stdout
        assert "lan0 by rss, wan0 by rss" in planned.stdout
    assert knobs(topo.gw1) == before


def test_beside_irqbalance_queues_get_to_their_cpus_by_rps(topo: TwoGateways, tmp_path: Path) -> None:
    before = knobs(topo.gw1)
    idle = tmp_path / "irqbalance"  # it is known by its name; what it does with interrupts is no matter
    idle.write_bytes(Path("/usr/bin/sleep").read_bytes())
    idle.chmod(0o755)
    balancer = subprocess.Popen([str(idle), "600"])
    try:
        with Router(topo.gw1, CONFIG.format("rss", "rss"), tmp_path) as router, Flows(topo) as flows:
            flows.send(5)
            add_sas_by_cpu(topo, ports=True)
            steady(topo, flows, router)
            assert sorted(masks(topo.gw1)) == ["1", "2", "4", "8"]
            for irq, cpus in before.items():
                if "/proc/irq/" in irq:
                    assert knobs(topo.gw1)[irq] == cpus
            holds(topo, flows)
    finally:
        balancer.kill()
        balancer.wait()
    assert knobs(topo.gw1) == before


def masks(ns: Netns) -> list[str]:
    """wan0's RPS masks."""
    return ns.run(["sh", "-c", "cat /sys/class/net/wan0/queues/rx-*/rps_cpus"]).stdout.split()
