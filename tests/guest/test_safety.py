"""No plaintext where IPsec is required: an attacker on the WAN forges replies of connections that are fast.

All the while the controller is killed, restarted and reconfigured, the tunnel rekeyed, the firewall changed. What
reaches the LAN is counted: zero. That the attack works at all is shown first, with the guard taken out by hand.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from flowfast.lab.ike import Daemon, two_daemons
from flowfast.lab.inject import Arrivals
from flowfast.lab.topology import BOTH, TwoGateways, two_gateways
from tests.guest.attack import OURS, Connection, connections, forging, replies, until_fast, wait_for
from tests.guest.router import Router

pytestmark = pytest.mark.guest(images=["debian14", "debian13"], also=["debian12"], nics=3)

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\n"


@dataclass
class Attack:
    topo: TwoGateways
    ike: Daemon
    router: Router

    @property
    def flows(self) -> list[Connection]:
        """A pair of addresses of each family."""
        return [(self.topo.host_address(1, f), self.topo.h2, self.topo.host_address(2, f)) for f in BOTH]

    @contextmanager
    def connections(self) -> Iterator[None]:
        """UDP and TCP of each family, on the flowtable, as long as the block lasts."""
        with connections(self.topo.h1, self.flows):
            until_fast(self.topo.gw1, self.flows)
            yield

    @contextmanager
    def under_attack(self) -> Iterator[Arrivals]:
        """Forged packets arrive on the WAN; the block's Arrivals counts what reaches the LAN."""
        with forging(self.topo, self.topo.h1, replies(self.flows), rate=20) as arrived:
            yield arrived

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
    """By a restart, from guarded to outbound only; back again by a reload."""
    attack.router.config.write_text(CONFIG + "offload: {mode: outbound-only}")
    attack.router.stop()
    attack.router.start()
    attack.router.config.write_text(CONFIG)
    hang_up(attack)


def hang_up(attack: Attack) -> None:
    assert attack.router.process is not None
    attack.router.process.send_signal(signal.SIGHUP)
    time.sleep(1.5)


def reload(attack: Attack) -> None:
    for more in ("accounting: precise", "offload: {mode: outbound-only}", "offload: [", ""):
        attack.router.config.write_text(CONFIG + more)
        hang_up(attack)


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
        reload,
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


@pytest.mark.long(seconds=120)
def test_no_instant_without_a_guard(attack: Attack) -> None:
    """From guarded to outbound only and back, again and again, under as many forged packets as the attacker can send.

    In one transaction the WAN would be on the flowtable some milliseconds before the guard is whole.
    """
    with attack.connections():
        with forging(attack.topo, attack.topo.h1, replies(attack.flows), rate=1000) as arrived:
            for mode in ("outbound-only", "guarded") * 8:
                attack.router.config.write_text(CONFIG + f"offload: {{mode: {mode}}}")
                hang_up(attack)
                wait_for(lambda g=mode == "guarded": guarded(attack) is g, attack.router.log.read_text)
            time.sleep(1)
            assert attack.guard_drops() > 0
        assert arrived.count == 0
    attack.router.config.write_text(CONFIG)
    hang_up(attack)


def guarded(attack: Attack) -> bool:
    return "netdev flowfast" in attack.router.nft("list", "tables")


def test_a_drop_rule_made_while_the_controller_was_dead_holds_once_it_is_back(attack: Attack) -> None:
    """The flow never meets the firewall by itself: on the flowtable it would go on for ever."""
    router = attack.router
    with attack.connections():
        router.stop(signal.SIGKILL)
        rules = "add table inet operator\nadd chain inet operator forward { type filter hook forward priority 0; }\n"
        rules += f"add rule inet operator forward udp sport {OURS} counter drop\n"
        router.ns.run(["nft", "-f", "-"], stdin=rules)
        try:
            time.sleep(2)
            assert dropped(attack) < 10  # nobody told the flowtable
            router.start()
            time.sleep(2)
            assert dropped(attack) > 20
        finally:
            router.nft("delete", "table", "inet", "operator")


def dropped(attack: Attack) -> int:
    """Packets that the operator's rule has dropped."""
    listed = attack.router.nft("list", "chain", "inet", "operator", "forward")
    return int(listed.split("counter packets")[1].split()[0])
