"""The same packet known again: by filter, by mark, and over veth by the kernel itself where root is there."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.kernel.bpf import PACKET_TYPE, assemble
from flowfast.kernel.passage import ARRIVING, LEAVING, SLOWEST, Seen, mark, passages


def ipv4(proto: int = 17, ident: int = 0, body: bytes = bytes(40), ttl: int = 64, src: int = 1) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), ident, 0x4000, ttl, proto, 0)
    return head + bytes((10, 2, 0, src)) + bytes((10, 1, 0, 2)) + body


def ipv6(proto: int = 6, body: bytes = bytes(40), hops: int = 64) -> bytes:
    return (
        struct.pack("!IHBB", 6 << 28 | 0xABCDE, len(body), proto, hops) + bytes(15) + b"\1" + bytes(15) + b"\2" + body
    )


def udp(sport: int = 7, dport: int = 9, total: int = 7, data: bytes = bytes(32)) -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(data), total) + data


def tcp(number: int = 0, sport: int = 5) -> bytes:
    return struct.pack("!HHII", sport, 80, number, 99) + bytes(20)


def passes(packet: bytes, *, leaving: bool = False, wanted: bool = False) -> bool:
    """Runs the filter as the kernel would: what classic BPF says of the packet. `leaving`: its type is OUTGOING."""
    code = assemble(LEAVING if wanted else ARRIVING)
    lines = [struct.unpack_from("=HBBI", code, 8 * at) for at in range(len(code) // 8)]
    at, register = 0, 0
    while True:
        kind, yes, no, number = lines[at]
        at += 1
        match kind:
            case 0x30 if number == PACKET_TYPE:
                register = 4 if leaving else 0
            case 0x28 | 0x30:
                size = 2 if kind == 0x28 else 1
                if number + size > len(packet):
                    return False
                register = int.from_bytes(packet[number : number + size], "big")
            case 0x15:
                at += yes if register == number else no
            case 0x45:
                at += yes if register & number else no
            case 0x06:
                return number > 0


@pytest.mark.parametrize(
    ("packet", "kept"),
    [
        (ipv4(17, 0x20, udp()), True),
        (ipv4(17, 0x21, udp()), False),
        (ipv4(6, 0x1230, tcp()), True),
        (ipv4(17, 0, udp(dport=4500)), False),
        (ipv4(50, 0, udp()), False),
        (ipv4(1, 0, udp()), False),
        (ipv6(6, tcp(0x10)), True),
        (ipv6(6, tcp(0x11)), False),
        (ipv6(17, udp(total=0x30)), True),
        (ipv6(17, udp(total=0x31)), False),
        (ipv6(17, udp(dport=4500, total=0)), False),
        (ipv6(50, udp(total=0)), False),
        (b"\x00" * 60, False),
        (b"", False),
    ],
)
def test_the_filter_takes_one_in_sixteen_of_tcp_and_udp(packet: bytes, kept: bool) -> None:
    assert passes(packet) is kept
    assert passes(packet, leaving=True, wanted=True) is kept
    assert not passes(packet, leaving=True)
    assert not passes(packet, wanted=True)


def test_what_a_router_changes_does_not_change_the_mark() -> None:
    assert mark(ipv4(6, 9, tcp(5))) == mark(ipv4(6, 9, tcp(5), ttl=63))
    assert mark(ipv4(6, 9, tcp(5, sport=1)))[2] == mark(ipv4(6, 9, tcp(5, sport=2), src=9))[2]  # NAT
    assert mark(ipv6(6, tcp(5))) == mark(ipv6(6, tcp(5), hops=63))
    assert mark(ipv4(17, 9, udp(data=bytes(32))))[2] == mark(ipv4(17, 9, udp(data=bytes(64))))[2]  # GRO
    assert mark(ipv4(17, 9, udp())) is not None
    assert mark(ipv4(17, 9, udp()))[:2] == ("10.2.0.1", "10.1.0.2")


def test_other_packets_have_other_marks() -> None:
    marks = [mark(ipv4(6, 9, tcp(5))), mark(ipv4(6, 8, tcp(5))), mark(ipv4(6, 9, tcp(6))), mark(ipv4(17, 9, udp()))]
    assert len(set(marks)) == len(marks)


@given(st.binary(max_size=100))
def test_any_bytes_have_a_mark_or_none(packet: bytes) -> None:
    found = mark(packet)
    assert found is None or len(found) == 3
    passes(packet)


def test_passages_are_of_packets_that_are_known_for_certain() -> None:
    def seen(at: float, name: bytes) -> Seen:
        return Seen(at, "10.2.0.1", "10.1.0.2", name)

    arrived = [seen(1.0, b"a"), seen(2.0, b"b"), seen(3.0, b"twice"), seen(3.1, b"twice"), seen(5.0, b"late")]
    left = [seen(1.5, b"a"), seen(2.25, b"b"), seen(3.2, b"twice"), seen(5.0 + SLOWEST, b"late"), seen(9, b"else")]
    assert passages(arrived, left) == [0.25, 0.5]
