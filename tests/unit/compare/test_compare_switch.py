"""The switch: whole transactions, nothing lost, back by itself, and never against what the router should hold."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.apply.commit import commands_of
from flowfast.compare.switch import Switch
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.nft import FakeNft
from flowfast.model.errors import FlowfastError, KernelError
from flowfast.model.nftables import Ruleset
from flowfast.model.transaction import AddTimed, DeleteElements, DeleteFlowtable
from flowfast.plan.diff import OWN, diff
from flowfast.plan.pause import can_pause, paused
from flowfast.plan.planner import plan
from flowfast.plan.ruleset import INET
from tests.unit.plan.router import as_read, config, policies, router

A, B = policies(), policies("10.1.0.0/16", "10.3.0.0/16", "192.0.2.3", reqid=2)


class Bench:
    """A router that holds what is planned for it."""

    def __init__(self, *spd: tuple) -> None:
        self.kernel = FakeKernel(nft=FakeNft())
        self.spd = list(spd)
        self.looks = 0
        self.apply()
        self.switch = Switch(self.kernel, self.planned)

    def wanted(self) -> Ruleset:
        return plan(router(*self.spd), config()).ruleset

    async def planned(self) -> Ruleset:
        self.looks += 1
        return self.wanted()

    def apply(self) -> None:
        self.kernel.nft.commit(commands_of(diff(self.wanted(), self.kernel.nft.read(OWN))))

    def full(self, seconds: float = 10) -> None:
        asyncio.run(self.switch.full(seconds))

    @property
    def held(self) -> Ruleset:
        return self.kernel.nft.read(OWN)


def test_there_and_back_leaves_the_ruleset_as_it_was() -> None:
    bench = Bench(A)
    before = bench.held
    bench.full(12.5)
    assert paused(bench.held)
    assert diff(bench.wanted(), bench.held) == []
    assert bench.switch.fast()
    assert bench.held == before == as_read(bench.wanted())


def test_flows_leave_in_the_transaction_that_keeps_them_off() -> None:
    bench = Bench(A)
    bench.full(12.5)
    commands = bench.kernel.nft.committed[-1]
    assert isinstance(commands[0], AddTimed)
    assert str(commands[0]).endswith('{ "ipv4" timeout 12500ms, "ipv6" timeout 12500ms }')
    assert any(isinstance(command, DeleteFlowtable) for command in commands)
    assert bench.switch.fast()
    assert [type(command) for command in bench.kernel.nft.committed[-1]] == [DeleteElements]


def test_nobody_has_to_be_alive_for_the_fast_path_to_come_back() -> None:
    bench = Bench(A)
    before = bench.held
    bench.full()
    bench.kernel.nft.time_passes(INET)
    assert bench.held == before
    assert bench.switch.fast() is False


def test_a_controller_that_looks_meanwhile_finds_nothing_to_do() -> None:
    bench = Bench(A)
    bench.full()
    committed = len(bench.kernel.nft.committed)
    bench.apply()
    assert len(bench.kernel.nft.committed) == committed
    assert paused(bench.held)


def test_a_tunnel_that_comes_meanwhile_is_part_of_the_next_window() -> None:
    bench = Bench(A)
    bench.full()
    bench.switch.fast()
    bench.spd.append(B)
    bench.apply()
    bench.full()
    assert diff(bench.wanted(), bench.held) == []
    assert bench.looks == 2


def test_a_tunnel_that_comes_in_a_pause_does_not_end_it() -> None:
    bench = Bench(A)
    bench.full()
    bench.spd.append(B)
    bench.apply()
    assert paused(bench.held)


@given(st.sampled_from(["not applied", "another config", "a stranger's rule"]))
def test_what_is_not_as_planned_is_left_alone(how: str) -> None:
    bench = Bench(A)
    if how == "not applied":
        bench.kernel.nft.foreign_delete(INET)
        bench.kernel.nft.foreign_delete(OWN[1])
    elif how == "another config":
        bench.spd.append(B)
    else:
        bench.kernel.nft.foreign_rule(INET, "to_flowtable")
    before, committed = bench.held, len(bench.kernel.nft.committed)
    with pytest.raises(FlowfastError, match="flowfast apply"):
        bench.full()
    assert bench.held == before
    assert len(bench.kernel.nft.committed) == committed


def test_a_ruleset_of_an_older_flowfast_cannot_be_paused() -> None:
    assert not can_pause(Ruleset())
    assert not paused(Ruleset())
    assert can_pause(Bench(A).held)


def test_a_refusal_of_the_kernel_is_an_error_and_no_end() -> None:
    bench = Bench(A)
    bench.full()
    bench.kernel.nft.fail = KernelError("nft: Operation not permitted", 1)
    with pytest.raises(KernelError, match="not permitted"):
        bench.switch.fast()
    assert bench.switch.left_over()
