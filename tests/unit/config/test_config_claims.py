"""Overlap of selectors, against the definition tried on every pair."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from flowfast.config.claims import Prefix, clashes
from flowfast.config.schema import Tunnel
from tests.unit.pace import growth

UNHURRIED = settings(deadline=None)  # a busy machine is no mistake of ours


@dataclass(frozen=True)
class Claimant:
    pairs: tuple[tuple[Prefix, Prefix], ...]
    own: int | None = None
    marks: tuple[int, ...] = ()


def some(version: int) -> st.SearchStrategy[Prefix]:
    """Prefixes in a space so small that they overlap often."""
    base, bits = (10 << 24, 32) if version == 4 else (0xFD00 << 112, 128)
    return st.tuples(st.integers(0, 7), st.integers(bits - 3, bits)).map(
        lambda drawn: ip_network((base | drawn[0], drawn[1]), strict=False)
    )


pairs = st.one_of(*(st.tuples(some(version), some(version)) for version in (4, 6)))
claimants = st.builds(
    Claimant, st.lists(pairs, min_size=1, max_size=4).map(tuple), st.sampled_from([None, None, 1, 2]), st.just(())
)


def overlap(one: Claimant, other: Claimant) -> bool:
    """The definition: told apart by nothing, and a pair of one shares packets with a pair of the other."""
    if one.own is not None and other.own is not None and one.own != other.own:
        return False
    return any(
        mine[0].version == yours[0].version and mine[0].overlaps(yours[0]) and mine[1].overlaps(yours[1])
        for mine in one.pairs
        for yours in other.pairs
    )


@UNHURRIED
@given(st.lists(claimants, max_size=6))
def test_finds_clashes_where_there_are_any_and_only_there(listed: list[Claimant]) -> None:
    tunnels = {f"t{n}": one for n, one in enumerate(listed)}
    wanted = {
        (later, earlier) for earlier, later in combinations(tunnels, 2) if overlap(tunnels[earlier], tunnels[later])
    }
    found = list(clashes(tunnels))
    assert {(clash.later, clash.earlier) for clash in found} <= wanted
    assert bool(found) is bool(wanted)
    for clash in found:  # and the pairs that it names are those that overlap
        assert clash.later_pair is not None
        assert clash.earlier_pair is not None
        assert clash.later_pair.local.overlaps(clash.earlier_pair.local)
        assert clash.later_pair.remote.overlaps(clash.earlier_pair.remote)


@UNHURRIED
@given(st.lists(claimants, max_size=6))
def test_fixing_one_clash_after_the_other_ends_with_none(listed: list[Claimant]) -> None:
    tunnels = {f"t{n}": one for n, one in enumerate(listed)}
    while found := list(clashes(tunnels)):
        tunnels = {name: one for name, one in tunnels.items() if name not in {clash.later for clash in found}}
    assert not any(overlap(*two) for two in combinations(tunnels.values(), 2))


def test_an_if_id_of_zero_is_told_apart_from_an_interface() -> None:
    any_to_any = {"local": ["0.0.0.0/0"], "remote": ["0.0.0.0/0"]}
    policy = Tunnel.model_validate({**any_to_any, "if_id": 0})
    interface = Tunnel.model_validate({**any_to_any, "if_id": 42})
    unsaid = Tunnel.model_validate(any_to_any)
    assert list(clashes({"policy": policy, "interface": interface})) == []
    assert [clash.later for clash in clashes({"unsaid": unsaid, "interface": interface})] == ["interface"]


def test_ten_thousand_tunnels_do_not_take_a_hundred_times_what_one_thousand_take() -> None:
    ours = ip_network("10.0.0.0/8")

    def work(tunnels: int) -> Callable[[], object]:
        hub = {
            str(n): Claimant(
                ((ours, ip_network(((20 << 24) + (n << 8), 24))), (ours, ip_network(((30 << 24) + n, 32))))
            )
            for n in range(tunnels)
        }
        return lambda: list(clashes(hub))

    assert work(10_000)() == []
    assert growth(work, 1_000, 10_000) < 4
