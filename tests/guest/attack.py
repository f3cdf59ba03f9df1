"""Forged replies of connections that are fast: what the tests of templates and of safety do on the WAN."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from flowfast.lab.hub import HubAndSpokes
from flowfast.lab.inject import TCP, UDP, Arrivals, Injection, Tuple
from flowfast.lab.netns import Netns
from flowfast.lab.topology import TwoGateways
from flowfast.lab.traffic import UdpFlow
from tests.guest.oneshot import offloaded, tcp_chat

OURS, THEIRS = 4100, 7
PATIENCE = 30.0
"""Seconds until connections that can be fast must be."""

Connection = tuple[str, Netns, str]
"""Who has it (an address of the victim), the server, and the server's address."""
Topology = TwoGateways | HubAndSpokes


def ports(flows: Sequence[Connection]) -> range:
    """The victim's ports, one for each pair of addresses; UDP and TCP have the same."""
    return range(OURS, OURS + len(flows))


@contextmanager
def connections(victim: Netns, flows: Sequence[Connection]) -> Iterator[None]:
    """A UDP and a TCP connection for each pair of addresses, as long as the block lasts."""
    with ExitStack() as stack:
        for (source, server, address), port in zip(flows, ports(flows), strict=True):
            udp = UdpFlow(victim, server, address, rate=20, port=THEIRS, source=source, source_port=port)
            stack.enter_context(udp)
            stack.enter_context(tcp_chat(victim, server, source, address, source_port=port, port=THEIRS + port))
        yield


def replies(flows: Sequence[Connection]) -> list[Tuple]:
    """What the servers' packets look like, seen from the WAN."""
    return [
        Tuple(address, source, server_port, port, protocol)
        for (source, _, address), port in zip(flows, ports(flows), strict=True)
        for protocol, server_port in ((UDP, THEIRS), (TCP, THEIRS + port))
    ]


def fast(router: Netns) -> str:
    """Connections that are on the flowtable, by the tuple of who opened them; each once, however often it is listed."""
    return "\n".join({line.partition("src=")[2].partition(" src=")[0] + " " for line in offloaded(router)})


def all_fast(router: Netns, flows: Sequence[Connection]) -> bool:
    """Whether UDP and TCP of each pair of addresses are on the flowtable."""
    listed = fast(router)
    return all(listed.count(f"sport={port} ") == 2 for port in ports(flows))


def until_fast(router: Netns, flows: Sequence[Connection]) -> None:
    """Waits until they are."""
    wait_for(lambda: all_fast(router, flows), lambda: router.run(["conntrack", "-L"]).stdout)


def wait_for(true: Callable[[], bool], told: Callable[[], str], seconds: float = PATIENCE) -> None:
    """Waits, and fails with what is `told` where it takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


@contextmanager
def forging(topo: Topology, victim: Netns, what: Sequence[Tuple], rate: float = 50) -> Iterator[Arrivals]:
    """Sends plaintext to the WAN of the router while the block lasts; its Arrivals counts what reaches the victim.

    At the end it was sent, and the victim's sniffer saw packets, forged or not: so that a count of 0 means something.
    """
    near, attacker = topo.wan[0], topo.wan[1]
    mac = near.ns.read(f"/sys/class/net/{near.name}/address")
    with Arrivals(victim, "e0") as arrived, Injection(attacker.ns, attacker.name, mac, what, rate=rate) as sent:
        yield arrived
    assert sent.sent > 20
    assert arrived.seen > 10
