"""`apply --confirm` on a real kernel: taken back by itself, kept once confirmed, taken back though all are killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import Netns
from flowfast.lab.topology import two_gateways
from tests.guest.router import COMMAND

pytestmark = pytest.mark.guest(images=["debian14", "debian12"], also=["debian13"], nics=3)


class Gateway:
    """gw1 with a tunnel and a config, and flowfast's one-shot commands."""

    def __init__(self, ns: Netns, folder: Path) -> None:
        self.ns, self.config = ns, folder / "site.yaml"
        self.write("")

    def write(self, more: str) -> None:
        self.config.write_text(f"devices: {{lan: [lan0], wan: [wan0]}}\n{more}")

    def flowfast(self, *arguments: str) -> str:
        return self.ns.run([*COMMAND, *arguments], timeout=120).stdout

    def held(self) -> list[str]:
        """The ruleset, line by line, sorted: tables and chains that are made again are listed in another order."""
        return sorted(self.ns.run(["nft", "-s", "list", "ruleset"]).stdout.splitlines())

    def until(self, true: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, self.held()
            time.sleep(0.3)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with two_gateways("policy", wire="nic") as topo:
        manual_keys(topo)
        yield Gateway(topo.gw1, tmp_path)


def test_what_nobody_confirms_is_taken_back(gateway: Gateway) -> None:
    gateway.flowfast("apply", str(gateway.config))
    before = gateway.held()
    gateway.write("offload: {mode: outbound-only}\n")
    said = gateway.flowfast("apply", str(gateway.config), "--confirm", "5")
    assert "unless you say: flowfast confirm" in said
    assert gateway.held() != before
    gateway.until(lambda: gateway.held() == before, 90)


def test_what_is_confirmed_stays_and_can_still_be_taken_back(gateway: Gateway) -> None:
    empty = gateway.held()
    gateway.flowfast("apply", str(gateway.config), "--confirm", "60")
    assert "Confirmed" in gateway.flowfast("confirm")
    time.sleep(2)
    assert "\tflowtable fast {" in gateway.held()
    assert "Taken back" in gateway.flowfast("rollback")
    assert gateway.held() == empty


def test_the_journal_knows_the_way_back_when_all_are_killed(gateway: Gateway) -> None:
    empty = gateway.held()
    gateway.flowfast("apply", str(gateway.config), "--confirm", "300")
    waiting = [pid for pid in gateway.ns.processes() if b"--wait" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert waiting
    for pid in waiting:
        os.kill(pid, signal.SIGKILL)
    assert "Taken back" in gateway.flowfast("rollback")
    assert gateway.held() == empty
