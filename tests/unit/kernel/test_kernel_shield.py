"""The shield's instructions, run by a small machine of the test's own: what they do to packets, and what they leave."""

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.kernel.shield import LARGEST, program
from flowfast.lab.inject import checksum

CONTEXT, PACKET, ROOM = 0x1000, 0x8000, 64
XDP_PASS = 2


class Machine:
    """Registers, and the packet with the room in front of it. Reading or writing anything else is an error."""

    def __init__(self, frame: bytes, meta_works: bool = True) -> None:
        self.memory = bytearray(ROOM) + bytearray(frame)
        self.data, self.end, self.meta = PACKET, PACKET + len(frame), PACKET
        self.meta_works = meta_works
        self.r = [0] * 11
        self.r[1] = CONTEXT

    @property
    def frame(self) -> bytes:
        return bytes(self.memory[ROOM:])

    @property
    def metadata(self) -> bytes:
        return bytes(self.memory[ROOM - (self.data - self.meta) : ROOM])

    def _at(self, address: int, size: int) -> slice:
        assert self.meta <= address and address + size <= self.end, "outside of the packet"
        return slice(address - PACKET + ROOM, address - PACKET + ROOM + size)

    def _load(self, address: int, size: int) -> int:
        if address - CONTEXT in (0, 4, 8):
            return {0: self.data, 4: self.end, 8: self.meta}[address - CONTEXT]
        return int.from_bytes(self.memory[self._at(address, size)], "little")

    def _call(self, helper: int) -> None:
        if helper == 7:
            self.r[0] = 0x12345678
        else:
            assert helper == 54
            self.r[0] = 0 if self.meta_works else -95
            self.meta += self.r[2] if self.meta_works else 0
        self.r[1:6] = [0] * 5

    def run(self) -> int:  # noqa: PLR0912 - one case an instruction
        code = [struct.unpack_from("<BBhi", program(), at) for at in range(0, len(program()), 8)]
        at = 0
        while True:
            operation, registers, offset, immediate = code[at]
            into, source = registers & 15, registers >> 4
            r = self.r
            at += 1
            match operation:
                case 0x95:
                    return r[0]
                case 0x85:
                    self._call(immediate)
                case 0x71 | 0x69 | 0x61:
                    r[into] = self._load(r[source] + offset, {0x71: 1, 0x69: 2, 0x61: 4}[operation])
                case 0x73 | 0x6B | 0x63:
                    size = {0x73: 1, 0x6B: 2, 0x63: 4}[operation]
                    self.memory[self._at(r[into] + offset, size)] = (r[source] & (1 << 8 * size) - 1).to_bytes(
                        size, "little"
                    )
                case 0xB7:
                    r[into] = immediate
                case 0xBF:
                    r[into] = r[source]
                case 0x07:
                    r[into] += immediate
                case 0x0F:
                    r[into] += r[source]
                case 0x57:
                    r[into] &= immediate
                case 0x47:
                    r[into] |= immediate
                case 0x77:
                    r[into] >>= immediate
                case 0x67:
                    r[into] <<= immediate
                case 0xDC:
                    r[into] = int.from_bytes((r[into] & 0xFFFF).to_bytes(2, "little"), "big")
                case _:
                    taken = {
                        0x05: True,
                        0x15: r[into] == immediate,
                        0x1D: r[into] == r[source],
                        0x55: r[into] != immediate,
                        0x25: r[into] > immediate,
                        0x2D: r[into] > r[source],
                    }[operation]
                    at += offset if taken else 0


def ipv4(size: int, *, flags: int = 0x4000, ident: int = 1, source: str = "10.1.0.2", options: bytes = b"") -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, size, ident, flags, 64, 17, 0)
    head += IPv4Address(source).packed + IPv4Address("10.2.0.2").packed + options
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return bytes(12) + b"\x08\x00" + head + bytes(range(256))[: max(size - len(head), 0)].ljust(size - len(head), b"x")


def ipv6(size: int, protocol: int = 17) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, size - 40, protocol, 64) + bytes(32)
    return bytes(12) + b"\x86\xdd" + head + bytes(size - 40)


STAMPED = bytes([1, 1, 8, 10]) + bytes(range(8))
SIGNED = bytes([1, 1, 19, 18]) + bytes(16)
PSH = 0x08


def tcp6(data: int, options: bytes = STAMPED, flags: int = 0x10) -> bytes:
    head = struct.pack("!HHIIBBHHH", 7, 9, 1, 2, (5 + len(options) // 4) << 4, flags, 500, 0, 0) + options
    frame = ipv6(40 + len(head) + data, 6)[:54] + head + bytes(range(256)) * 2 + bytes(1000)
    frame = frame[: 54 + len(head) + data]
    return frame[:70] + struct.pack("!H", tcp_sum(frame)) + frame[72:]


def tcp_sum(frame: bytes) -> int:
    """The checksum that belongs into a frame that has none; 0 for one whose checksum is right."""
    return checksum(frame[22:54] + struct.pack("!IHBB", len(frame) - 54, 0, 0, 6) + frame[54:])


@given(
    size=st.integers(29, LARGEST),
    ident=st.integers(0, 0xFFFF),
    source=st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number))),
)
def test_df_of_a_small_packet_is_cleared_and_its_checksum_right(size: int, ident: int, source: str) -> None:
    before = ipv4(size, ident=ident, source=source)
    machine = Machine(before)
    assert machine.run() == XDP_PASS
    after = machine.frame
    assert checksum(after[14:34]) == 0
    assert struct.unpack_from("!H", after, 20) == (0,)
    assert after[:20] + after[22:24] + after[26:] == before[:20] + before[22:24] + before[26:]
    assert machine.metadata == b""


@pytest.mark.parametrize(
    "frame",
    [
        ipv4(LARGEST + 1),
        ipv4(1400),
        ipv4(60, flags=0),
        ipv4(60, flags=0x2000),
        ipv4(64, options=b"\x01\x01\x01\x01"),
        tcp6(LARGEST - 71),
        tcp6(0),
        tcp6(0, options=b""),
        tcp6(0, options=SIGNED),
        tcp6(20, options=SIGNED),
        tcp6(20, flags=0x10 | PSH),
        tcp6(20)[:60],
        tcp6(20)[:76],
        ipv6(60, protocol=58),
        bytes(12) + b"\x08\x06" + bytes(46),
        bytes(12) + b"\x08\x00",
        b"",
    ],
    ids=[
        "513 bytes",
        "1400 bytes",
        "no DF",
        "a fragment",
        "options",
        "large TCP over IPv6",
        "an acknowledgement",
        "without options",
        "a signed one",
        "signed data",
        "data with PSH",
        "cut within TCP",
        "cut within its options",
        "ICMPv6",
        "ARP",
        "cut short",
        "empty",
    ],
)
def test_everything_else_is_left_as_it_is(frame: bytes) -> None:
    machine = Machine(frame)
    assert (machine.run(), machine.frame, machine.metadata) == (XDP_PASS, frame, b"")


@pytest.mark.parametrize("frame", [ipv6(49), ipv6(60), ipv6(LARGEST), ipv6(1400)])
def test_udp_over_ipv6_of_any_size_gets_metadata_of_its_own(frame: bytes) -> None:
    """Small packets alone would leave after larger ones."""
    machine = Machine(frame)
    assert (machine.run(), machine.frame) == (XDP_PASS, frame)
    assert machine.metadata == (0x12345678).to_bytes(4, "little")


@given(
    data=st.integers(1, LARGEST - 72),
    options=st.sampled_from([b"", STAMPED]),
    flags=st.sampled_from([0x10, 0x18, 0x90]),
)
def test_a_small_tcp_segment_over_ipv6_gets_psh_and_its_checksum_is_right(
    data: int, options: bytes, flags: int
) -> None:
    before = tcp6(data, options, flags)
    assert tcp_sum(before) == 0
    machine = Machine(before)
    assert (machine.run(), machine.metadata) == (XDP_PASS, b"")
    after = machine.frame
    assert tcp_sum(after) == 0
    assert after[67] == flags | PSH
    assert after[:67] + after[68:70] + after[72:] == before[:67] + before[68:70] + before[72:]


def test_a_driver_without_metadata_passes_the_packet_on() -> None:
    machine = Machine(ipv6(60), meta_works=False)
    assert (machine.run(), machine.frame, machine.metadata) == (XDP_PASS, ipv6(60), b"")
