"""What gw1 itself spends on a packet: pktgen through it, to nobody, less the generator.

With --icount guest time counts instructions, so that a run's time per packet is instructions per packet exactly
(measured.md, "Cost of a packet"). The packets belong to one established UDP connection, port 9 to 9, which is on the
flowtable once flowfast runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from flowfast.lab.netns import LabError, Netns
from flowfast.lab.pktgen import Load, pktgen
from flowfast.lab.topology import TwoGateways, wan_address
from flowfast.lab.traffic import udp_echo

COUNTS = (200, 3000, 3000, 3000)
"""Packets of each run. When QEMU hands them over depends on the host, and with it how many a NIC's poll finds."""
NOBODY = "02:00:00:00:00:99"
"""A MAC address that the NIC at the other end filters out: a sink that costs the guest nothing."""


def establish(topo: TwoGateways) -> None:
    """Sends the connection's packets both ways. LabError if none came back."""
    echo = udp_echo(topo.h1, topo.h2, topo.host_address(2, 4), packets=20, rate=200, port=9, source_port=9)
    if not echo.received:
        raise LabError("no UDP packet came back through the tunnel")


def generator(topo: TwoGateways) -> float:
    """Nanoseconds that a packet takes pktgen itself, in h1, to nobody."""
    return _run(topo.h1, NOBODY, topo.host_address(1, 4), topo.host_address(2, 4))


def outbound(topo: TwoGateways, less: float) -> float | None:
    """What gw1 spends on a packet from h1 into the tunnel, `less` the generator; None if not every packet left."""
    with _nobody(topo.gw1, "wan0", wan_address(2, 4)), _all_leave(topo.gw1, "wan0") as all_left:
        took = _run(topo.h1, _mac(topo.gw1), topo.host_address(1, 4), topo.host_address(2, 4))
    return took - less if all_left else None


def inbound(topo: TwoGateways) -> float | None:
    """What gw1 spends on a packet that came through the tunnel, until it has left for h1; None as above.

    That is the way from h2 through both gateways, less the way through gw2 alone.
    """
    mac, ends = _mac(topo.gw2), (topo.host_address(2, 4), topo.host_address(1, 4))
    with _nobody(topo.gw2, "wan0", wan_address(1, 4)), _all_leave(topo.gw2, "wan0") as all_sent:
        before = _run(topo.h2, mac, *ends)
    with _nobody(topo.gw1, "lan0", ends[1]), _all_leave(topo.gw1, "lan0") as all_left:
        through = _run(topo.h2, mac, *ends)
    return through - before if all_sent and all_left else None


def _mac(gateway: Netns) -> str:
    return gateway.read("/sys/class/net/lan0/address")


def _run(host: Netns, mac: str, source: str, destination: str) -> float:
    """The median of some runs after one that does not count."""
    loads = (Load(source=source, destination=destination, mac=mac, count=count) for count in COUNTS)
    return median([pktgen(host, load).nanoseconds_per_packet for load in loads][1:])


@contextmanager
def _nobody(gateway: Netns, device: str, address: str) -> Iterator[None]:
    """Makes `address` a neighbour of that device that is not there."""
    gateway.run(["ip", "neigh", "replace", address, "lladdr", NOBODY, "dev", device, "nud", "permanent"])
    try:
        yield
    finally:
        gateway.run(["ip", "neigh", "del", address, "dev", device])


@contextmanager
def _all_leave(gateway: Netns, device: str) -> Iterator[list[bool]]:
    """Fills the list (makes it true) if as many packets left through the device as were generated."""
    statistics = f"/sys/class/net/{device}/statistics/tx_packets"
    before = int(gateway.read(statistics))
    verdict: list[bool] = []
    yield verdict
    if int(gateway.read(statistics)) - before >= sum(COUNTS):
        verdict.append(True)
