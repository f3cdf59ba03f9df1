"""FakeNft and what it stands on: the same cases as on the kernel (tests/guest/test_kernel_edge.py), without root."""

import asyncio
import errno
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.kernel import NewGeneration
from flowfast.kernel.nft import FakeNft
from flowfast.kernel.nft.intervals import Overlaps
from flowfast.model.errors import KernelError
from flowfast.model.nftables import Chain, Element, Flowtable, Hook, Set, rule_hash
from flowfast.model.state import CounterValue
from flowfast.model.transaction import AddChain, AddCounter, AddFlowtable, AddRule, AddSet, AddTable
from tests.nft_cases import DEVICES, FAST, GUARD, INET, NETDEV, Case, cases
from tests.unit.pace import growth


@pytest.mark.parametrize("name_binding", [True, False])
def test_ends_as_the_kernel_does(name_binding: bool) -> None:
    fake = FakeNft(devices=DEVICES, name_binding=name_binding)
    for case in cases(name_binding=name_binding):
        before = fake.read((INET, NETDEV)), fake.generation()
        code = _code(fake, case)
        assert code in (case.codes or {0}), case.what
        if code:
            assert (fake.read((INET, NETDEV)), fake.generation()) == before, f"{case.what}: not all or nothing"


def _code(fake: FakeNft, case: Case) -> int:
    try:
        fake.commit(case.commands)
    except KernelError as refused:
        return refused.code
    return 0


def _fast_router(**how: object) -> FakeNft:
    fake = FakeNft(devices=DEVICES, **how)
    fake.commit([AddTable(INET), AddFlowtable(INET, FAST), AddChain(INET, "c"), AddRule(INET, "c", "flow add @fast")])
    fake.commit([AddTable(NETDEV), AddChain(NETDEV, "guard", GUARD)])
    return fake


def test_reads_rules_as_hashes_and_foreign_ones_as_question_marks() -> None:
    fake = _fast_router()
    fake.foreign_rule(INET, "c")
    assert fake.read([INET]).tables[INET].chains == {"c": Chain("c", (rule_hash("flow add @fast"), "?"))}


def test_check_changes_nothing() -> None:
    fake = _fast_router()
    fake.check([AddCounter(INET, "n")])
    with pytest.raises(KernelError):
        fake.check([AddRule(INET, "nowhere", "accept")])
    assert fake.counters(INET) == {}
    assert fake.generation() == 3


def test_events_tell_own_from_foreign_and_reach_every_listener() -> None:
    async def listen() -> list[NewGeneration]:
        fake = FakeNft()
        early, late = fake.changes(), fake.changes()
        fake.commit([AddTable(INET)])
        fake.foreign_change("table ip his {}", process="firewalld")
        fake.lose_events()
        late.close()
        fake.foreign_delete(INET)
        assert (await anext(late)).own
        return [await anext(early) for _ in range(4)]

    own, foreign, lost, deleted = asyncio.run(listen())
    assert (own.generation, own.own) == (2, True)
    assert (foreign.generation, foreign.process, foreign.own) == (3, "firewalld", False)
    assert lost == NewGeneration(None, None, None)
    assert not deleted.own


def test_an_event_from_another_thread_wakes_who_waits() -> None:
    async def listen() -> NewGeneration:
        fake = FakeNft()
        with fake.changes() as changes:
            waiting = asyncio.create_task(anext(changes))
            await asyncio.sleep(0)
            await asyncio.to_thread(fake.commit, [AddTable(INET)])
            return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(listen()).own


def test_foreign_delete_takes_the_table() -> None:
    fake = _fast_router()
    fake.foreign_delete(INET)
    assert fake.read((INET, NETDEV)).tables.keys() == {NETDEV}
    assert fake.hooked(INET, FAST) == frozenset()


def test_fails_once_where_a_test_wants_it() -> None:
    fake = FakeNft()
    fake.fail = KernelError("nft: no", errno.ENOMEM)
    with pytest.raises(KernelError, match="nft: no"):
        fake.commit([AddTable(INET)])
    fake.commit([AddTable(INET)])
    assert fake.committed == [(AddTable(INET),)]


def test_devices_that_go_take_their_hooks_with_them_before_name_binding() -> None:
    old, new = _fast_router(name_binding=False), _fast_router()
    for fake in (old, new):
        assert fake.hooked(INET, FAST) == {"v0"}
        fake.device_gone("v0")
        assert fake.hooked(INET, FAST) == frozenset()
        fake.device_came("v0")
    held = old.read((INET, NETDEV)).tables
    assert (held[INET].flowtables["fast"].devices, held[NETDEV].chains) == (frozenset(), {})
    assert old.hooked(INET, FAST) == frozenset()
    assert new.hooked(INET, FAST) == {"v0"}


def test_counters_are_what_a_test_sets_and_only_those_that_are_there() -> None:
    fake = FakeNft()
    assert fake.counters(INET) == {}
    fake.commit([AddTable(INET), AddCounter(INET, "a"), AddCounter(INET, "b")])
    fake.set_counter(INET, "a", CounterValue(3, 400))
    fake.set_counter(INET, "gone", CounterValue(1, 1))
    assert fake.counters(INET) == {"a": CounterValue(3, 400), "b": CounterValue(0, 0)}


def test_errors_name_the_object_and_the_command() -> None:
    with pytest.raises(KernelError, match=r'^nft: No such file or directory: "inet flowfast" in: add chain inet flow'):
        FakeNft().commit([AddChain(INET, "c", Hook("filter", "forward", 0))])


def test_ten_thousand_tunnels_take_no_longer_each_than_one_thousand() -> None:
    def work(tunnels: int) -> Callable[[], object]:
        pairs = {(f"10.{i >> 8}.{i & 255}.0/24", f"172.16.{i & 255}.{i >> 8}"): f"n{i}" for i in range(tunnels)}
        counters = [AddCounter(INET, name) for name in pairs.values()]
        added = [*counters, AddSet(INET, Set("m", "ipv4_addr . ipv4_addr", True, "counter", pairs))]

        def commit() -> None:
            fake = FakeNft()
            fake.commit([AddTable(INET), *added])
            assert len(fake.read([INET]).tables[INET].sets["m"].elements) == tunnels

        return commit

    assert growth(work, 1_000, 10_000) < 4


def test_a_flowtable_of_another_table_may_share_a_device() -> None:
    fake = _fast_router()
    fake.commit([AddFlowtable(NETDEV, Flowtable("fast", frozenset({"v0"})))])
    assert fake.hooked(NETDEV, FAST) == {"v0"}


# overlaps, against the definition

_prefixes = st.builds(
    lambda bits, length: str(ip_network((bits << 24, length), strict=False)),
    st.integers(0, 255),
    st.integers(0, 8),
)
_pairs = st.tuples(_prefixes, _prefixes)


def _ends(element: Element) -> tuple[tuple[int, ...], tuple[int, ...]]:
    networks = [ip_network(part) for part in element]
    return tuple(int(n.network_address) for n in networks), tuple(int(n.broadcast_address) for n in networks)


def _within(point: tuple[int, ...], element: Element) -> bool:
    first, last = _ends(element)
    return all(a <= value <= b for a, value, b in zip(first, point, last, strict=True))


@given(st.lists(_pairs, max_size=12, unique=True), _pairs)
def test_concatenations_clash_where_an_end_lies_in_another(held: list[Element], new: Element) -> None:
    expected = new not in held and any(_within(end, element) for end in _ends(new) for element in held)
    assert Overlaps(held).clash(new) == expected


@given(st.lists(st.tuples(_prefixes), max_size=12, unique=True), st.tuples(_prefixes))
def test_intervals_clash_where_they_overlap_at_all(held: list[Element], new: Element) -> None:
    overlapping = any(ip_network(new[0]).overlaps(ip_network(element[0])) for element in held)
    assert Overlaps(held).clash(new) == (new not in held and overlapping)


@pytest.mark.parametrize(
    ("new", "clashes"),
    [(("10.0.0.3-10.0.0.9", "v0"), True), (("10.0.0.6-10.0.0.9", "v0"), False), (("10.0.0.3", "v1"), False)],
)
def test_ranges_and_names_clash_too(new: Element, clashes: bool) -> None:
    assert Overlaps([("10.0.0.1-10.0.0.5", "v0")]).clash(new) is clashes
