"""Traffic between two namespaces, and what of it arrived: TCP by hash, UDP by sequence number and payload.

Sockets are made in their namespaces and used by threads of this process: the guest has one CPU as a rule, and a
process more costs 50 ms under emulation. Every function takes IPv4 and IPv6 addresses alike.
"""

import contextlib
import hashlib
import ipaddress
import random
import socket
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from flowfast.lab.netns import LabError, Netns

CHUNK = 1 << 16
LOOK = 0.05
"""Seconds that a receiver waits for a packet at a time."""
QUIET = 20
"""Looks in a row without a packet after which those that are missing count as lost: no stretch of time, of which an
emulated guest may lose a second between a packet's leaving and anybody's looking for it."""

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
PMTUDISC_DONT, PMTUDISC_DO = 0, 2
SO_RCVBUFFORCE = 33
SEQUENCE = struct.Struct("!I")


def family_of(address: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET


@dataclass(frozen=True, slots=True)
class TcpResult:
    """A TCP transfer: bytes sent and received, and whether what arrived has the hash of what was sent."""

    sent: int
    received: int
    intact: bool
    seconds: float


def tcp_transfer(
    client: Netns,
    server: Netns,
    address: str,
    size: int,
    *,
    port: int = 9000,
    source: str = "",
    seed: int = 1,
    timeout: float = 120,
) -> TcpResult:
    """Sends `size` random bytes (from `seed`) from `client` to `server`, which has `address`; compares SHA-256."""
    family = family_of(address)
    received = hashlib.sha256()
    count = 0

    def receive() -> None:
        nonlocal count
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(timeout)
            while data := connection.recv(CHUNK):
                received.update(data)
                count += len(data)

    sent = hashlib.sha256()
    with server.socket(family, socket.SOCK_STREAM) as listener, client.socket(family, socket.SOCK_STREAM) as sender:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        listener.settimeout(timeout)
        sender.settimeout(timeout)
        if source:
            sender.bind((source, 0))
        start = time.monotonic()
        receiver = _Thread(receive)
        sender.connect((address, port))
        payload = random.Random(seed)  # noqa: S311 - no secret
        left = size
        while left:
            data = payload.randbytes(min(CHUNK, left))
            sent.update(data)
            sender.sendall(data)
            left -= len(data)
        sender.shutdown(socket.SHUT_WR)
        receiver.join(timeout)
        seconds = time.monotonic() - start
    return TcpResult(size, count, received.digest() == sent.digest(), seconds)


class _Thread:
    """A thread whose exception is raised where it is joined."""

    def __init__(self, target: Any, *args: Any) -> None:
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(target, args), daemon=True)
        self._thread.start()

    def _run(self, target: Any, args: tuple[Any, ...]) -> None:
        try:
            target(*args)
        except Exception as e:  # noqa: BLE001 - raised again by join()
            self._error = e

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)
        if self._error is not None:
            raise self._error
        if self._thread.is_alive():
            raise LabError(f"no end of the transfer within {timeout:g} s")


@dataclass(frozen=True, slots=True)
class UdpResult:
    """UDP packets sent, and what became of them. `corrupt`: arrived with another payload; reordered ones did arrive."""

    sent: int
    received: int
    lost: int
    reordered: int
    duplicate: int
    corrupt: int
    seconds: float
    missing: tuple[int, ...] = ()
    """The first of those that are lost, by number: at a change, or the last ones."""

    @property
    def intact(self) -> bool:
        """Every packet arrived once, whole and in order."""
        return self.received == self.sent and not (self.lost or self.reordered or self.duplicate or self.corrupt)


def account(sent: int, sequences: Iterable[int | None], seconds: float) -> UdpResult:
    """What became of `sent` packets, from the sequence numbers in the order of arrival; None is a corrupt packet."""
    seen = bytearray(sent)
    received = reordered = duplicate = corrupt = 0
    highest = -1
    for sequence in sequences:
        if sequence is None or sequence >= sent:
            corrupt += 1
        elif seen[sequence]:
            duplicate += 1
        else:
            seen[sequence] = 1
            received += 1
            reordered += sequence < highest
            highest = max(highest, sequence)
    missing = tuple(islice((number for number, arrived in enumerate(seen) if not arrived), 8))
    return UdpResult(sent, received, sent - received, reordered, duplicate, corrupt, seconds, missing)


class _Payload:
    """Numbered packets of one size: four bytes of sequence number, then bytes that depend on it."""

    def __init__(self, size: int) -> None:
        if size < SEQUENCE.size:
            raise LabError(f"a payload of {size} bytes has no room for its sequence number (at least {SEQUENCE.size})")
        # A window into random bytes that moves with the number: a packet with another's tail shows.
        self._size = size - SEQUENCE.size
        self._bytes = random.Random(size).randbytes(self._size + 251)  # noqa: S311 - the payload is no secret

    def make(self, sequence: int) -> bytes:
        start = sequence % 251
        return SEQUENCE.pack(sequence) + self._bytes[start : start + self._size]

    def check(self, packet: bytes) -> int | None:
        """The packet's sequence number, None if it is not what was sent."""
        if len(packet) != self._size + SEQUENCE.size:
            return None
        sequence: int = SEQUENCE.unpack_from(packet)[0]
        return sequence if packet == self.make(sequence) else None


def _udp(ns: Netns, family: int, df: bool | None = None) -> socket.socket:
    made = ns.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 25)
    if df is not None:
        level, option = (
            (socket.IPPROTO_IP, IP_MTU_DISCOVER)
            if family == socket.AF_INET
            else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
        )
        made.setsockopt(level, option, PMTUDISC_DO if df else PMTUDISC_DONT)
    return made


def _send(
    sender: socket.socket, payload: _Payload, packets: int | None, rate: float | None, stop: threading.Event
) -> int:
    """Sends numbered packets until there were `packets`, or until `stop`; `rate` a second, in batches of 5 ms."""
    start = time.monotonic()
    sent = 0
    while (packets is None or sent < packets) and not stop.is_set():
        due = packets if rate is None else int((time.monotonic() - start) * rate) + 1
        target = sent + 64 if due is None else due
        if packets is not None:
            target = min(target, packets)
        while sent < target:
            # A queue that is full, or an ICMP error for an earlier packet, is a lost packet, not the end.
            with contextlib.suppress(OSError):
                sender.send(payload.make(sent))
            sent += 1
        if rate is not None:
            time.sleep(max(0.005, 0.5 / rate))  # a thread that wakes up too often starves the guest
    return sent


def _receive(receiver: socket.socket, payload: _Payload, into: list[int | None], expected: "_Expected") -> None:
    """Collects the numbers of what arrives, until all is there or nothing came for a while after the last was sent."""
    receiver.settimeout(LOOK)
    quiet = 0
    while True:
        # Once all is there, one look for duplicates.
        if expected.done.is_set() and quiet >= (1 if len(into) >= expected.packets else QUIET):
            return
        try:
            into.append(payload.check(receiver.recv(CHUNK)))
            quiet = 0
        except TimeoutError:
            quiet += 1
        except ConnectionRefusedError:
            continue  # an ICMP error on a connected socket; the packet counts as lost


@dataclass(slots=True)
class _Expected:
    """How many packets were sent, once `done` is set."""

    packets: int = 0
    seconds: float = 0
    done: threading.Event = field(default_factory=threading.Event)


def _echo(server: socket.socket, done: threading.Event) -> None:
    """Returns every packet to where it came from."""
    server.settimeout(0.2)
    while not done.is_set():
        with contextlib.suppress(TimeoutError):
            data, sender = server.recvfrom(CHUNK)
            with contextlib.suppress(OSError):
                server.sendto(data, sender)


class UdpFlow:
    """A UDP flow while its context lasts: `with UdpFlow(h1, h2, address, rate=200) as flow: ...; flow.stop()`.

    With `echo` the packets come back, and are counted where they were sent: both directions are in the result. `size`
    is that of the payload, `rate` packets a second (None: as fast as it goes, only with `packets`); `df` sets or clears
    Don't Fragment (None: what sockets do, which is to set it); `source` is one of the client's own addresses.
    """

    def __init__(
        self,
        client: Netns,
        server: Netns,
        address: str,
        *,
        packets: int | None = None,
        size: int = 100,
        rate: float | None = None,
        port: int = 7,
        source: str | None = None,
        source_port: int = 0,
        df: bool | None = None,
        echo: bool = True,
    ) -> None:
        if packets is None and rate is None:
            raise LabError("a flow without a number of packets needs a rate")
        family = family_of(address)
        self._sender, self._server = _udp(client, family, df), _udp(server, family)
        self._server.bind((address, port))
        self._sender.bind((source or ("::" if family == socket.AF_INET6 else "0.0.0.0"), source_port))  # noqa: S104
        self._sender.connect((address, port))
        self._payload = _Payload(size)
        self._packets, self._rate, self._is_echo = packets, rate, echo
        self._stop, self._expected = threading.Event(), _Expected()
        self._sequences: list[int | None] = []

    def __enter__(self) -> "UdpFlow":
        self._start = time.monotonic()
        self._threads = [_Thread(self._send_all)]
        receiver = self._sender if self._is_echo else self._server
        self._threads.append(_Thread(_receive, receiver, self._payload, self._sequences, self._expected))
        if self._is_echo:
            self._echo_done = threading.Event()
            self._echo_thread = _Thread(_echo, self._server, self._echo_done)
        return self

    def _send_all(self) -> None:
        expected = self._expected
        expected.packets = _send(self._sender, self._payload, self._packets, self._rate, self._stop)
        expected.seconds = time.monotonic() - self._start
        expected.done.set()

    def stop(self) -> UdpResult:
        """Ends an endless flow; waits for what is under way."""
        self._stop.set()
        return self.result()

    def result(self, timeout: float = 300) -> UdpResult:
        """Waits for the flow's last packet, and says what became of all of them."""
        for thread in self._threads:
            thread.join(timeout)
        return account(self._expected.packets, self._sequences, self._expected.seconds)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(QUIET * LOOK + 30)
        if self._is_echo:
            self._echo_done.set()
            self._echo_thread.join(30)
        self._sender.close()
        self._server.close()


def udp_stream(client: Netns, server: Netns, address: str, *, packets: int = 500, **options: Any) -> UdpResult:
    """Sends packets one way, counted at the receiver. `options` as in UdpFlow."""
    with UdpFlow(client, server, address, packets=packets, echo=False, **options) as flow:
        return flow.result()


def udp_echo(client: Netns, server: Netns, address: str, *, packets: int = 200, **options: Any) -> UdpResult:
    """Sends packets that come back, counted where they were sent. `options` as in UdpFlow."""
    with UdpFlow(client, server, address, packets=packets, **options) as flow:
        return flow.result()


def checksum_errors(ns: Netns) -> dict[str, int]:
    """Packets that a receiver in `ns` threw away for a bad checksum, by protocol: "Tcp", "Udp", "Udp6", "Icmp", ..."""
    return parse_checksum_errors(ns.read("/proc/net/snmp"), ns.read("/proc/net/snmp6"))


def parse_checksum_errors(snmp: str, snmp6: str) -> dict[str, int]:
    """InCsumErrors by protocol in /proc/net/snmp (pairs of lines: names, values) and snmp6 (a name a line)."""
    errors = {}
    lines = [line.split() for line in snmp.splitlines()]
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        fields = dict(zip(names, values, strict=True))
        if "InCsumErrors" in fields:
            errors[names[0].rstrip(":")] = int(fields["InCsumErrors"])
    for name, value in (line.split() for line in snmp6.splitlines()):
        if name.endswith("InCsumErrors"):
            errors[name.removesuffix("InCsumErrors")] = int(value)
    return errors
