"""How packets arrive at a device: with finished checksums or not, seen on a packet socket for a moment; and a fake.

A packet whose sender sits on the same machine (veth, tap, virtio with checksum offload) comes with a checksum that
nobody has finished (CHECKSUM_PARTIAL). packet(7) tells by TP_STATUS_CSUMNOTREADY in PACKET_AUXDATA. A packet that GRO
put together is marked so, too, whatever its parts were: those are known by their virtio header, and are passed over.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from flowfast.model.bulk import Arrival
from flowfast.model.errors import KernelError

_SOL_PACKET, _AUXDATA, _VNET_HDR, _IGNORE_OUTGOING = 263, 8, 15, 23
_CSUM_NOT_READY = 1 << 3  # TP_STATUS_CSUMNOTREADY, linux/if_packet.h
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 3, 0x0800, 0x86DD
_TCP_UDP = (6, 17)
_VNET_BYTES = 10  # struct virtio_net_hdr
_ETHERNET = 14
_LINK_BYTES = {1: _ETHERNET, 772: _ETHERNET}
"""Link header by kind of device (linux/if_arp.h): Ethernet, loopback; an xfrm interface has none."""
_SNAP = _VNET_BYTES + _ETHERNET + 64
_PACKET_STATISTICS, _ATTACH_FILTER = 6, 26
_STATISTICS = struct.Struct("=II")  # struct tpacket_stats: packets, drops
_ESP = 50
_NETWORK = 0xFFF00000  # SKF_NET_OFF, linux/filter.h: offsets from the network header, whatever is before it


def _bpf(code: int, yes: int, no: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)  # struct sock_filter


_NOT_ESP = b"".join(
    (
        _bpf(0x28, 0, 0, 0xFFFFF000),  # the ethertype (SKF_AD_PROTOCOL)
        _bpf(0x15, 0, 2, _ETH_P_IP),
        _bpf(0x30, 0, 0, _NETWORK + 9),  # IPv4's protocol
        _bpf(0x15, 3, 4, _ESP),
        _bpf(0x15, 0, 3, _ETH_P_IPV6),
        _bpf(0x30, 0, 0, _NETWORK + 6),  # IPv6's next header
        _bpf(0x15, 0, 1, _ESP),
        _bpf(0x06, 0, 0, 0),
        _bpf(0x06, 0, 0, _SNAP),
    )
)
"""Lets all but ESP by: an outer packet that was not decrypted within GRO comes by again as the inner one."""
_MOST = 256
"""Packets of a device that are looked at, at most, at once."""
_BUFFER = 1 << 18


class Arrivals(Protocol):
    """Whoever looks."""

    async def sample(self, devices: Iterable[str], seconds: float) -> Mapping[str, Arrival]:
        """What arrived at each device meanwhile; a device at which nothing did, or that is gone, is not there."""

    def busy(self) -> float | None:
        """Seconds that all CPUs together have spent in softirq so far: packets are received there. None: not known."""


class RealArrivals:
    """Packet sockets, open only while somebody looks: every packet pays for them."""

    async def sample(self, devices: Iterable[str], seconds: float) -> Mapping[str, Arrival]:
        """Raises KernelError, also without CAP_NET_RAW."""
        found = {}
        with contextlib.ExitStack() as opened:
            ears = {}
            for device in devices:
                try:
                    ears[device] = opened.enter_context(_listen(device))
                except OSError as error:
                    if error.errno in (errno.ENODEV, errno.ENXIO, errno.ENETDOWN):
                        continue  # gone since
                    raise KernelError(f"{device}: a packet socket: {error.strerror}", error.errno or 0) from error
            before = _received()
            for ear in ears.values():
                _count(ear)  # from now on
            await asyncio.sleep(seconds)
            after = _received()
            for device, ear in ears.items():
                stack = _count(ear)
                wire = after[device] - before[device] if device in before and device in after else None
                if stack:
                    found[device] = replace(_drain(ear), wire=wire, stack=stack, received=after.get(device))
        return found

    def busy(self) -> float | None:
        """The seventh column of /proc/stat (proc(5)), in ticks of which sysconf says how many make a second."""
        try:
            with Path("/proc/stat").open() as file:
                columns = file.readline().split()
            return int(columns[7]) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError, ValueError):
            return None


def _listen(device: str) -> socket.socket:
    # Raw: the kernel gives no virtio header to others (packet_setsockopt, net/packet/af_packet.c).
    ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        for option in (_AUXDATA, _VNET_HDR, _IGNORE_OUTGOING):
            ear.setsockopt(_SOL_PACKET, option, 1)
        program = ctypes.create_string_buffer(_NOT_ESP, len(_NOT_ESP))
        filter_ = struct.pack("@HxxxxxxQ", len(_NOT_ESP) // 8, ctypes.addressof(program))  # struct sock_fprog
        ear.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, filter_)
        ear.bind((device, _ETH_P_ALL))
    except OSError:
        ear.close()
        raise
    return ear


def _received() -> dict[str, int]:
    """Packets that each device's driver received: what was on the wire, before anything was put together."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return {name.strip(): int(values.split()[1]) for name, _, values in (line.partition(":") for line in lines)}


def _count(ear: socket.socket) -> int:
    """Packets that came by since the last call, those without room in the buffer included."""
    packets: int = _STATISTICS.unpack(ear.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))[0]
    return packets


def _drain(ear: socket.socket) -> Arrival:
    seen = unfinished = 0
    for _ in range(_MOST):
        try:
            data, ancillary, _, address = ear.recvmsg(_SNAP, 64)
        except OSError as ended:
            if ended.errno == errno.EINVAL:
                continue  # put together in a way that a virtio header cannot say (UDP before 6.2)
            break  # nothing more, or the device went down
        link = _LINK_BYTES.get(address[3], 0)
        judged = judge(data[:_VNET_BYTES] + data[_VNET_BYTES + link :], address[1], ancillary)
        seen += judged is not None
        unfinished += bool(judged)
    return Arrival(seen, unfinished)


def judge(data: bytes, ethertype: int, ancillary: Iterable[tuple[int, int, bytes]]) -> bool | None:
    """Whether a packet's checksum is unfinished; None for what has none of its own, or was put together from others.

    `data`: a virtio header, and the packet from its IP header on.
    """
    if len(data) < 30 or data[1] != 0:  # struct virtio_net_hdr: flags, gso_type, ...
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
        self.spent: float | None = None

    async def sample(self, devices: Iterable[str], seconds: float) -> Mapping[str, Arrival]:
        """What was set, at once."""
        await asyncio.sleep(0)
        return {device: self.arrivals[device] for device in devices if device in self.arrivals}

    def busy(self) -> float | None:
        """What was set."""
        return self.spent
