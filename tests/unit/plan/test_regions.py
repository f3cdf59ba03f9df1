"""Disjoint, complete, and owned by whoever came first: for any list of prefix pairs."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.plan.regions import Pair, Regions, TooFragmented, parse, text_of

BITS = 32
# Prefixes of an 8-bit address space, 10.0.0.0/24, so that every address pair can be tried.
prefixes = st.tuples(st.integers(0, 255), st.integers(24, 32)).map(
    lambda it: (((10 << 24) | it[0]) >> (32 - it[1]) << (32 - it[1]), it[1])
)
entries = st.lists(st.tuples(st.builds(Pair, prefixes, prefixes), st.sampled_from("abc")), max_size=8)


def covers(pair: Pair, src: int, dst: int) -> bool:
    return all(
        base <= address < base + (1 << (32 - length)) for (base, length), address in ((pair.src, src), (pair.dst, dst))
    )


@given(entries, st.integers(0, 255), st.integers(0, 255))
def test_first_match_owns_every_address_pair(listed: list[tuple[Pair, str]], low: int, high: int) -> None:
    src, dst = (10 << 24) | low, (10 << 24) | high
    regions: Regions[str] = Regions(BITS, limit=100_000)
    for pair, owner in listed:
        regions.add(pair, owner)
    first = next((owner for pair, owner in listed if covers(pair, src, dst)), None)
    placed = [(Pair(parse(a), parse(b)), owner) for (a, b), owner in regions.elements()]
    owners = [owner for pair, owner in placed if covers(pair, src, dst)]
    assert owners == ([] if first is None else [first])


@given(entries)
def test_elements_never_overlap(listed: list[tuple[Pair, str]]) -> None:
    regions: Regions[str] = Regions(BITS, limit=100_000)
    for pair, owner in listed:
        regions.add(pair, owner)
    placed = [Pair(parse(a), parse(b)) for (a, b), _ in regions.elements()]
    for one, other in combinations(placed, 2):
        src_apart = (
            one.src[0] + (1 << (32 - one.src[1])) <= other.src[0]
            or other.src[0] + (1 << (32 - other.src[1])) <= one.src[0]
        )
        dst_apart = (
            one.dst[0] + (1 << (32 - one.dst[1])) <= other.dst[0]
            or other.dst[0] + (1 << (32 - other.dst[1])) <= one.dst[0]
        )
        assert src_apart or dst_apart


def test_equal_selectors_of_one_owner_stay_one_element() -> None:
    regions: Regions[str] = Regions(BITS)
    for src in ("10.1.2.0/24", "10.1.0.0/16", "10.1.3.0/24"):
        regions.add(Pair(parse(src), parse("10.2.0.0/16")), "a")
    assert list(regions.elements()) == [(("10.1.0.0/16", "10.2.0.0/16"), "a")]


def test_too_many_pieces_is_refused_and_changes_nothing() -> None:
    regions: Regions[str] = Regions(BITS, limit=20)
    regions.add(Pair(parse("10.0.0.1"), parse("10.0.0.1")), "a")
    before = list(regions.elements())
    with pytest.raises(TooFragmented):
        regions.add(Pair(parse("0.0.0.0/0"), parse("0.0.0.0/0")), "b")
    assert list(regions.elements()) == before


def test_text_of_both_families() -> None:
    assert text_of(parse("10.1.2.3/16"), 32) == "10.1.0.0/16"
    assert text_of(parse("10.1.2.3"), 32) == "10.1.2.3"
    assert text_of(parse("fd00:1::/64"), 128) == "fd00:1::/64"
