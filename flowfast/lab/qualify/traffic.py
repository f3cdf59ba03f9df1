"""Sends one kind of packets from sockets, in bursts, and compares what arrives byte for byte."""

import ctypes
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from flowfast.lab.netns import LabError, Netns
from flowfast.lab.qualify.kinds import Tcp, Udp
from flowfast.lab.traffic import IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO, PMTUDISC_DONT, SO_RCVBUFFORCE
from flowfast.lab.traffic import family_of as _family

FLOWS = 2
BURST = 16
PAUSE = 0.004
"""Seconds between bursts: longer than a stage waits for more packets."""
QUIET = 0.6
SO_NO_CHECK = 11
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Ends:
    """Who sends to whom."""

    sender: Netns
    receiver: Netns
    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """What became of what was sent: packets (UDP) or bytes (TCP). `wrong`: arrived otherwise, twice or out of order."""

    sent: int
    got: int
    wrong: int


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint))


class Burst:
    """Packets for a connected or bound socket, made ready to be sent in one call: close behind each other."""

    def __init__(self, packets: Sequence[bytes]) -> None:
        self._packets = packets  # what the pointers below point at
        self._headers = (_Mmsghdr * len(packets))()
        for header, packet in zip(self._headers, packets, strict=True):
            vector = _Iovec(packet, len(packet))
            header.header.iov, header.header.iovlen = ctypes.pointer(vector), 1

    def send(self, descriptor: int) -> None:
        """Sends all (sendmmsg). Raises LabError where fewer left."""
        done = _LIBC.sendmmsg(descriptor, self._headers, len(self._headers), 0)
        if done != len(self._headers):
            why = os.strerror(ctypes.get_errno())
            raise LabError(f"sendmmsg: {done} of {len(self._headers)} packets: {why}")


def udp(ends: Ends, kind: Udp) -> Arrived:
    """Two flows, in bursts. LabError where not even their first packets come through."""
    family = _family(ends.destination)
    receiver = ends.receiver.socket(family, socket.SOCK_DGRAM)
    senders = [ends.sender.socket(family, socket.SOCK_DGRAM) for _ in range(FLOWS)]
    try:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 23)
        receiver.bind((ends.destination, 7000))
        flows: dict[int, list[bytes]] = {}
        for number, sender in enumerate(senders):
            _prepare(sender, kind)
            sender.bind((ends.source, 0))
            sender.connect((ends.destination, 7000))
            _establish(sender, receiver)
            per_flow = kind.count // FLOWS
            flows[sender.getsockname()[1]] = [kind.payload(number, packet) for packet in range(per_flow)]
        got: dict[int, list[bytes]] = {port: [] for port in flows}
        for start in range(0, kind.count // FLOWS, BURST):
            for sender in senders:
                Burst(flows[sender.getsockname()[1]][start : start + BURST]).send(sender.fileno())
            time.sleep(PAUSE)
        receiver.settimeout(QUIET)
        while sum(map(len, got.values())) < kind.count:
            try:
                data, source = receiver.recvfrom(1 << 16)
            except TimeoutError:
                break
            if data != b"hello":
                got[source[1]].append(data)
        return Arrived(kind.count, sum(map(len, got.values())), _wrong(flows, got))
    finally:
        for each in (receiver, *senders):
            each.close()


def _prepare(sender: socket.socket, kind: Udp) -> None:
    how = PMTUDISC_DO if kind.df else PMTUDISC_DONT
    if kind.family == 4:
        sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, how)
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, how)
    if not kind.checksum:
        sender.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)


def _establish(sender: socket.socket, receiver: socket.socket) -> None:
    """A packet each way, and one more: the connection is on the flowtable."""
    for end in (sender, receiver):
        end.settimeout(1)
    for attempt in range(5):
        try:
            sender.send(b"hello")
            while True:
                _, peer = receiver.recvfrom(64)
                if peer[1] == sender.getsockname()[1]:
                    break
            receiver.sendto(b"hello", peer)
            sender.recv(64)
            sender.send(b"hello")
            return
        except (TimeoutError, ConnectionError, OSError) as error:
            last = f"{error} ({attempt + 1} times)"
    raise LabError(f"no packet came through and back: {last}")


def _wrong(sent: dict[int, list[bytes]], got: dict[int, list[bytes]]) -> int:
    """Packets that were not sent so, came twice, or out of order."""
    wrong = 0
    for port, payloads in got.items():
        expected = iter(sent[port])
        # In order, with gaps: each must be found further on in what was sent.
        wrong += sum(not any(payload == other for other in expected) for payload in payloads)
    return wrong


def tcp(ends: Ends, kind: Tcp, timeout: float = 5) -> Arrived:
    """One connection; what arrived within `timeout` seconds."""
    family = _family(ends.destination)
    data = bytes((number * 7 + (number >> 8)) & 0xFF for number in range(kind.size))
    got = bytearray()
    listener = ends.receiver.socket(family, socket.SOCK_STREAM)
    sender = ends.sender.socket(family, socket.SOCK_STREAM)

    def receive() -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(timeout)
                while part := connection.recv(1 << 16):
                    got.extend(part)
        except OSError:
            return  # what did not come by then is missing in `got`

    with listener, sender:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for end in (listener, sender):
            if kind.mss:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, kind.mss)
            end.settimeout(timeout)
        listener.bind((ends.destination, 7001))
        listener.listen()
        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        try:
            sender.bind((ends.source, 0))
            sender.connect((ends.destination, 7001))
            if kind.write:
                sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for start in range(0, kind.size, kind.write):
                    sender.sendall(data[start : start + kind.write])
            else:
                sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # a path that loses packets stalls the sender: what arrived is the answer
        thread.join(timeout)
    return Arrived(kind.size, len(got), 0 if data.startswith(got) else 1)
