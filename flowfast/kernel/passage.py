"""How long packets take through the router, by the kernel's own time stamps of packets that pass.

Two packet sockets (packet(7)), on the devices where packets come out of tunnels and on those where they leave, see a
sample of them, and the same packet is known again by what nothing on the way changes. The first stamp is of the moment
at which the network stack took the packet in (netif_receive_skb; an ESP packet's own is kept over its decryption), the
second of the moment at which it was given to the device (dev_queue_xmit_nit). The other direction has no second sight:
what leaves is encrypted.

Stamps and filters cost every packet something: listen for a moment only, and not while anything else is measured.
"""

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from flowfast.kernel.bpf import PACKET_OUTGOING, PACKET_TYPE, Line, assemble, attach

_ETH_P_ALL = 3
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35  # include/uapi/asm-generic/socket.h
_TIMESPEC = struct.Struct("@ll")
_ROOM = 1 << 22
_HEAD = 96
_MOST = 20_000
"""Packets that are read of one device: more say nothing more."""
SLOWEST = 1.0
"""Seconds after which a packet is not the same, but one that looks like it."""

_TCP, _UDP, _NAT_T = 6, 17, 4500

# TCP and UDP but no NAT-T, one packet in sixteen: by the low bits of IPv4's ID, or of TCP's number or UDP's sum.
_SAMPLE: tuple[Line, ...] = (
    ("byte", 0),
    ("&", 0x20, "ipv6"),
    ("&", 0x40, "ipv4"),
    ("drop", 0),
    "ipv4",
    ("byte", 9),
    ("==", _TCP, "ipv4 ID"),
    ("==", _UDP, "ipv4 udp"),
    ("drop", 0),
    "ipv4 udp",
    ("half", 22),
    ("==", _NAT_T, "drop"),
    "ipv4 ID",
    ("byte", 5),
    ("&", 0x0F, "drop"),
    ("keep", 0),
    "ipv6",
    ("byte", 6),
    ("==", _TCP, "ipv6 number"),
    ("==", _UDP, "ipv6 udp"),
    ("drop", 0),
    "ipv6 udp",
    ("half", 42),
    ("==", _NAT_T, "drop"),
    "ipv6 number",
    ("byte", 47),
    ("&", 0x0F, "drop"),
    ("keep", 0),
    "drop",
    ("drop", 0),
)
ARRIVING: tuple[Line, ...] = (("byte", PACKET_TYPE), ("==", PACKET_OUTGOING, "drop"), *_SAMPLE)
LEAVING: tuple[Line, ...] = (
    ("byte", PACKET_TYPE),
    ("==", PACKET_OUTGOING, "outgoing"),
    ("drop", 0),
    "outgoing",
    *_SAMPLE,
)
"""From the IP header on, as a SOCK_DGRAM packet socket filters."""


class Seen(NamedTuple):
    """A packet, when it was seen (seconds since the epoch), and what it is known again by."""

    at: float
    src: str
    dst: str
    mark: bytes


def mark(packet: bytes) -> tuple[str, str, bytes] | None:
    """Source, destination, and what no router, NAT or GRO changes: IPv4's ID, TCP's numbers, the first of UDP's data.

    None for what is cut short or is neither.
    """
    if len(packet) < 20:
        return None
    if packet[0] >> 4 == 4:
        start, protocol, ident = (packet[0] & 0xF) * 4, packet[9], packet[4:6]
        src, dst = packet[12:16], packet[16:20]
    else:
        start, protocol, ident, src, dst = 40, packet[6], packet[1:4], packet[8:24], packet[24:40]
    body = packet[start:]
    if len(body) < 12 or protocol not in (_TCP, _UDP):
        return None
    fixed = body[4:12] if protocol == _TCP else body[8:24]
    return str(ipaddress.ip_address(src)), str(ipaddress.ip_address(dst)), bytes([protocol]) + ident + fixed


def passages(arrived: Iterable[Seen], left: Iterable[Seen]) -> list[float]:
    """Seconds from one sight to the other, sorted. What looks like another packet is left out."""
    once = _once(arrived)
    found = []
    for each, at in _once(left).items():
        if each in once and 0 <= (took := at - once[each]) < SLOWEST:
            found.append(took)
    return sorted(found)


def _once(seen: Iterable[Seen]) -> dict[bytes, float]:
    every = list(seen)
    times = Counter(each.mark for each in every)
    return {each.mark: each.at for each in every if times[each.mark] == 1}


class RealPassage:
    """`arriving`, `leaving`: devices. `ours`: whether a packet of that source and destination is a tunnel's."""

    def __init__(
        self, arriving: Sequence[str], leaving: Sequence[str], ours: Callable[[str, str], bool], seconds: float
    ) -> None:
        self._arriving, self._leaving, self._ours = tuple(arriving), tuple(leaving), ours
        self.seconds = seconds

    async def watch(self) -> list[float]:
        """Listens for `seconds`; the seconds that packets took, sorted. Empty where none was seen twice.

        Raises OSError where a device is not there or the privilege is missing.
        """
        with contextlib.ExitStack() as stack:
            leaving = [stack.enter_context(_tap(device, LEAVING)) for device in self._leaving]
            arriving = [stack.enter_context(_tap(device, ARRIVING)) for device in self._arriving]
            await asyncio.sleep(self.seconds)
            one, other = _read(arriving), _read(leaving)
        return passages((each for each in one if self._ours(each.src, each.dst)), other)


def _tap(device: str, filtered: Iterable[Line]) -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    try:
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        attach(tap, assemble(filtered))
        # Bound with a protocol only now: from here on it receives.
        tap.bind((device, _ETH_P_ALL))
    except OSError:
        tap.close()
        raise
    return tap


def _read(taps: Iterable[socket.socket]) -> list[Seen]:
    found = []
    for tap in taps:
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST):
                packet, control, _flags, _address = tap.recvmsg(_HEAD, 64, socket.MSG_DONTWAIT)
                known = mark(packet)
                if known is not None and control:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(control[0][2])
                    found.append(Seen(seconds + nanoseconds / 1e9, *known))
    return found
