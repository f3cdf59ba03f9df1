"""The filter that finds plaintext on a WAN, run by this machine's own kernel on a pair of sockets."""

import socket
import struct

import pytest

from flowfast.kernel.bpf import assemble, attach
from flowfast.lab.capture import NOT_IPSEC, Capture, Packet, parse_frame

MACS = bytes(12)


def ipv4(protocol: int, payload: bytes = bytes(20), fragment: int = 0, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 0, 0, fragment, 64, protocol, 0)
    return MACS + b"\x08\x00" + head + bytes([10, 1, 0, 2, 10, 2, 0, 2]) + options + payload


def ipv6(header: int, payload: bytes = bytes(20)) -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, "fd00:1::2") + socket.inet_pton(socket.AF_INET6, "fd00:2::2")
    return MACS + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(payload), header, 64) + addresses + payload


def udp(source: int, destination: int) -> bytes:
    return struct.pack("!HHHH", source, destination, 8, 0)


PASSED_OVER = {
    "arp": MACS + b"\x08\x06" + bytes(28),
    "esp": ipv4(50),
    "esp fragment": ipv4(50, fragment=100),
    "ike": ipv4(17, udp(500, 500)),
    "ike behind nat": ipv4(17, udp(4500, 61234)),
    "esp in udp": ipv4(17, udp(61234, 4500)),
    "esp in udp, with ip options": ipv4(17, udp(1, 4500), options=bytes(8)),
    "esp6": ipv6(50),
    "esp6 fragment": ipv6(44, bytes([50]) + bytes(20)),
    "ike6": ipv6(17, udp(500, 500)),
    "neighbour solicitation": ipv6(58, bytes([135]) + bytes(20)),
    "router solicitation": ipv6(58, bytes([133]) + bytes(20)),
    "listener report": ipv6(0, bytes([58, 0, 5, 2, 0, 0, 0, 0, 143]) + bytes(20)),
}
KEPT = {
    "tcp": ipv4(6),
    "icmp": ipv4(1),
    "udp": ipv4(17, udp(5000, 7)),
    "udp from a port like ike's in the payload": ipv4(17, udp(5000, 7) + udp(500, 500)),
    "later udp fragment": ipv4(17, udp(500, 500), fragment=100),
    "gre": ipv4(47),
    "tcp6": ipv6(6),
    "udp6": ipv6(17, udp(5000, 7)),
    "echo request6": ipv6(58, bytes([128]) + bytes(20)),
    "icmp6 above neighbour discovery": ipv6(58, bytes([138]) + bytes(20)),
    "tcp6 fragment": ipv6(44, bytes([6]) + bytes(20)),
    "another ethertype": MACS + b"\x88\xcc" + bytes(40),
}


@pytest.mark.parametrize(("name", "kept"), [*((n, False) for n in PASSED_OVER), *((n, True) for n in KEPT)])
def test_the_kernel_keeps_what_is_not_ipsec(name: str, kept: bool) -> None:
    frame = (PASSED_OVER | KEPT)[name]
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        attach(receiver, assemble(NOT_IPSEC))
        sender.send(frame)
        receiver.setblocking(False)
        if kept:
            assert receiver.recv(2000) == frame
        else:
            with pytest.raises(BlockingIOError):
                receiver.recv(2000)


def test_a_frame_tells_its_addresses() -> None:
    packet = parse_frame(ipv4(6))
    assert (packet.source, packet.destination, packet.protocol) == ("10.1.0.2", "10.2.0.2", 6)
    packet = parse_frame(ipv6(17, udp(1, 2)))
    assert (packet.source, packet.destination, packet.protocol) == ("fd00:1::2", "fd00:2::2", 17)
    assert parse_frame(KEPT["another ethertype"]).protocol is None
    assert parse_frame(ipv4(6)[:20]).protocol is None


def test_a_leak_has_both_ends_in_the_protected_prefixes() -> None:
    inside = Packet("10.1.0.2", "10.2.0.2", 17, 60, b"")
    seen = Capture([inside, Packet("192.0.2.2", "10.1.0.2", 1, 60, b""), Packet("", "", None, 60, b"")])
    assert seen.within("10.1.0.0/16", "10.2.0.0/16", "fd00:1::/64") == [inside]
