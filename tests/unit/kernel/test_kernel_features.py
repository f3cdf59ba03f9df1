"""ethtool's features: verbose bitsets, with and without a mask."""

from flowfast.kernel.features import _bits
from flowfast.kernel.netlink import attribute, nested


def bit(name: str, *, on: bool) -> bytes:
    parts = [attribute(2, name.encode() + b"\0")] + ([attribute(3, b"")] if on else [])
    return nested(1, *parts)


def test_of_a_bitset_with_a_mask_only_bits_with_a_value_are_set() -> None:
    bits = nested(3, bit("rx-gro", on=True), bit("rx-gro-list", on=False))
    assert list(_bits(memoryview(attribute(2, b"\x40\0\0\0") + bits))) == ["rx-gro"]


def test_of_one_without_a_mask_all_that_are_named_are_set() -> None:
    bits = nested(3, bit("rx-gro", on=False), bit("tx-gso", on=False))
    assert list(_bits(memoryview(attribute(1, b"") + bits))) == ["rx-gro", "tx-gso"]
