"""What a gateway spends on a packet with and without stages: bursts of small UDP packets with DF, to nobody.

With the guest booted with --icount guest time counts instructions (measured.md): nanoseconds per packet are
instructions per packet. Frames come from a packet socket, many in one call, and leave their host a slot at a time
(netem): they arrive together, as a busy NIC has them, whenever the emulator takes its turn. The generator is
subtracted.
"""

import fcntl
import json
import os
import socket
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from itertools import chain, cycle, islice
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
EACH = 64
"""Frames of each flow, and frames in each call."""
RUNS = (1024, 4096, 4096, 4096)
"""Packets of each run; the first does not count."""
SO_SNDBUFFORCE = 32
ROOM = 1 << 26


def frames(source: str, destination: str, smac: str, dmac: str, burst: int, *, df: bool = True) -> list[Burst]:
    """EACH frames of each flow, `burst` in a row, made ready to be sent EACH at a time.

    They are what connected sockets send (DF, an ID that counts up). Of flows that are interleaved packet by packet (1)
    the ID counts up over all: GRO puts none together, as it could not of flows that are many.
    """
    ends = (IPv4Address(source), IPv4Address(destination))
    macs = bytes.fromhex(dmac.replace(":", "")) + bytes.fromhex(smac.replace(":", "")) + b"\x08\x00"

    def frame(flow: int, number: int) -> bytes:
        payload = struct.pack("!HI", flow, number).ljust(PAYLOAD, b"\x55")
        head = struct.pack("!HHHH", PORT + flow, 9, 8 + PAYLOAD, 0)
        pseudo = ends[0].packed + ends[1].packed + struct.pack("!HH", UDP, 8 + PAYLOAD)
        sum_ = checksum(pseudo + head + payload) or 0xFFFF
        count = number if burst > 1 else number * FLOWS + flow
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + PAYLOAD, count + 1, 0x4000 if df else 0, 64, UDP, 0)
        ip += ends[0].packed + ends[1].packed
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        return macs + ip + head[:6] + struct.pack("!H", sum_) + payload

    turns = ((flow, start) for start in range(0, EACH, burst) for flow in range(FLOWS))
    every = chain.from_iterable([frame(flow, start + more) for more in range(burst)] for flow, start in turns)
    return [Burst(list(islice(every, EACH))) for _ in range(FLOWS)]


@contextmanager
def slots(host: Netns, device: str, length: str = "1ms") -> Iterator[None]:
    """What the host sends leaves all at once, at the end of each slot."""
    host.run(["tc", "qdisc", "replace", "dev", device, "root", "netem", "limit", "20000", "slot", length, length])
    try:
        yield
    finally:
        host.run(["tc", "qdisc", "del", "dev", device, "root"])


def per_packet(host: Netns, device: str, what: list[Burst]) -> float:
    """Nanoseconds a packet: the median of the runs, sent as fast as this one CPU can, until the last has left.

    The CPU is never idle meanwhile, or the guest's clock would jump (Awake): the sender waits for no room. And it never
    takes the CPU from what it has sent (ksoftirqd): its own waiting would be among the costs.
    """
    sender = host.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with sender, slots(host, device), _behind_all_others():
        sender.bind((device, 0))
        sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, ROOM)
        took = []
        for count in RUNS:
            started = time.monotonic()
            for each in islice(cycle(what), count // EACH):
                each.send(sender.fileno())
            while _unsent(sender):
                pass
            took.append((time.monotonic() - started) * 1e9 / count)
            time.sleep(0.05)
        return median(took[1:])


@contextmanager
def _behind_all_others() -> Iterator[None]:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _unsent(sender: socket.socket) -> int:
    """Bytes of packets that have not left their device yet (SIOCOUTQ, packet_ioctl() in net/packet/af_packet.c)."""
    return int(struct.unpack("=i", fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)))[0])


@contextmanager
def nobody(gateway: Netns, device: str, address: str) -> Iterator[list[int]]:
    """Has what is sent to `address` leave the device for a MAC that nobody has; the list gets how many left.

    Afterwards the gateway knows the neighbour that it knew before: of one that it knew not, flows on the flowtable
    would not ask, but send to a MAC of zeros (neigh->ha, nf_flow_offload_ip_hook, since 6.19).
    """
    statistics = f"/sys/class/net/{device}/statistics/tx_packets"
    known = json.loads(gateway.run(["ip", "-j", "neigh", "show", "to", address, "dev", device]).stdout)
    entry = ["ip", "neigh", "replace", address, "dev", device, "lladdr"]
    gateway.run([*entry, NOBODY, "nud", "permanent"])
    left: list[int] = []
    before = int(gateway.read(statistics))
    try:
        yield left
        time.sleep(0.1)
        left.append(int(gateway.read(statistics)) - before)
    finally:
        gateway.run([*entry, known[0]["lladdr"], "nud", "stale"] if known else ["ip", "neigh", "flush", "to", address])


def generator(topo: TwoGateways) -> float:
    """What a packet costs who sends it: from h1, to nobody."""
    return per_packet(topo.h1, "e0", _frames(topo.h1, topo, 1, NOBODY, 1))


def outbound(topo: TwoGateways, burst: int, less: float) -> float:
    """What gw1 spends on a packet from h1 into the tunnel. LabError where not every packet left."""
    what = frames_of(topo, 1, burst)
    with nobody(topo.gw1, "wan0", wan_address(2, 4)) as left:
        took = per_packet(topo.h1, "e0", what)
    _all(left)
    return took - less


def inbound(topo: TwoGateways, burst: int) -> float:
    """What gw1 spends on a packet that came through the tunnel, until it has left for h1. LabError as above.

    That is the way from h2 through both gateways, less the way through gw2 alone.
    """
    what = _frames(topo.h2, topo, 2, _mac(topo.gw2, "lan0"), burst, df=False)
    with nobody(topo.gw2, "wan0", wan_address(1, 4)) as sent:
        before = per_packet(topo.h2, "e0", what)
    with nobody(topo.gw1, "lan0", topo.host_address(1, 4)) as left:
        through = per_packet(topo.h2, "e0", what)
    _all(sent)
    _all(left)
    return through - before


def _all(left: list[int]) -> None:
    if left[0] < sum(RUNS):
        raise LabError(f"{left[0]} of {sum(RUNS)} packets left the gateway")


def _mac(ns: Netns, device: str) -> str:
    return ns.read(f"/sys/class/net/{device}/address")


def frames_of(topo: TwoGateways, side: Literal[1, 2], burst: int) -> list[Burst]:
    """What the host behind gateway `side` sends to the other host, through the gateway."""
    host, gateway = (topo.h1, topo.gw1) if side == 1 else (topo.h2, topo.gw2)
    return _frames(host, topo, side, _mac(gateway, "lan0"), burst)


def _frames(
    host: Netns, topo: TwoGateways, side: Literal[1, 2], dmac: str, burst: int, *, df: bool = True
) -> list[Burst]:
    near, far = topo.host_address(side, 4), topo.host_address(2 if side == 1 else 1, 4)
    return frames(near, far, _mac(host, "e0"), dmac, burst, df=df)


def establish(topo: TwoGateways) -> None:
    """A few packets of each flow both ways, from both sides: they are on the flowtable, where there is one."""
    for flow in range(FLOWS):
        far, near = topo.host_address(2, 4), topo.host_address(1, 4)
        for client, server, address in ((topo.h1, topo.h2, far), (topo.h2, topo.h1, near)):
            echo = udp_echo(client, server, address, packets=3, rate=500, port=9, source_port=PORT + flow)
            if not echo.received:
                raise LabError(f"no UDP packet of flow {flow} came back through the tunnel")
