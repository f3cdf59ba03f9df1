"""How packets arrive at a device: with finished checksums or not, seen on a packet socket for a moment; and a fake.

A packet whose sender sits on the same machine (veth, tap, virtio with checksum offload) comes with a checksum that
nobody has finished (CHECKSUM_PARTIAL). packet(7) tells by TP_STATUS_CSUMNOTREADY in PACKET_AUXDATA. A packet that GRO
put together is marked so, too, whatever its parts were: those are known by their virtio header, and are passed over.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Protocol

from flowfast.model.bulk import Arrival
from flowfast.model.errors import KernelError

_SOL_PACKET, _AUXDATA, _VNET_HDR, _IGNORE_OUTGOING = 263, 8, 15, 23
_CSUM_NOT_READY = 1 << 3  # TP_STATUS_CSUMNOTREADY, linux/if_packet.h
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 3, 0x0800, 0x86DD
_TCP_UDP = (6, 17)
_SNAP = 10 + 64
_MOST = 256
"""Packets of a device that are looked at, at most, at once."""
_BUFFER = 1 << 18


class Arrivals(Protocol):
    """Whoever looks."""

    async def sample(self, devices: Iterable[str], seconds: float) -> Mapping[str, Arrival]:
        """What arrived at each device meanwhile; a device at which nothing did, or that is gone, is not there."""


class RealArrivals:
    """Packet sockets, open only while somebody looks: every packet pays for them."""

    async def sample(self, devices: Iterable[str], seconds: float) -> Mapping[str, Arrival]:
        """Raises KernelError without CAP_NET_RAW."""
        found = {}
        with contextlib.ExitStack() as stack:
            ears = {}
            for device in devices:
                try:
                    ears[device] = stack.enter_context(_listen(device))
                except PermissionError as refused:
                    raise KernelError(f"{device}: a packet socket: {refused.strerror}", refused.errno or 0) from refused
                except OSError:
                    continue  # gone since
            await asyncio.sleep(seconds)
            for device, ear in ears.items():
                arrival = _drain(ear)
                if arrival.seen:
                    found[device] = arrival
        return found


def _listen(device: str) -> socket.socket:
    ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        for option in (_AUXDATA, _VNET_HDR, _IGNORE_OUTGOING):
            ear.setsockopt(_SOL_PACKET, option, 1)
        ear.bind((device, _ETH_P_ALL))
    except OSError:
        ear.close()
        raise
    return ear


def _drain(ear: socket.socket) -> Arrival:
    seen = unfinished = 0
    for _ in range(_MOST):
        try:
            data, ancillary, _, address = ear.recvmsg(_SNAP, 64)
        except OSError:  # nothing more, or the device went down
            break
        judged = judge(data, address[1], ancillary)
        seen += judged is not None
        unfinished += bool(judged)
    return Arrival(seen, unfinished)


def judge(data: bytes, ethertype: int, ancillary: Iterable[tuple[int, int, bytes]]) -> bool | None:
    """Whether a packet's checksum is unfinished; None for what has none of its own, or was put together from others."""
    if len(data) < 30 or data[1] != 0:  # struct virtio_net_hdr: flags, gso_type, ...: ten bytes
        return None
    if ethertype == _ETH_P_IP:
        protocol, fragment = data[10 + 9], int.from_bytes(data[16:18], "big") & 0x3FFF
        if fragment:
            return None
    elif ethertype == _ETH_P_IPV6:
        protocol = data[10 + 6]
    else:
        return None
    if protocol not in _TCP_UDP:
        return None
    for level, kind, value in ancillary:
        if (level, kind) == (_SOL_PACKET, _AUXDATA) and len(value) >= 4:
            return bool(struct.unpack_from("=I", value)[0] & _CSUM_NOT_READY)
    return None


class FakeArrivals:
    """What a test has arrive."""

    def __init__(self, arrivals: Mapping[str, Arrival] | None = None) -> None:
        self.arrivals = dict(arrivals or {})

    async def sample(self, devices: Iterable[str], seconds: float) -> Mapping[str, Arrival]:
        """What was set, at once."""
        await asyncio.sleep(0)
        return {device: self.arrivals[device] for device in devices if device in self.arrivals}
