"""The map of steered SAs, as memory: every SA in its bucket, and none moves without need."""

import struct
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from flowfast.kernel.buckets import SIZE, WAYS, bucket_of, placed

SPIS = st.dictionaries(st.integers(1, 2**32 - 1), st.integers(0, 63), max_size=50)


def held(memory: bytes | bytearray) -> dict[int, int]:
    return {int.from_bytes(spi): cpu for spi, cpu in struct.iter_unpack("=4sI", memory) if any(spi)}


@given(SPIS, SPIS)
def test_it_holds_what_is_wanted_and_nothing_else(first: dict[int, int], second: dict[int, int]) -> None:
    before, _ = placed(bytes(SIZE), first)
    after, full = placed(before, second)
    assert held(after) == {spi: cpu for spi, cpu in second.items() if spi not in full}
    for spi in first.keys() & second.keys() - set(full):
        where = before.find(spi.to_bytes(4), bucket_of(spi) * 32) // 8
        assert after.find(spi.to_bytes(4), bucket_of(spi) * 32) // 8 == where


def test_a_bucket_that_is_full_is_told() -> None:
    draw, found = Random(1), []  # noqa: S311 - no secret
    while len(found) <= WAYS:
        spi = draw.randrange(1, 2**32)
        if bucket_of(spi) == 7:
            found.append(spi)
    memory, full = placed(bytes(SIZE), dict.fromkeys(found, 1))
    assert full == found[WAYS:]
    assert len(held(memory)) == WAYS


def test_ten_thousand_random_spis_fit_but_for_one_at_most() -> None:
    draw = Random(2)  # noqa: S311 - no secret
    _, full = placed(bytes(SIZE), {draw.randrange(2**8, 2**32): 0 for _ in range(10_000)})
    assert len(full) <= 1
