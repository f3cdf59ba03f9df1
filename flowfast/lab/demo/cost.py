"""What gw1 itself spends on a packet: pktgen through it, to nobody, less the generator.

With --icount guest time counts instructions, so that a run's time per packet is instructions per packet exactly
(measured.md, "Cost of a packet"). What a device does in place of the CPU is taken out. The packets belong to one
established UDP connection of the tunnel, port 9 to 9, which is on the flowtable once flowfast runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from flowfast.lab.demo.site import TunnelSite
from flowfast.lab.demo.stage import NOBODY, Stage, nobody
from flowfast.lab.netns import LabError, Netns
from flowfast.lab.pktgen import Load, pktgen
from flowfast.lab.traffic import udp_echo

COUNTS = (200, 2000, 2000, 2000)
"""Packets of each run. When QEMU hands them over depends on the host, and with it how many a NIC's poll finds."""


def establish(stage: Stage, tunnel: TunnelSite) -> None:
    """Sends the connection's packets both ways. LabError if none came back."""
    topo = stage.topo
    echo = udp_echo(topo.h1, topo.h2, tunnel.host(2, 4), packets=20, rate=200, port=9, source_port=9)
    if not echo.received:
        raise LabError(f"no UDP packet came back through {tunnel.name}")


def generator(stage: Stage, tunnel: TunnelSite) -> float:
    """Nanoseconds that a packet takes pktgen itself, in h1, to nobody."""
    return _run(stage, stage.topo.h1, NOBODY, tunnel.host(1, 4), tunnel.host(2, 4))


def outbound(stage: Stage, tunnel: TunnelSite, less: float) -> float | None:
    """What gw1 spends on a packet from h1 into the tunnel, `less` the generator; None if not every packet left."""
    topo = stage.topo
    with stage.lost(1), _all_leave(topo.gw1, "wan0") as all_left:
        took = _run(stage, topo.h1, _mac(topo.gw1), tunnel.host(1, 4), tunnel.host(2, 4))
    return took - less if all_left else None


def inbound(stage: Stage, tunnel: TunnelSite) -> float | None:
    """What gw1 spends on a packet that came through the tunnel, until it has left for h1; None as above.

    That is the way from h2 through both gateways, less the way through gw2 alone.
    """
    topo = stage.topo
    mac, ends = _mac(topo.gw2), (tunnel.host(2, 4), tunnel.host(1, 4))
    with stage.lost(2), _all_leave(topo.gw2, "wan0") as all_sent:
        before = _run(stage, topo.h2, mac, *ends)
    with nobody(topo.gw1, "lan0", ends[1]), _all_leave(topo.gw1, "lan0") as all_left:
        through = _run(stage, topo.h2, mac, *ends)
    return through - before if all_sent and all_left else None


def _mac(gateway: Netns) -> str:
    return gateway.read("/sys/class/net/lan0/address")


def _run(stage: Stage, host: Netns, mac: str, source: str, destination: str) -> float:
    """The median of some runs after one that does not count."""
    loads = (Load(source=source, destination=destination, mac=mac, count=count) for count in COUNTS)
    return median([_once(stage, host, load) for load in loads][1:])


def _once(stage: Stage, host: Netns, load: Load) -> float:
    before = stage.busy()
    took = pktgen(host, load).nanoseconds_per_packet
    return took - (stage.busy() - before) / load.count


@contextmanager
def _all_leave(gateway: Netns, device: str) -> Iterator[list[bool]]:
    """Fills the list (makes it true) if as many packets left through the device as were generated."""
    statistics = f"/sys/class/net/{device}/statistics/tx_packets"
    before = int(gateway.read(statistics))
    verdict: list[bool] = []
    yield verdict
    if int(gateway.read(statistics)) - before >= sum(COUNTS):
        verdict.append(True)
