"""What the tap reads in a frame."""

import struct

import pytest

from flowfast.lab.demo.tap import ONE_ESP_IN_MANY, numbers


@pytest.mark.parametrize("words", [5, 6, 15])
def test_spi_and_sequence_number_follow_the_ip_header(words: int) -> None:
    frame = bytes(14) + bytes([0x40 | words]) + bytes(words * 4 - 1) + struct.pack("!II", 0xC0FFEE01, 4711) + bytes(8)
    assert numbers(frame) == (0xC0FFEE01, 4711)


def test_every_jump_of_the_filter_ends_in_it() -> None:
    program = list(struct.iter_unpack("=HBBI", ONE_ESP_IN_MANY))
    for at, (code, if_true, if_false, _) in enumerate(program):
        if code == 0x15:
            assert at + 1 + max(if_true, if_false) < len(program)
    # What is not wanted goes to the last instruction, which keeps nothing.
    assert program[-1] == (0x06, 0, 0, 0)
    assert {at + 1 + if_false for at, (code, _, if_false, _) in enumerate(program) if code == 0x15} == {
        len(program) - 1
    }
