"""`flowfast run` with profile auto: it tries the stages under real traffic, and ends where the traffic wants it."""

import subprocess
import time
from collections.abc import Iterator

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.qualify.cost import Frames, establish, frames_of, nobody, per_packet
from flowfast.lab.topology import TwoGateways, two_gateways, wan_address
from tests.guest.router import Router

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3), pytest.mark.long(seconds=300)]

CONFIG = """
devices: {lan: [lan0], wan: [wan0]}
bulk: {profile: auto}
"""
SETTLES = 30.0
LATEST = 120.0
"""Seconds until what must have happened has: the guest is emulated, and its one CPU is full."""


@pytest.fixture(scope="module")
def topo() -> Iterator[TwoGateways]:
    subprocess.run(["modprobe", "-a", "esp4_offload", "esp6_offload"], check=True)
    with two_gateways("policy", "nic", families=(4,)) as built:
        manual_keys(built)
        assert built.ping(4, 3)
        built.h1.run(["ethtool", "-K", "e0", "gro", "off"])
        yield built


def decisions(router: Router) -> list[str]:
    """What was chosen for the LAN so far, each with its figures."""
    lines = router.log.read_text().splitlines()
    mine = "INFO flowfast.bulking: lan0: "  # the reason of the next round says the same
    return [line.removeprefix(mine) for line in lines if line.startswith(mine) and " as one" in line]


def until_chosen(topo: TwoGateways, router: Router, burst: int, what: Frames) -> tuple[str, float]:
    """Traffic until something new has been chosen; and how many seconds that took."""
    before, started = len(decisions(router)), time.monotonic()
    with nobody(topo.gw1, "wan0", wan_address(2, 4)):
        while len(decisions(router)) == before:
            assert time.monotonic() - started < LATEST, router.log.read_text()
            per_packet(topo.h1, "e0", what, burst)
    return decisions(router)[-1], time.monotonic() - started


def test_auto_follows_the_traffic(topo: TwoGateways, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Bursts: a stage that merges UDP. Packet by packet: none. Bursts again: the stage again; each within 30 s."""
    with Router(topo.gw1, CONFIG, tmp_path_factory.mktemp("auto")) as router:
        establish(topo)
        what = frames_of(topo, 1)
        with nobody(topo.gw1, "wan0", wan_address(2, 4)):
            # How packets arrive is seen, then the shield is there, then the stages that need it can be tried.
            deadline = time.monotonic() + LATEST
            while "rx-udp-gro-forwarding: off -> on" not in router.log.read_text():
                assert time.monotonic() < deadline, router.log.read_text()
                per_packet(topo.h1, "e0", what, 16)
        first, _ = until_chosen(topo, router, 16, what)
        lone, took_off = until_chosen(topo, router, 1, what)
        again, took_on = until_chosen(topo, router, 64, what)
        print(first, lone, took_off, again, took_on, sep="\n")
        assert first.startswith("udp-gro-forwarding ")
        assert lone.startswith("off ")
        assert again.startswith("udp-gro-forwarding ")
        assert max(took_off, took_on) <= SETTLES
        quiet = len(decisions(router))
        time.sleep(20)
        assert len(decisions(router)) == quiet  # nobody sends: nothing is tried
