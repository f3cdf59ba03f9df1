"""What a gateway spends on a packet with and without stages: bursts of small UDP packets with DF, to nobody.

With the guest booted with --icount guest time counts instructions (measured.md): nanoseconds per packet are
instructions per packet. Frames come from a packet socket, many in one call, and the generator is subtracted.
"""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import cycle, islice
from statistics import median
from typing import Literal

from flowfast.lab.demo.stage import NOBODY
from flowfast.lab.inject import UDP, checksum
from flowfast.lab.netns import LabError, Netns
from flowfast.lab.qualify.traffic import Burst
from flowfast.lab.topology import TwoGateways, wan_address
from flowfast.lab.traffic import udp_echo

FLOWS = 16
PORT = 6100
"""Source port of the first flow; the others count up. All go to port 9."""
PAYLOAD = 22
"""Bytes: frames of 64."""
RUNS = (1024, 4096, 4096, 4096)
"""Packets of each run; the first does not count."""
QDISC_BYPASS = 20
SOL_PACKET = 263


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames of one direction, by flow: 64 each, with what connected sockets send (DF, an ID that counts up)."""

    by_flow: tuple[tuple[bytes, ...], ...]

    def bursts(self, size: int) -> list[Burst]:
        """All frames, `size` in a row of each flow in turn."""
        return [
            Burst(flow[start : start + size]) for start in range(0, len(self.by_flow[0]), size) for flow in self.by_flow
        ]


def frames(source: str, destination: str, smac: str, dmac: str, *, df: bool = True) -> Frames:
    """64 frames for each of the flows."""
    ends = (IPv4Address(source), IPv4Address(destination))
    macs = bytes.fromhex(dmac.replace(":", "")) + bytes.fromhex(smac.replace(":", "")) + b"\x08\x00"

    def frame(flow: int, number: int) -> bytes:
        payload = struct.pack("!HI", flow, number).ljust(PAYLOAD, b"\x55")
        head = struct.pack("!HHHH", PORT + flow, 9, 8 + PAYLOAD, 0)
        pseudo = ends[0].packed + ends[1].packed + struct.pack("!HH", UDP, 8 + PAYLOAD)
        sum_ = checksum(pseudo + head + payload) or 0xFFFF
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + PAYLOAD, number + 1, 0x4000 if df else 0, 64, UDP, 0)
        ip += ends[0].packed + ends[1].packed
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        return macs + ip + head[:6] + struct.pack("!H", sum_) + payload

    return Frames(tuple(tuple(frame(flow, number) for number in range(64)) for flow in range(FLOWS)))


def per_packet(host: Netns, device: str, what: Frames, burst: int) -> float:
    """Nanoseconds a packet: the median of the runs, sent as fast as this one CPU can."""
    sender = host.socket(socket.AF_PACKET, socket.SOCK_RAW)
    try:
        sender.bind((device, 0))
        sender.setsockopt(SOL_PACKET, QDISC_BYPASS, 1)
        bursts, descriptor = what.bursts(burst), sender.fileno()
        took = []
        for count in RUNS:
            started = time.monotonic()
            for each in islice(cycle(bursts), count // burst):
                each.send(descriptor)
            took.append((time.monotonic() - started) * 1e9 / count)
            time.sleep(0.05)
        return median(took[1:])
    finally:
        sender.close()


@contextmanager
def nobody(gateway: Netns, device: str, address: str) -> Iterator[list[int]]:
    """Has what is sent to `address` leave the device for a MAC that nobody has; the list gets how many left."""
    statistics = f"/sys/class/net/{device}/statistics/tx_packets"
    gateway.run(["ip", "neigh", "replace", address, "lladdr", NOBODY, "dev", device, "nud", "permanent"])
    left: list[int] = []
    before = int(gateway.read(statistics))
    try:
        yield left
        time.sleep(0.1)
        left.append(int(gateway.read(statistics)) - before)
    finally:
        gateway.run(["ip", "neigh", "del", address, "dev", device])


def generator(topo: TwoGateways, burst: int) -> float:
    """What a packet costs who sends it: from h1, to nobody."""
    return per_packet(topo.h1, "e0", _frames(topo.h1, topo, 1, NOBODY), burst)


def outbound(topo: TwoGateways, burst: int, less: float) -> float:
    """What gw1 spends on a packet from h1 into the tunnel. LabError where not every packet left."""
    what = frames_of(topo, 1)
    with nobody(topo.gw1, "wan0", wan_address(2, 4)) as left:
        took = per_packet(topo.h1, "e0", what, burst)
    _all(left)
    return took - less


def inbound(topo: TwoGateways, burst: int) -> float:
    """What gw1 spends on a packet that came through the tunnel, until it has left for h1. LabError as above.

    That is the way from h2 through both gateways, less the way through gw2 alone.
    """
    what = _frames(topo.h2, topo, 2, _mac(topo.gw2, "lan0"), df=False)
    with nobody(topo.gw2, "wan0", wan_address(1, 4)) as sent:
        before = per_packet(topo.h2, "e0", what, burst)
    with nobody(topo.gw1, "lan0", topo.host_address(1, 4)) as left:
        through = per_packet(topo.h2, "e0", what, burst)
    _all(sent)
    _all(left)
    return through - before


def _all(left: list[int]) -> None:
    if left[0] < sum(RUNS):
        raise LabError(f"{left[0]} of {sum(RUNS)} packets left the gateway")


def _mac(ns: Netns, device: str) -> str:
    return ns.read(f"/sys/class/net/{device}/address")


def frames_of(topo: TwoGateways, side: Literal[1, 2]) -> Frames:
    """What the host behind gateway `side` sends to the other host, through the gateway."""
    host, gateway = (topo.h1, topo.gw1) if side == 1 else (topo.h2, topo.gw2)
    return _frames(host, topo, side, _mac(gateway, "lan0"))


def _frames(host: Netns, topo: TwoGateways, side: Literal[1, 2], dmac: str, *, df: bool = True) -> Frames:
    near, far = topo.host_address(side, 4), topo.host_address(2 if side == 1 else 1, 4)
    return frames(near, far, _mac(host, "e0"), dmac, df=df)


def establish(topo: TwoGateways) -> None:
    """A few packets of each flow both ways, from both sides: they are on the flowtable, where there is one."""
    for flow in range(FLOWS):
        far, near = topo.host_address(2, 4), topo.host_address(1, 4)
        for client, server, address in ((topo.h1, topo.h2, far), (topo.h2, topo.h1, near)):
            echo = udp_echo(client, server, address, packets=3, rate=500, port=9, source_port=PORT + flow)
            if not echo.received:
                raise LabError(f"no UDP packet of flow {flow} came back through the tunnel")
