"""How packets arrive: what a packet socket says of each."""

import struct

import pytest

from flowfast.kernel.arrivals import judge

PLAIN, MERGED = bytes(10), bytes([1, 5]) + bytes(8)
UDP4 = bytes([0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, 17]) + bytes(40)
TCP6 = bytes([0x60, 0, 0, 0, 0, 40, 6, 64]) + bytes(40)
ICMP4 = UDP4[:9] + bytes([1]) + UDP4[10:]
FRAGMENT = UDP4[:6] + bytes([0x20, 0x00]) + UDP4[8:]


def auxdata(status: int) -> list[tuple[int, int, bytes]]:
    return [(263, 8, struct.pack("=IIIHHHH", status, 60, 60, 0, 0, 0, 0))]


READY, NOT_READY = auxdata(1), auxdata(1 | 1 << 3)


@pytest.mark.parametrize(
    ("data", "ethertype", "ancillary", "unfinished"),
    [
        (PLAIN + UDP4, 0x0800, READY, False),
        (PLAIN + UDP4, 0x0800, NOT_READY, True),
        (PLAIN + TCP6, 0x86DD, NOT_READY, True),
        (MERGED + UDP4, 0x0800, NOT_READY, None),  # GRO marks what it put together so, too
        (PLAIN + ICMP4, 0x0800, NOT_READY, None),
        (PLAIN + FRAGMENT, 0x0800, READY, None),
        (PLAIN + UDP4, 0x0806, READY, None),
        (PLAIN + UDP4[:10], 0x0800, READY, None),
        (PLAIN + UDP4, 0x0800, [], None),
    ],
)
def test_a_packet_is_judged_by_its_auxdata(
    data: bytes, ethertype: int, ancillary: list[tuple[int, int, bytes]], unfinished: bool | None
) -> None:
    assert judge(data, ethertype, ancillary) is unfinished
