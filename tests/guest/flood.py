"""Very many packets of many kinds at once, through a gateway and a tunnel: whether each arrives whole, in order, once.

A flow goes around a ring of packets that are all different: it needs no building while it is sent, and a packet that
is lost, changed, doubled or out of turn is another one than the next of the ring.
"""

import random
import select
import socket
import threading
import time
from dataclasses import dataclass

from flowfast.lab.netns import LabError, Netns
from flowfast.lab.qualify.traffic import Burst
from flowfast.lab.topology import Family
from flowfast.lab.traffic import IP_MTU_DISCOVER, PMTUDISC_DO, SO_RCVBUFFORCE

RING = 512
"""Packets of a flow that differ: many more than any queue on the way holds of it."""
PORT = 7200
ROOM = 1 << 26
QUIET = 20.0
"""Seconds without a packet after which what is missing is lost."""
PAUSE = 0.002
AT_ONCE = 96
"""Packets of all flows, about, between two pauses: what the emulated NICs' rings of 256 hold."""
BLOCK = random.Random(7).randbytes(1 << 16)  # noqa: S311 - no secret
"""What a TCP stream repeats."""
HELLO = b"hello"


@dataclass(frozen=True)
class Flow:
    """UDP of IP `family`, `size` bytes of payload a packet (0: they change, up to 1200), `burst` packets in a row."""

    family: Family
    size: int
    burst: int

    def ring(self, number: int) -> list[bytes]:
        """Its packets, made of its number: the same for who sends and who receives."""
        dice = random.Random(number)  # noqa: S311 - no secret
        sizes = (dice.choice((1, 18, 60, 100, 300, 600, 1200)) for _ in range(RING))
        return [dice.randbytes(self.size or next(sizes)) for _ in range(RING)]


FLOWS = (
    *(Flow(4, 22, burst) for burst in (1, 4, 16, 64)),
    *(Flow(4, size, 16) for size in (18, 100, 512, 1320)),
    Flow(4, 0, 16),
    Flow(4, 0, 1),
    *(Flow(6, size, 16) for size in (22, 100, 1320)),
    Flow(6, 0, 16),
)
"""64-byte frames, IMIX, 1400 bytes and what changes, over both IPs: bursts, and packet by packet."""


STREAMS: tuple[tuple[Family, int], ...] = ((4, 0), (6, 0), (4, 88))
"""TCP beside them: the family, and a segment size of its own."""


@dataclass(frozen=True)
class Arrivals:
    """Packets that were sent and came. `wrong`: others than the next of their flow. `streams`: bytes of TCP that came,
    and whether they were the right ones."""

    sent: int
    got: int
    wrong: int
    streams: tuple[tuple[int, bool], ...]


Ends = dict[Family, str]
"""Addresses of one side."""


def flood(sender: Netns, receiver: Netns, near: Ends, far: Ends, packets: int) -> Arrivals:
    """`packets` of all FLOWS together, and the STREAMS beside them."""
    rounds = -(-packets // sum(flow.burst for flow in FLOWS))
    receiving = receiver.start(_receive, near, far, rounds)
    sinks = [receiver.start(_sink, far[family], number, mss) for number, (family, mss) in enumerate(STREAMS)]
    senders = [_udp(sender, number, near, far) for number in range(len(FLOWS))]
    stop = threading.Event()
    streams = [
        threading.Thread(target=_stream, args=(sender, far[family], number, mss, stop))
        for number, (family, mss) in enumerate(STREAMS)
    ]
    try:
        for each in senders:
            _meet(each)
        for stream in streams:
            stream.start()
        _send(senders, rounds)
    finally:
        stop.set()
        for stream in streams:
            if stream.is_alive():
                stream.join()
        for each in senders:
            each.close()
    got, wrong = receiving.result(900)
    return Arrivals(rounds * sum(flow.burst for flow in FLOWS), got, wrong, tuple(sink.result(60) for sink in sinks))


def _udp(ns: Netns, number: int, near: Ends, far: Ends) -> socket.socket:
    """The sender of a flow; DF is set, as applications with path MTU discovery have it."""
    family = FLOWS[number].family
    sender = ns.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    if family == 4:
        sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)
    sender.bind((near[family], PORT + number))
    sender.connect((far[family], PORT + number))
    return sender


def _meet(sender: socket.socket) -> None:
    """Packets both ways: the flow is on the flowtable."""
    sender.settimeout(0.5)
    for _ in range(120):
        try:
            sender.send(HELLO)
            sender.recv(64)
            sender.send(HELLO)
            return
        except OSError:
            time.sleep(0.1)  # nobody listens yet
    raise LabError("no packet of a flow came through and back")


def _send(senders: list[socket.socket], rounds: int) -> None:
    rings = [flow.ring(number) for number, flow in enumerate(FLOWS)]
    bursts = [
        [Burst(ring[start : start + flow.burst]) for start in range(0, RING, flow.burst)]
        for flow, ring in zip(FLOWS, rings, strict=True)
    ]
    for sender in senders:
        sender.setblocking(True)
    descriptors = [sender.fileno() for sender in senders]
    for turn in range(rounds):
        sent = 0
        for flow, mine, descriptor in zip(FLOWS, bursts, descriptors, strict=True):
            mine[turn % len(mine)].send(descriptor)
            sent += flow.burst
            if sent >= AT_ONCE:
                sent = 0
                time.sleep(PAUSE)


def _receive(near: Ends, far: Ends, rounds: int) -> tuple[int, int]:
    """Packets that came, and those that were not the next of their flow; answers who says hello."""
    waiting, left, got, wrong = select.epoll(), 0, 0, 0
    ears: dict[int, tuple[socket.socket, list[bytes]]] = {}
    turns: dict[int, int] = {}
    for number, flow in enumerate(FLOWS):
        ear = socket.socket(socket.AF_INET if flow.family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        ear.bind((far[flow.family], PORT + number))
        ear.connect((near[flow.family], PORT + number))
        ear.setblocking(False)
        ears[ear.fileno()], turns[ear.fileno()] = (ear, flow.ring(number)), 0
        waiting.register(ear, select.EPOLLIN)
        left += flow.burst * rounds
    while left > 0:
        ready = waiting.poll(QUIET if got else 120)
        if not ready:
            break
        for descriptor, _ in ready:
            ear, ring = ears[descriptor]
            turn = turns[descriptor]
            try:
                while True:
                    packet = ear.recv(2048)
                    if packet == HELLO:
                        ear.send(HELLO)
                        continue
                    got, left = got + 1, left - 1
                    if packet == ring[turn % RING]:
                        turn += 1
                    else:
                        wrong += 1
                        turn = ring.index(packet) + 1 if packet in ring else turn
            except (BlockingIOError, ConnectionError):
                turns[descriptor] = turn
    return got, wrong


def _tcp(kind: socket.socket, mss: int) -> socket.socket:
    if mss:
        kind.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
    return kind


def _stream(ns: Netns, far: str, number: int, mss: int, stop: threading.Event) -> None:
    """Sends BLOCK over and over, a little at a time: the UDP packets are to come in between."""
    with _tcp(ns.socket(socket.AF_INET6 if ":" in far else socket.AF_INET, socket.SOCK_STREAM), mss) as sender:
        sender.settimeout(60)
        _reach(sender, (far, PORT + 100 + number))
        at, share = 0, 1 << 11 if mss else 1 << 14
        while not stop.is_set():
            sender.sendall(BLOCK[at : at + share])
            at = (at + share) % len(BLOCK)
            time.sleep(0.05)


def _reach(sender: socket.socket, where: tuple[str, int]) -> None:
    for _ in range(100):
        try:
            sender.connect(where)
            return
        except ConnectionRefusedError:
            time.sleep(0.1)  # nobody listens yet
    raise LabError(f"nobody listens at {where}")


def _sink(far: str, number: int, mss: int) -> tuple[int, bool]:
    with _tcp(socket.socket(socket.AF_INET6 if ":" in far else socket.AF_INET, socket.SOCK_STREAM), mss) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((far, PORT + 100 + number))
        listener.listen()
        listener.settimeout(300)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(300)
            got, whole = 0, True
            while part := connection.recv(1 << 16):
                at = got % len(BLOCK)
                whole = whole and (BLOCK + BLOCK)[at : at + len(part)] == part
                got += len(part)
    return got, whole
