"""What changes under us: a number of queues; a peer that has fewer SAs than we have CPUs, which every command knows."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowfast.kernel.xfrm import AsyncXfrmSocket
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.model.sa import Direction
from flowfast.plan.steering.cpus import CPU_ACQUIRE
from tests.guest.router import Router
from tests.guest.steered import Flows, add_sas_by_cpu, fallback_share, knobs, watching

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3, cpus=4), pytest.mark.long(seconds=200)]

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\nsteering: {wan: xdp, lan: rps}\n"


def masks(topo: TwoGateways) -> list[str]:
    """lan0's RPS masks, by queue."""
    return topo.gw1.run(["sh", "-c", "cat /sys/class/net/lan0/queues/rx-*/rps_cpus"]).stdout.split()


@contextmanager
def asked_in_vain(topo: TwoGateways) -> Iterator[None]:
    """Each CPU of gw1 without an SA asks for one. Somebody hears it, or the kernel would drop the packet; no answer."""
    monitor = topo.gw1.popen(["ip", "xfrm", "monitor", "acquire"], stdout=subprocess.DEVNULL)
    try:
        topo.gw1.call(_ask_for_sas)
        yield
    finally:
        monitor.terminate()
        monitor.wait()


def _ask_for_sas() -> None:

    async def update() -> None:
        async with AsyncXfrmSocket() as xfrm:
            for policy in await xfrm.policies():
                if policy.direction is Direction.OUT:
                    await xfrm.update_policy(policy._replace(flags=policy.flags | CPU_ACQUIRE))

    asyncio.run(update())


def test_cpus_that_get_no_sa_are_left_out_also_after_a_restart(tmp_path: Path) -> None:
    with two_gateways("policy", families=(4,), finish_checksums=True) as topo, Flows(topo) as flows:
        manual_keys(topo)
        assert topo.ping(4)
        before = knobs(topo.gw1)
        with asked_in_vain(topo), Router(topo.gw1, CONFIG, tmp_path) as router:
            add_sas_by_cpu(topo, cpus=2)

            deadline = time.monotonic() + 120
            while masks(topo) != ["3"]:
                flows.send(3)
                assert time.monotonic() < deadline, router.log.read_text()
            while fallback_share(topo, flows) > 0.01:
                assert time.monotonic() < deadline, router.log.read_text()
            with watching(topo.gw1) as seen:
                assert flows.send(30) > 0.99
            assert seen.working(Direction.OUT) == 2, seen
            assert seen.own_share(Direction.OUT) >= 0.99, seen
            held = knobs(topo.gw1)
            router.stop()
            planned = router.flowfast("plan", str(router.config), "--detailed-exitcode", check=False)
            assert planned.returncode == 0, planned.stdout
            router.start()
            assert knobs(topo.gw1) == held
            assert fallback_share(topo, flows) < 0.01
        assert knobs(topo.gw1) == before
        assert not list(Path("/run/flowfast").glob("refused-*"))


def test_a_number_of_queues_that_changes_is_followed(tmp_path: Path) -> None:
    with two_gateways("policy", families=(4,), finish_checksums=True) as topo, Flows(topo) as flows:
        manual_keys(topo)
        assert topo.ping(4)
        before = knobs(topo.gw1)
        with Router(topo.gw1, CONFIG, tmp_path) as router:
            add_sas_by_cpu(topo)
            for count in (1, 4, 2, 1):
                topo.gw1.run(["ethtool", "-L", "lan0", "rx", str(count)], check=False)  # the first is no change
                deadline = time.monotonic() + 90
                while masks(topo) != ["f"] * count or fallback_share(topo, flows) > 0.01:
                    assert time.monotonic() < deadline, f"{masks(topo)}\n{router.log.read_text()}"
                with watching(topo.gw1) as seen:
                    assert flows.send(20) > 0.99
                assert seen.working(Direction.OUT) == 4, seen
                assert min(seen.own_share(way) for way in (Direction.IN, Direction.OUT)) >= 0.99, seen
        assert knobs(topo.gw1) == before
