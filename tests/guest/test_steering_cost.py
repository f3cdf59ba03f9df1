"""What handing a packet to another CPU costs: instructions of both, for a packet that is dropped right behind it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest

from flowfast.kernel.knobs import RealKnobs
from flowfast.kernel.xdp import RealXdp
from flowfast.lab.netns import Netns
from flowfast.lab.pktgen import Load, pktgen
from flowfast.lab.wires import End, Nics
from flowfast.model.knob import Knob, KnobKind
from flowfast.model.steering import GENERIC, Side, Table
from flowfast.plan.steering.backend import PROGRAM

pytestmark = [pytest.mark.guest(images=["debian14"], nics=1, cpus=2, icount=True), pytest.mark.long(seconds=120)]

SPI = 0xBE9BE955
"""pktgen's payload begins with this number: sent to the NAT-T port, it is the SPI of ESP in UDP (net/core/pktgen.c)."""
PACKETS = 20_000
DROP = "table netdev t { chain c { type filter hook ingress device wan0 priority -500; counter drop; }; }"


@pytest.fixture
def ends() -> Iterator[tuple[Netns, Netns]]:
    """A generator on CPU 0, and a NIC whose interrupts are there, too, behind which everything is dropped."""
    nics = Nics()
    with Netns("one") as one, Netns("other") as other:
        nics.join(End(one, "e0"), End(other, "wan0"))
        for line in Path("/proc/interrupts").read_text().splitlines():
            if "input" in line or "output" in line:  # virtio-net's
                Path(f"/proc/irq/{line.split(':')[0].strip()}/smp_affinity_list").write_text("0")
        for end, name, address in ((one, "e0", "192.0.2.2"), (other, "wan0", "192.0.2.1")):
            end.run(["ip", "address", "add", f"{address}/24", "dev", name])
            end.run(["ip", "link", "set", name, "up"])
        yield one, other
        nics.close()


def _steer(backend: str) -> None:
    if backend == "rps":
        RealKnobs().turn(Knob(KnobKind.DEVICE, "wan0", "queues/rx-0/rps_cpus"), "1")
    elif backend != "none":
        mode = GENERIC if backend == "generic" else ""
        RealKnobs().turn(Knob(KnobKind.XDP, "wan0", "program"), mode + PROGRAM[Side.WAN])
        assert RealXdp().fill(Table("wan0", (1,), sas={SPI: 1}))


def _unsteer() -> None:
    RealKnobs().turn(Knob(KnobKind.DEVICE, "wan0", "queues/rx-0/rps_cpus"), "")
    RealKnobs().turn(Knob(KnobKind.XDP, "wan0", "program"), "none")


@contextmanager
def steered(ns: Netns, backend: str) -> Iterator[None]:
    ns.call(_steer, backend)
    try:
        yield
    finally:
        ns.call(_unsteer)


def received(cpu: int) -> int:
    """Packets that the stack took in on a CPU, whoever passed them there (net/core/net-procfs.c)."""
    return int(Path("/proc/net/softnet_stat").read_text().splitlines()[cpu].split()[0], 16)


def test_cpumap_costs_more_than_rps_and_less_than_twice(ends: tuple[Netns, Netns]) -> None:
    one, other = ends
    mac = other.run(["cat", "/sys/class/net/wan0/address"]).stdout.strip()
    load = Load("192.0.2.2", "192.0.2.1", mac, PACKETS, port=4500)
    other.run(["nft", DROP])
    cost = {}
    for backend in ("none", "rps", "xdp", "generic"):
        with steered(other, backend):
            before = received(1)
            runs = [pktgen(one, load).nanoseconds_per_packet for _ in range(4)][1:]
            moved = received(1) - before
        cost[backend] = median(runs)
        print(
            f"{backend}: {cost[backend]:.0f} instructions a packet, {min(runs):.0f} to {max(runs):.0f}; {moved} moved"
        )
        assert (moved > 3.9 * PACKETS) is (backend != "none"), moved
    assert cost["none"] < cost["rps"] < cost["xdp"] < cost["generic"], cost
    assert cost["xdp"] - cost["none"] < 3 * (cost["rps"] - cost["none"]), cost
