"""What crosses a WAN without encryption: AF_PACKET sockets, filtered in the kernel for what should not be there.

Only packets that leave count, so both ends of the WAN are to be watched: a tunnel-mode packet that was decrypted comes
up once more from the device that it arrived on, and an AF_PACKET socket cannot tell it from one that was never
encrypted. The filter is classic BPF, so that thousands of ESP packets a second cost no Python. It passes over ESP, IKE
and ESP in UDP (by port), ARP, neighbour discovery and multicast listener reports; the rest is kept. A later fragment
of a UDP packet shows no port and is kept too.
"""

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from flowfast.kernel.bpf import PACKET_OUTGOING, PACKET_TYPE, Line, assemble, attach
from flowfast.lab.wires import End

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_STATISTICS = 263, 6

# Offsets count from the Ethernet header.
OUTGOING: tuple[Line, ...] = (
    ("byte", PACKET_TYPE),
    ("==", PACKET_OUTGOING, "outgoing"),
    ("drop", 0),
    "outgoing",
)
NOT_IPSEC: tuple[Line, ...] = (
    ("half", 12),
    ("==", 0x0806, "drop"),  # ARP
    ("==", 0x0800, "ipv4"),
    ("==", 0x86DD, "ipv6"),
    ("keep", 0),
    "ipv4",
    ("byte", 23),
    ("==", 50, "drop"),  # ESP
    ("==", 17, "ipv4 udp"),
    ("keep", 0),
    "ipv4 udp",
    ("half", 20),
    ("&", 0x1FFF, "keep"),  # a later fragment
    ("x ihl", 14),
    ("half x+", 14),
    ("==", 500, "drop"),
    ("==", 4500, "drop"),
    ("half x+", 16),
    ("==", 500, "drop"),
    ("==", 4500, "drop"),
    ("keep", 0),
    "ipv6",
    ("byte", 20),
    ("==", 50, "drop"),  # ESP
    ("==", 17, "ipv6 udp"),
    ("==", 58, "icmpv6"),
    ("==", 0, "hop by hop"),
    ("==", 44, "fragment"),
    ("keep", 0),
    "ipv6 udp",
    ("half", 54),
    ("==", 500, "drop"),
    ("==", 4500, "drop"),
    ("half", 56),
    ("==", 500, "drop"),
    ("==", 4500, "drop"),
    ("keep", 0),
    "icmpv6",
    ("byte", 54),
    (">=", 138, "keep"),
    (">=", 133, "drop"),  # neighbour discovery
    ("keep", 0),
    "hop by hop",
    ("byte", 62),
    ("==", 143, "drop"),  # multicast listener reports
    ("==", 131, "drop"),
    ("keep", 0),
    "fragment",
    ("byte", 54),
    ("==", 50, "drop"),  # a fragment of an ESP packet
    "keep",
    ("keep", 0),
    "drop",
    ("drop", 0),
)


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that was not encrypted; `protocol` is IP's number, None if it is not IP (then no addresses either)."""

    source: str
    destination: str
    protocol: int | None
    length: int
    head: bytes = field(repr=False)


def parse_frame(frame: bytes) -> Packet:
    """The addresses and protocol of an Ethernet frame, and its first 96 bytes."""
    ethertype = int.from_bytes(frame[12:14], "big")
    if ethertype == 0x0800 and len(frame) >= 34:
        source, destination, protocol = frame[26:30], frame[30:34], frame[23]
    elif ethertype == 0x86DD and len(frame) >= 54:
        source, destination, protocol = frame[22:38], frame[38:54], frame[20]
    else:
        return Packet("", "", None, len(frame), frame[:96])
    return Packet(
        str(ipaddress.ip_address(source)), str(ipaddress.ip_address(destination)), protocol, len(frame), frame[:96]
    )


@dataclass(slots=True)
class Capture:
    """What left through the devices watched, complete once the context is left.

    `packets` are those that were not encrypted; `missed` counts more of them than the buffer held; `total` all packets
    that left, encrypted or not: a capture where it is 0 proves nothing.
    """

    packets: list[Packet] = field(default_factory=list)
    missed: int = 0
    total: int = 0

    def within(self, *prefixes: str) -> list[Packet]:
        """Those with both addresses in `prefixes`: what a tunnel should have carried."""
        networks = [ipaddress.ip_network(prefix) for prefix in prefixes]
        return [
            packet
            for packet in self.packets
            if packet.protocol is not None
            and all(
                any(ipaddress.ip_address(end) in network for network in networks)
                for end in (packet.source, packet.destination)
            )
        ]


def _sent(end: End) -> int:
    return int(end.ns.read(f"/sys/class/net/{end.name}/statistics/tx_packets"))


@contextlib.contextmanager
def _watch(end: End, seen: Capture) -> Iterator[None]:
    with end.ns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as watch:
        watch.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        attach(watch, assemble((*OUTGOING, *NOT_IPSEC)))
        before = _sent(end)
        # Bound with a protocol only now: from here on it receives.
        watch.bind((end.name, ETH_P_ALL))
        try:
            yield
        finally:
            seen.total += _sent(end) - before
            with contextlib.suppress(BlockingIOError):
                while True:
                    seen.packets.append(parse_frame(watch.recv(1 << 16, socket.MSG_DONTWAIT)))
            seen.missed += struct.unpack("=II", watch.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]


@contextlib.contextmanager
def capture(*ends: End) -> Iterator[Capture]:
    """Watches what leaves through the devices `ends` and is not IPsec, while the context lasts.

    The whole WAN of two gateways: `capture(*topology.wan)`.
    """
    seen = Capture()
    with contextlib.ExitStack() as stack:
        for end in ends:
            stack.enter_context(_watch(end, seen))
        yield seen
