"""Whatever the kernel holds, the steps lead to what is wanted, in transactions that the kernel takes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast import bench
from flowfast.apply.commit import commands_of, transactions
from flowfast.config.schema import Config
from flowfast.kernel.nft.fake import FakeNft
from flowfast.model.nftables import Flowtable, Ruleset
from flowfast.model.state import RouterState
from flowfast.model.transaction import (
    AddElements,
    AddFlowtable,
    AddRule,
    AddSet,
    AddTable,
    Command,
    DeleteDevices,
    DeleteElements,
    DeleteFlowtable,
    DeleteTable,
    FlushChain,
)
from flowfast.plan.diff import OWN, diff, flush_flows, remove_all
from flowfast.plan.planner import plan
from flowfast.plan.ruleset import INET, NETDEV
from tests.unit.plan.router import IPSEC, LAN, WAN, as_read, config, policies, router

A, B = policies(), policies("10.1.0.0/16", "10.3.0.0/16", "192.0.2.3", reqid=2)
V6 = policies("fd00:1::/64", "fd00:2::/64", reqid=3)
LAN1 = replace(LAN, ifindex=9, name="lan1")

states = st.builds(
    lambda spd, links: router(*spd, links=links),
    st.lists(st.sampled_from([A, B, V6]), unique=True, max_size=3),
    st.sampled_from([(LAN, WAN), (LAN,), (LAN, WAN, IPSEC), (LAN, LAN1, WAN)]),
)
configs = st.builds(
    lambda accounting, mode: config(f"accounting: {accounting}\noffload: {{mode: {mode}}}"),
    st.sampled_from(["off", "sa", "precise"]),
    st.sampled_from(["guarded", "outbound-only", "off"]),
)


def go(nft: FakeNft, wanted: Ruleset) -> None:
    for commands in transactions(diff(wanted, nft.read(OWN))):
        nft.commit(commands)


@given(st.lists(st.tuples(states, configs), min_size=1, max_size=4))
def test_any_plan_follows_any_other(plans: list[tuple[RouterState, Config]]) -> None:
    nft = FakeNft()
    for state, settings in plans:
        wanted = plan(state, settings).ruleset
        go(nft, wanted)
        assert nft.read(OWN) == as_read(wanted)
        assert diff(wanted, nft.read(OWN)) == []
    nft.commit(commands_of(remove_all(nft.read(OWN))))
    assert nft.read(OWN) == Ruleset()


def test_a_foreign_rule_in_our_chain_is_seen_and_removed() -> None:
    nft = FakeNft()
    wanted = plan(router(A), config()).ruleset
    go(nft, wanted)
    nft.foreign_rule(INET, "to_flowtable")
    assert diff(wanted, nft.read(OWN))
    go(nft, wanted)
    assert nft.read(OWN) == as_read(wanted)


def test_a_new_tunnel_adds_elements_and_takes_no_flow_off() -> None:
    nft = FakeNft()
    go(nft, plan(router(A), config()).ruleset)
    steps = diff(plan(router(A, B), config()).ruleset, nft.read(OWN))
    assert steps
    assert not any(step.flushes for step in steps)
    assert not any(isinstance(command, DeleteFlowtable | FlushChain | DeleteTable) for command in commands_of(steps))


def test_addresses_that_are_excluded_from_now_on_leave_the_flowtable() -> None:
    nft = FakeNft()
    go(nft, plan(router(A), config("exclude: {addresses: [10.2.9.0/24]}")).ruleset)
    steps = diff(plan(router(A), config("exclude: {addresses: [10.2.9.0/24, 10.2.8.1]}")).ruleset, nft.read(OWN))
    assert any(step.flushes for step in steps)


def test_a_marked_peer_that_is_down_takes_no_flow_of_others_off() -> None:
    """The guard is stricter then, and sees every packet before the flowtable does."""
    state, nft = bench.hub(3), FakeNft()
    go(nft, plan(state, bench.CONFIG).ruleset)
    down = replace(state, sas=tuple(sa for sa in state.sas if sa.reqid != 2))
    steps = diff(plan(down, bench.CONFIG).ruleset, nft.read(OWN))
    assert [step.what for step in steps] == ["take 1 elements out of netdev flowfast marked4"]
    assert not any(step.flushes for step in steps)


def test_the_guard_comes_before_what_is_fast_behind_it() -> None:
    commands = commands_of(diff(plan(router(A), config()).ruleset, Ruleset()))
    guard = next(i for i, c in enumerate(commands) if isinstance(c, AddRule) and c.table == NETDEV and "drop" in c.rule)
    guarded = next(i for i, c in enumerate(commands) if isinstance(c, AddSet) and c.set.name == "guarded4")
    flowtable = next(i for i, c in enumerate(commands) if isinstance(c, AddFlowtable))
    fast = next(i for i, c in enumerate(commands) if isinstance(c, AddSet) and c.set.name == "fast4")
    assert max(guard, guarded) < min(flowtable, fast)


def test_a_tunnel_that_goes_has_the_wan_off_the_flowtable_before_its_guard_opens() -> None:
    nft = FakeNft()
    go(nft, plan(router(A, B), config()).ruleset)
    commands = commands_of(diff(plan(router(A), config()).ruleset, nft.read(OWN)))
    off = next(i for i, c in enumerate(commands) if isinstance(c, DeleteDevices))
    opened = next(i for i, c in enumerate(commands) if isinstance(c, DeleteElements) and c.set == "guarded4")
    assert off < opened


def test_removal_takes_the_wan_off_the_flowtable_before_anything_else() -> None:
    nft = FakeNft()
    go(nft, plan(router(A), config()).ruleset)
    off = DeleteDevices(INET, Flowtable("fast", frozenset({"wan0"})))
    assert transactions(remove_all(nft.read(OWN))) == [[off], [DeleteTable(NETDEV)], [DeleteTable(INET)]]


def hooked_with_flows(before: Ruleset, commands: list[Command]) -> tuple[frozenset[str], frozenset[str]]:
    """Devices at whose ingress hook a flowtable with flows is: while the kernel reads the commands, and at the flip.

    A device that joins an existing flowtable is hooked as soon as its command is read; one that leaves, or whose
    flowtable is removed, stays hooked until after rules and sets have been switched over. A new flowtable has no flows.
    """
    tables = before.tables
    held = tables[INET].flowtables["fast"].devices if INET in tables and tables[INET].flowtables else frozenset()
    joined, there = frozenset[str](), bool(held)
    for command in commands:
        if isinstance(command, DeleteFlowtable) or command == DeleteTable(INET):
            there = False
        if isinstance(command, AddFlowtable) and there:
            joined |= command.flowtable.devices - held
    return joined, held


def guard_of(device: str, ruleset: Ruleset) -> tuple[object, frozenset[object]] | None:
    """The rules of a device's guard and all that it drops; None: it has none."""
    netdev = ruleset.tables.get(NETDEV)
    chain = netdev.chains.get(f"guard_{device}") if netdev else None
    if netdev is None or chain is None:
        return None
    dropped = [
        (name, each) for name, held in netdev.sets.items() if name.startswith("guarded") for each in held.elements
    ]
    return (chain.rules, netdev.chains[f"plaintext_{device}"].rules), frozenset(dropped)


@given(st.lists(st.tuples(states, configs), min_size=2, max_size=4))
def test_no_device_is_on_the_flowtable_for_an_instant_without_its_guard(
    plans: list[tuple[RouterState, Config]],
) -> None:
    nft = FakeNft()
    for state, settings in plans:
        wanted = plan(state, settings).ruleset
        for commands in transactions(diff(wanted, nft.read(OWN))):
            before = nft.read(OWN)
            nft.commit(commands)
            after = nft.read(OWN)
            joined, held = hooked_with_flows(before, commands)
            for command in commands:
                # What is new in a set is found only after rules and devices: a guard must be whole before.
                for device in command.flowtable.devices if isinstance(command, AddFlowtable) else ():
                    assert guard_of(device, after) == guard_of(device, before)
            for device in joined:
                assert guard_of(device, before) is not None or guard_of(device, as_read(wanted)) is None
            for device in held:
                was, now = guard_of(device, before), guard_of(device, after)
                assert was is None or (now is not None and now[0] == was[0] and now[1] >= was[1])


@pytest.mark.parametrize("state", [bench.hub(3), router(A)], ids=["plain sets", "intervals"])
def test_what_makes_a_tunnel_fast_comes_after_its_guard(state: RouterState) -> None:
    """Also where the tables are there already, and only elements are added."""
    nft = FakeNft()
    go(nft, plan(replace(state, policies=()), config()).ruleset)
    seen = []
    for commands in transactions(diff(plan(state, config()).ruleset, nft.read(OWN))):
        sets = {c.set.name if isinstance(c, AddSet) else c.set for c in commands if isinstance(c, AddSet | AddElements)}
        seen.append({name.rstrip("46") for name in sets})
    guards = next(i for i, names in enumerate(seen) if any(name.startswith("guarded") for name in names))
    fast = next(i for i, names in enumerate(seen) if any(name.startswith("fast") for name in names))
    assert guards < fast


def test_sets_that_keep_connections_off_are_filled_before_flows_are_learnt_anew() -> None:
    nft = FakeNft()
    go(nft, plan(router(A), config("exclude: {addresses: [10.2.9.0/24]}")).ruleset)
    first, *more = transactions(
        diff(plan(router(A), config("exclude: {addresses: [10.2.9.0/24, 10.2.8.1]}")).ruleset, nft.read(OWN))
    )
    assert [type(command) for command in first] == [AddElements]
    assert any(isinstance(command, AddFlowtable) for command in more[-1])


@pytest.mark.parametrize("more", ["", "exclude: {addresses: [10.2.9.0/24]}"])
def test_each_table_is_made_once(more: str) -> None:
    commands = commands_of(diff(plan(router(A), config(more)).ruleset, Ruleset()))
    assert sorted(str(command.table) for command in commands if isinstance(command, AddTable)) == [
        "inet flowfast",
        "netdev flowfast",
    ]


def test_flushing_flows_leaves_the_ruleset_as_it_was() -> None:
    nft = FakeNft()
    wanted = plan(router(A), config()).ruleset
    go(nft, wanted)
    commands = flush_flows(wanted)
    assert any(isinstance(command, DeleteFlowtable) for command in commands)
    nft.commit(commands)
    assert nft.read(OWN) == as_read(wanted)
