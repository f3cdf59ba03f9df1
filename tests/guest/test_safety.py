"""No plaintext where IPsec is required: an attacker on the WAN forges replies of connections that are fast.

All the while the controller is killed, restarted and reconfigured, the tunnel rekeyed, the firewall changed. What
reaches the LAN is counted: zero. That the attack works at all is shown first, with the guard taken out by hand.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from flowfast.lab.ike import Daemon, two_daemons
from flowfast.lab.inject import TCP, UDP, Arrivals, Injection, Tuple
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.lab.traffic import UdpFlow
from tests.guest.oneshot import tcp_chat
from tests.guest.router import Router

pytestmark = pytest.mark.guest(images=["debian14", "debian13"], nics=3)

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\n"
UDP_PORT, TCP_PORT, OURS = 7, 8, 4100


@dataclass
class Attack:
    topo: TwoGateways
    ike: Daemon
    router: Router

    def tuples(self) -> list[Tuple]:
        """Forged replies of the four connections that are kept fast."""
        return [
            Tuple(self.topo.host_address(2, family), self.topo.host_address(1, family), port, OURS, protocol)
            for family in (4, 6)
            for protocol, port in ((UDP, UDP_PORT), (TCP, TCP_PORT))
        ]

    @contextmanager
    def connections(self) -> Iterator[None]:
        """The four connections, until all of them are on the flowtable, and as long as the block lasts."""
        h1, h2 = self.topo.h1, self.topo.h2
        with ExitStack() as stack:
            for family in (4, 6):
                source, address = self.topo.host_address(1, family), self.topo.host_address(2, family)
                udp = UdpFlow(h1, h2, address, rate=20, port=UDP_PORT, source=source, source_port=OURS)
                stack.enter_context(udp)
                stack.enter_context(tcp_chat(h1, h2, source, address, source_port=OURS, port=TCP_PORT))
            deadline = time.monotonic() + 20
            while len(self.fast()) < 4:
                assert time.monotonic() < deadline, self.router.ns.run(["conntrack", "-L"]).stdout
                time.sleep(0.3)
            yield

    def fast(self) -> list[str]:
        """Connections from port OURS that are on the flowtable."""
        return [line for line in self.router.offloaded() if f"sport={OURS} " in line]

    @contextmanager
    def under_attack(self) -> Iterator[Arrivals]:
        """Forged packets arrive on the WAN; the block's Arrivals counts what reaches the LAN."""
        mac = self.topo.gw1.read("/sys/class/net/wan0/address")
        with Arrivals(self.topo.h1, "e0") as arrived, Injection(self.topo.gw2, "wan0", mac, self.tuples()) as sent:
            yield arrived
            assert sent.sent > 100
        assert arrived.seen > 0

    def guard_drops(self) -> int:
        """Packets that the guard of wan0 dropped."""
        text = self.router.nft("list", "counter", "netdev", "flowfast", "guard_wan0")
        return int(text.split("packets")[1].split()[0])


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    with two_gateways("policy", wire="nic") as topo, two_daemons(topo) as (ike, _):
        assert topo.ping(4)
        assert topo.ping(6)
        with Router(topo.gw1, CONFIG, tmp_path_factory.mktemp("flowfast")) as router:
            yield Attack(topo, ike, router)


def test_without_the_guard_forged_packets_arrive(attack: Attack) -> None:
    """The attack is real, so that zero means something below."""
    attack.router.stop()
    with attack.connections():
        attack.router.nft("flush", "chain", "netdev", "flowfast", "guard_wan0")
        with attack.under_attack() as arrived:
            time.sleep(5)
    assert arrived.count > 100
    attack.router.start()
    assert "jump plaintext_wan0" in attack.router.nft("list", "table", "netdev", "flowfast")


def rekey(attack: Attack) -> None:
    before = {sa.spi_in for sa in attack.ike.list_sas()}
    attack.ike.rekey("net0")
    attack.ike.wait_rekeyed("net0", before)


def crash(attack: Attack) -> None:
    attack.router.stop(signal.SIGKILL)
    time.sleep(1)
    attack.router.start()


def reconfigure(attack: Attack) -> None:
    for more in ("accounting: precise", "offload: {mode: outbound-only}", "offload: {protocols: [tcp]}", ""):
        attack.router.config.write_text(CONFIG + more)
        attack.router.stop()
        attack.router.start()


def foreign_change(attack: Attack) -> None:
    for _ in range(5):
        attack.router.nft("add", "table", "inet", "operator")
        time.sleep(0.3)
        attack.router.nft("delete", "table", "inet", "operator")


def flush_ruleset(attack: Attack) -> None:
    attack.router.nft("flush", "ruleset")
    deadline = time.monotonic() + 20
    while "flowtable fast" not in attack.router.nft("list", "ruleset"):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def remove_and_apply(attack: Attack) -> None:
    attack.router.stop()
    attack.router.flowfast("apply", "--remove")
    attack.router.start()


@pytest.mark.parametrize(
    "event",
    [
        rekey,
        crash,
        reconfigure,
        foreign_change,
        pytest.param(flush_ruleset, marks=pytest.mark.changes_foreign),
        remove_and_apply,
    ],
)
def test_not_one_forged_packet_arrives(attack: Attack, event: Callable[[Attack], None]) -> None:
    with attack.connections(), attack.under_attack() as arrived:
        time.sleep(1)
        event(attack)
        time.sleep(2)
        assert attack.guard_drops() > 0
    assert arrived.count == 0
