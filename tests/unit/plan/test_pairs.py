"""Pairs of prefixes in sets: few as intervals, many by their shape; no packet is judged differently for it."""

from collections.abc import Iterable
from itertools import product

import pytest

from flowfast import bench
from flowfast.apply.commit import commands_of
from flowfast.kernel.nft import FakeNft
from flowfast.model.nftables import Element
from flowfast.plan.diff import OWN, diff
from flowfast.plan.flows import inside
from flowfast.plan.pairs import FAMILIES, FEW, SHAPES, Part, parts, prefixes
from flowfast.plan.planner import plan
from flowfast.plan.ruleset import INET, NETDEV
from tests.unit.plan.router import as_read

FOUR, SIX = FAMILIES[2], FAMILIES[10]


def made(elements: Iterable[Element]) -> list[Part]:
    return parts("fast", FOUR, dict.fromkeys(elements, ""))


def spread(count: int, *shapes: tuple[int, int]) -> list[Element]:
    """So many pairs without overlaps, in turns of these shapes."""
    pairs = []
    for number in range(count):
        src, dst = shapes[number % len(shapes)]
        ends = ((f"10.{number >> 8}.{number & 255}.0", src), ("172.16.0.0" if dst < 32 else "172.16.0.1", dst))
        pairs.append(tuple(base if length == 32 else f"{base}/{length}" for base, length in ends))
    return pairs


def test_few_pairs_are_one_set_of_intervals() -> None:
    (part,) = made(pairs := spread(FEW, (24, 16), (26, 32)))
    assert (part.set.name, part.set.interval, part.key()) == ("fast4", True, "ip saddr . ip daddr")
    assert list(part.set.elements) == pairs


def test_many_pairs_are_a_hash_table_for_each_shape() -> None:
    one, other = made(spread(FEW + 1, (24, 16), (26, 32)))
    assert (one.set.name, one.set.interval, len(one.set.elements)) == ("fast4_24_16", False, FEW // 2 + 1)
    assert one.key() == "(ip saddr & 255.255.255.0) . (ip daddr & 255.255.0.0)"
    assert next(iter(one.set.elements)) == ("10.0.0.0", "172.16.0.0")
    assert other.set.name == "fast4_26_32"
    assert other.key("ct reply ") == "(ct reply ip saddr & 255.255.255.192) . ct reply ip daddr"


def test_more_shapes_than_a_packet_should_be_asked_about_share_a_set_of_intervals() -> None:
    shapes = [(24, length) for length in range(8, 8 + SHAPES + 3)]
    pairs = spread(40 * len(shapes), *shapes)
    *hashed, rest = made([*pairs, *spread(20, (30, 30))[1:]])
    assert len(hashed) == SHAPES
    assert rest.set.interval
    assert sum(len(part.set.elements) for part in (*hashed, rest)) == len(pairs) + 19


@pytest.mark.parametrize("count", [FEW, FEW + 1, 1000])
def test_every_pair_is_found_again_with_its_prefixes(count: int) -> None:
    pairs = spread(count, (24, 16), (26, 32), (32, 0), (0, 24))
    found = set(prefixes("fast4", [part.set for part in made(pairs)]))
    whole = {tuple(end if "/" in end else f"{end}/32" for end in pair) for pair in pairs}
    assert {tuple(end if "/" in end else f"{end}/32" for end in pair) for pair in found} == whole
    assert list(prefixes("fast6", [part.set for part in made(pairs)])) == []


def test_both_families_have_masks_and_the_whole_address_needs_none() -> None:
    pairs: list[Element] = [(f"fd00:{number:x}::/64", "::/0") for number in range(FEW + 1)]
    (part,) = parts("in", SIX, dict.fromkeys(pairs, "in_x"), data="counter")
    assert part.key() == "(ip6 saddr & ffff:ffff:ffff:ffff::) . (ip6 daddr & ::)"
    assert part.set.data == "counter"


def test_a_mark_is_a_third_part() -> None:
    marked: dict[Element, str] = {
        (f"10.{number >> 8}.{number & 255}.0/24", "10.9.0.1", "7"): "" for number in range(300)
    }
    (part,) = parts("marked", FOUR, marked, mark=True)
    assert part.set.type == "ipv4_addr . ipv4_addr . mark"
    assert ("10.0.5.0", "10.9.0.1", "7") in part.set.elements


def test_the_kernel_takes_what_grows_and_shrinks_across_the_limit() -> None:
    nft = FakeNft()
    for tunnels in (2, FEW + 10, FEW + 20, 2):
        wanted = plan(bench.hub(tunnels), bench.CONFIG).ruleset
        nft.commit(commands_of(diff(wanted, nft.read(OWN))))
        assert nft.read(OWN) == as_read(wanted)


def test_a_new_tunnel_among_many_takes_no_flow_off() -> None:
    held = as_read(plan(bench.hub(FEW + 10), bench.CONFIG).ruleset)
    steps = diff(plan(bench.hub(FEW + 11), bench.CONFIG).ruleset, held)
    assert steps
    assert not any(step.flushes for step in steps)


def test_many_tunnels_are_guarded_and_fast_like_few() -> None:
    ruleset = plan(bench.hub(FEW + 1), bench.CONFIG).ruleset
    guarded = list(prefixes("guarded4", ruleset.tables[NETDEV].sets.values()))
    fast = list(prefixes("fast4", ruleset.tables[INET].sets.values()))
    _, remote, local = bench.spoke(7)
    assert (remote, local) in guarded
    assert sorted(guarded) == sorted(fast)
    for end, there in product(("10.128.7.9", "10.127.0.1"), (guarded, fast)):
        assert any(inside(end, src) and inside("10.1.2.3", dst) for src, dst in there) == (end == "10.128.7.9")


def test_a_packet_is_counted_once_and_looked_for_no_further() -> None:
    chains = plan(bench.hub(FEW + 1), bench.CONFIG).ruleset.tables[INET].chains
    assert chains["count_out"].rules[0] == (
        "counter name (ip saddr & 255.255.0.0) . (ip daddr & 255.255.255.0) map @out4_16_24 return"
    )
    assert "meta ipsec exists jump count_in" in chains["forward"].rules
