"""ESP packets, whole and broken, and what a careful reader makes of them: the other opinion on the XDP program."""

import random
import struct
from ipaddress import ip_address

SPI = 0xC0FFEE01
"""Of an SA that is steered."""
UNKNOWN = 0xC0FFEE02
NAT_T = 4500


def ethernet(payload: bytes, kind: int) -> bytes:
    """A frame."""
    return bytes.fromhex("020000000001020000000002") + kind.to_bytes(2) + payload


def ipv4(payload: bytes, proto: int, options: bytes = b"", fragment: int = 0) -> bytes:
    """A frame with an IPv4 packet."""
    words = 5 + len(options) // 4
    ends = ip_address("192.0.2.2").packed + ip_address("192.0.2.1").packed
    total = 4 * words + len(payload)
    head = struct.pack("!BBHHHBBH8s", 0x40 | words, 0, total, 7, fragment, 64, proto, 0, ends)
    return ethernet(head + options + payload, 0x0800)


def ipv6(payload: bytes, proto: int) -> bytes:
    """A frame with an IPv6 packet."""
    ends = ip_address("2001:db8::2").packed + ip_address("2001:db8::1").packed
    return ethernet(struct.pack("!IHBB32s", 6 << 28, len(payload), proto, 64, ends) + payload, 0x86DD)


def esp(spi: int = SPI, size: int = 40) -> bytes:
    """An ESP packet's payload."""
    return struct.pack("!II", spi, 1) + bytes(size)


def udp(payload: bytes, dport: int = NAT_T) -> bytes:
    """A UDP datagram's."""
    return struct.pack("!HHHH", 4501, dport, 8 + len(payload), 0) + payload


WHOLE = (
    ipv4(esp(), 50),
    ipv4(udp(esp()), 17),
    ipv6(esp(), 50),
    ipv6(udp(esp()), 17),
    ipv4(udp(esp(size=0)), 17),
    ipv4(esp(size=0), 50),
    ipv4(esp(), 50) + bytes(10),  # padded by Ethernet
)
OTHERS = (
    ipv4(esp(UNKNOWN), 50),
    ipv4(udp(esp(UNKNOWN)), 17),
    ipv4(udp(bytes(4) + esp()), 17),  # IKE behind its marker
    ipv4(udp(b"\xff"), 17),  # a keepalive
    ipv4(udp(esp(), dport=53), 17),
    ipv4(esp(), 6),
    ipv4(esp(), 51),
    ipv4(esp(), 50, options=bytes(8)),
    ipv4(udp(esp(0)), 17),
    ipv4(esp(0), 50),
    ipv4(esp(), 50, fragment=0x2000),
    ipv4(esp(), 50, fragment=5),
    ipv6(esp(), 44),
    ipv6(esp(), 6),
    ethernet(esp(), 0x0806),
    ethernet(b"", 0x88CC) + bytes(46),
)


def is_steered(frame: bytes) -> bool:
    """Whether it is a whole ESP packet, unfragmented, of the SA that is steered: RFC 791, 8200, 4303, 3948."""
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x00" and len(packet) >= 20:
        version, words = divmod(packet[0], 16)
        total, fragment = struct.unpack_from("!HxxH", packet, 2)
        if version != 4 or words != 5 or not 20 <= total <= len(packet) or fragment & 0x3FFF:
            return False  # options are lawful, and left to the stack
        return _of_the_sa(packet[9], packet[20:total])
    if kind == b"\x86\xdd" and len(packet) >= 40:
        (length,) = struct.unpack_from("!H", packet, 4)
        return packet[0] >> 4 == 6 and 40 + length <= len(packet) and _of_the_sa(packet[6], packet[40 : 40 + length])
    return False


def _of_the_sa(proto: int, payload: bytes) -> bool:
    if proto == 17:
        if len(payload) < 16:
            return False
        _, dport, length, _ = struct.unpack_from("!HHHH", payload)
        if dport != NAT_T or length != len(payload):
            return False
        proto, payload = 50, payload[8:]
    return proto == 50 and len(payload) >= 8 and payload[:4] == SPI.to_bytes(4)


def broken(draw: random.Random) -> bytes:
    """A frame with some of it changed, cut off or added; of one in twenty, nothing."""
    chance = draw.random
    frame = bytearray(WHOLE[int(chance() * len(WHOLE))] if chance() < 0.8 else OTHERS[int(chance() * len(OTHERS))])
    ends = min(len(frame), 66)
    for _ in range((0, 1, 1, 1, 1, 2, 2, 3, 4, 8)[int(chance() * 10)]):
        at = 12 + int(chance() * (ends - 12))
        drawn = int(chance() * 1024)
        frame[at] = (0, 0xFF, frame[at] ^ 1 << (drawn >> 7), drawn & 0xFF)[drawn >> 4 & 3]
    cut = int(chance() * 4)
    if cut == 0:
        del frame[14 + int(chance() * (len(frame) - 14)) :]
    elif cut == 1:
        frame += bytes(int(chance() * 40))
    return bytes(frame)
