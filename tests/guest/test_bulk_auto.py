"""`flowfast run` with profile auto: it tries the stages under real traffic, and ends where the traffic wants it."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import cycle

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.qualify.cost import establish, frames_of, nobody, slots
from flowfast.lab.topology import TwoGateways, two_gateways, wan_address
from flowfast.plan.governor import PEEK_SECONDS
from tests.guest.router import Router

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3), pytest.mark.long(seconds=300)]

CONFIG = """
devices: {lan: [lan0], wan: [wan0]}
bulk: {profile: auto}
"""
MERGE_UDP = ("gro-list ", "udp-gro-forwarding ")
"""How a decision for a stage that puts UDP together begins: which of them is a matter of a few percent."""
LATEST = 90.0
"""Seconds until what must have happened has: the guest is emulated, with one CPU for all."""
SLOT = "5ms"
CALLS, PAUSE = 4, 0.05
"""Calls of 64 packets between two pauses, so that flowfast has its turn: some thousands a second."""


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


def send_until(topo: TwoGateways, router: Router, burst: int, done: Callable[[], bool]) -> float:
    """Bursts of all flows until something is so; and how many seconds that took."""
    started = time.monotonic()
    sender = topo.h1.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with sender, slots(topo.h1, "e0", SLOT), nobody(topo.gw1, "wan0", wan_address(2, 4)):
        sender.bind(("e0", 0))
        for call, each in enumerate(cycle(frames_of(topo, 1, burst)), 1):
            each.send(sender.fileno())
            if call % CALLS == 0:
                if done():
                    break
                assert time.monotonic() - started < LATEST, router.log.read_text()
                time.sleep(PAUSE)
    return time.monotonic() - started


def until_chosen(topo: TwoGateways, router: Router, burst: int) -> tuple[str, float]:
    """Traffic until something new has been chosen; and how many seconds that took."""
    before = len(decisions(router))
    took = send_until(topo, router, burst, lambda: len(decisions(router)) > before)
    return decisions(router)[-1], took


def test_auto_follows_the_traffic(topo: TwoGateways, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Bursts: a stage that merges UDP. Packet by packet: none. Bursts again: one again.

    That it takes 30 s is tests/unit/plan/test_governor.py's: here a look takes one second, and not half of one.
    """
    with Router(topo.gw1, CONFIG, tmp_path_factory.mktemp("auto")) as router:
        establish(topo)
        # How packets arrive is seen, then the shield is there, then the stages that need it can be tried.
        on = "lan0 rx-gro-list: off -> on"
        send_until(topo, router, 16, lambda: on in router.log.read_text())
        first, _ = until_chosen(topo, router, 16)
        lone, took_off = until_chosen(topo, router, 1)
        again, took_on = until_chosen(topo, router, 64)
        print(first, lone, took_off, again, took_on, sep="\n")
        assert first.startswith(MERGE_UDP)
        assert lone.startswith("off")
        assert again.startswith(MERGE_UDP)
        quiet = len(decisions(router))
        time.sleep(PEEK_SECONDS + 2)
        assert len(decisions(router)) == quiet  # nobody sends: nothing is tried
