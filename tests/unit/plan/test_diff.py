"""Whatever the kernel holds, the steps lead to what is wanted, in one transaction that the kernel takes."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from flowfast import bench
from flowfast.apply.apply import commands_of
from flowfast.config.schema import Config
from flowfast.kernel.nft.fake import FakeNft
from flowfast.model.nftables import Ruleset
from flowfast.model.state import RouterState
from flowfast.model.transaction import (
    AddFlowtable,
    AddRule,
    AddSet,
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
    nft.commit(commands_of(diff(wanted, nft.read(OWN))))


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


def test_a_tunnel_that_goes_takes_all_flows_off_before_its_guard_opens() -> None:
    nft = FakeNft()
    go(nft, plan(router(A, B), config()).ruleset)
    commands = commands_of(diff(plan(router(A), config()).ruleset, nft.read(OWN)))
    off = next(i for i, c in enumerate(commands) if isinstance(c, DeleteFlowtable))
    opened = next(i for i, c in enumerate(commands) if isinstance(c, DeleteElements) and c.set == "guarded4")
    assert off < opened


def test_removal_takes_the_flowtable_before_the_guard() -> None:
    nft = FakeNft()
    go(nft, plan(router(A), config()).ruleset)
    assert commands_of(remove_all(nft.read(OWN))) == [DeleteTable(INET), DeleteTable(NETDEV)]


def test_flushing_flows_leaves_the_ruleset_as_it_was() -> None:
    nft = FakeNft()
    wanted = plan(router(A), config()).ruleset
    go(nft, wanted)
    commands = flush_flows(wanted)
    assert any(isinstance(command, DeleteFlowtable) for command in commands)
    nft.commit(commands)
    assert nft.read(OWN) == as_read(wanted)
