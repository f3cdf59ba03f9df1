"""Plaintext from the WAN: packets that claim to come out of a tunnel but were never encrypted, and a count of arrivals.

An attacker on the WAN knows the tuple of a connection and sends what looks like its replies. Without a flowtable the
kernel's policy check drops them (XfrmInTmplMismatch); a flowtable hit skips that check (measured.md).
"""

import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from flowfast.lab.netns import Netns

MARKER = b"flowfast-lab-injected-plaintext"
ETH_P_ALL = 3
UDP, TCP = 17, 6


@dataclass(frozen=True, slots=True)
class Tuple:
    """Addresses and ports of the packets to forge; `protocol` 17 (UDP) or 6 (TCP)."""

    source: str
    destination: str
    sport: int
    dport: int
    protocol: int = UDP


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def forge(what: Tuple, smac: bytes, dmac: bytes) -> bytes:
    """An Ethernet frame with right checksums, MARKER as its payload. TCP: a plain ACK with data."""
    source, destination = ipaddress.ip_address(what.source), ipaddress.ip_address(what.destination)
    if what.protocol == UDP:
        head = struct.pack("!HHHH", what.sport, what.dport, 8 + len(MARKER), 0)
        at = 6
    else:
        head = struct.pack("!HHIIBBHHH", what.sport, what.dport, 1, 1, 5 << 4, 0x10, 65535, 0, 0)
        at = 16
    pseudo = source.packed + destination.packed + struct.pack("!IHH", len(head) + len(MARKER), 0, what.protocol)
    if source.version == 4:
        pseudo = source.packed + destination.packed + struct.pack("!HH", what.protocol, len(head) + len(MARKER))
    sum_ = checksum(pseudo + head + MARKER)
    segment = head[:at] + struct.pack("!H", sum_) + head[at + 2 :] + MARKER
    if source.version == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, what.protocol, 0)
        ip += source.packed + destination.packed
        packet = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + segment
    else:
        packet = struct.pack("!IHBB", 6 << 28, len(segment), what.protocol, 64)
        packet += source.packed + destination.packed + segment
    return dmac + smac + (b"\x08\x00" if source.version == 4 else b"\x86\xdd") + packet


class Injection:
    """Forges packets from `attacker` through its device to a MAC address while its context lasts.

    `rate` rounds a second, each with one packet for every tuple. `sent` counts packets.
    """

    def __init__(self, attacker: Netns, device: str, to_mac: str, tuples: Sequence[Tuple], rate: float = 20) -> None:
        self._socket = attacker.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.bind((device, 0))
        own = bytes.fromhex(attacker.read(f"/sys/class/net/{device}/address").replace(":", ""))
        to = bytes.fromhex(to_mac.replace(":", ""))
        self._frames = [forge(each, own, to) for each in tuples]
        self._pause = 1 / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            for frame in self._frames:
                self._socket.send(frame)
                self.sent += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


class Arrivals:
    """Counts forged packets that reach a device, while its context lasts: `with Arrivals(h1, "e0") as arrived`."""

    def __init__(self, victim: Netns, device: str) -> None:
        self._socket = victim.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((device, ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.count = 0
        self.seen = 0
        """All packets: where it is 0, the sniffer proves nothing."""

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                packet = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            self.seen += 1
            self.count += MARKER in packet

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        time.sleep(0.5)  # for what is still under way
        self._stop.set()
        self._thread.join()
        self._socket.close()
