"""The loop against a kernel in memory: what each event leads to, and what never happens."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from flowfast.apply.heard import Heard
from flowfast.bench import fake_hub, sa_pair
from flowfast.controller import Controller
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.links import FakeLinks
from flowfast.kernel.nft import FakeNft
from flowfast.kernel.xfrm import SaAdded
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.metrics.books import Books
from flowfast.metrics.store import Store
from flowfast.model.errors import KernelError
from flowfast.model.nftables import Ruleset, Table
from flowfast.model.sa import Direction
from flowfast.model.snapshot import Snapshot
from flowfast.model.transaction import DeleteFlowtable
from flowfast.plan.diff import OWN
from flowfast.plan.ruleset import INET, NETDEV
from tests.unit.plan.router import IPSEC, LAN, PEER, US, WAN, config, policies

A, B = policies(), policies("10.1.0.0/16", "10.3.0.0/16", "192.0.2.3", reqid=2)
HUB = 50
"""Tunnels, where one is not enough."""


class Bench:
    """A controller that runs, and what it published."""

    def __init__(
        self, *spd: tuple, nft: FakeNft | None = None, store: Store | None = None, heard: Heard | None = None
    ) -> None:
        self.store, self.settings, self.heard = store, "loop: {debounce_ms: 1}", heard
        self.kernel = FakeKernel(
            netns={"underlay": FakeXfrm()},
            xfrm=FakeXfrm(policies=[policy for group in spd for policy in group]),
            links=FakeLinks([LAN, WAN]),
            nft=nft or FakeNft(devices={"lan0", "wan0"}),
        )
        self.snapshots: list[Snapshot] = []

    def run(self, scenario: Callable[["Bench"], Coroutine[None, None, None]], interval: float = 60) -> None:
        asyncio.run(self._run(scenario, interval))

    async def _run(self, scenario: Callable[["Bench"], Coroutine[None, None, None]], interval: float) -> None:
        features = await self.kernel.probe.features()
        settings, publish, books = config(self.settings), self.snapshots.append, Books(self.store)
        self.controller = Controller(
            self.kernel, settings, features, on_snapshot=publish, interval=interval, books=books, heard=self.heard
        )
        task = asyncio.create_task(self.controller.run())
        try:
            await self.until(lambda: bool(self.snapshots))
            await scenario(self)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.002)

    @property
    def guarded(self) -> set[tuple[str, ...]]:
        tables = self.kernel.nft.read(OWN).tables
        return set(tables[NETDEV].sets["guarded4"].elements) if NETDEV in tables else set()

    def total(self, tunnel: str = "reqid-1") -> int | None:
        """Bytes out, as last published."""
        traffic = self.snapshots[-1].totals.get((tunnel, Direction.OUT))
        return traffic.bytes if traffic else None

    async def another_round(self) -> None:
        """Returns when one has been published that began after this call."""
        rounds = len(self.snapshots)
        for more in (1, 2):
            self.kernel.nft.foreign_change()
            await self.until(lambda: len(self.snapshots) >= rounds + more)  # noqa: B023 - awaited at once

    def flushes(self) -> int:
        return sum(any(isinstance(c, DeleteFlowtable) for c in each) for each in self.kernel.nft.committed)


def test_a_policy_that_the_ike_daemon_installs_is_fast_and_guarded() -> None:
    async def scenario(bench: Bench) -> None:
        assert bench.guarded == set()
        for policy in A:
            await bench.kernel.xfrm.add_policy(policy)
        await bench.until(lambda: bench.guarded == {("10.2.0.0/16", "10.1.0.0/16")})

    Bench().run(scenario)


def test_a_tunnel_that_goes_is_not_fast_any_more() -> None:
    async def scenario(bench: Bench) -> None:
        before = bench.flushes()
        for policy in B:
            await bench.kernel.xfrm.delete_policy(policy.selector, policy.direction)
        await bench.until(lambda: bench.guarded == {("10.2.0.0/16", "10.1.0.0/16")})
        assert bench.flushes() > before

    Bench(A, B).run(scenario)


def test_a_foreign_change_takes_all_flows_off_at_once_and_changes_nothing_else() -> None:
    async def scenario(bench: Bench) -> None:
        held, before = bench.kernel.nft.read(OWN), bench.flushes()
        bench.kernel.nft.foreign_change("table inet operator { chain forward { drop; } }")
        await bench.until(lambda: bench.flushes() == before + 1)
        assert bench.kernel.nft.read(OWN) == held
        # Its own transactions are no foreign ones: it does not chase its tail.
        await asyncio.sleep(0.05)
        assert bench.flushes() == before + 1
        assert bench.controller.reconciles.flushes == 1

    Bench(A).run(scenario)


def test_flows_that_could_not_be_taken_off_at_once_are_in_the_next_round() -> None:
    async def scenario(bench: Bench) -> None:
        before = bench.flushes()
        bench.kernel.nft.fail = KernelError("nft: Device or resource busy", 16)
        bench.kernel.nft.foreign_change()
        await bench.until(lambda: bench.flushes() == before + 1)

    Bench(A).run(scenario)


def test_tables_that_the_operator_flushed_are_made_anew() -> None:
    async def scenario(bench: Bench) -> None:
        held = bench.kernel.nft.read(OWN)
        for table in OWN:
            bench.kernel.nft.foreign_delete(table)
        await bench.until(lambda: bench.kernel.nft.read(OWN) == held)

    Bench(A).run(scenario)


def test_a_restart_changes_nothing() -> None:
    async def nothing(bench: Bench) -> None:
        pass

    first = Bench(A)
    first.run(nothing)
    committed = len(first.kernel.nft.committed)
    second = Bench(A, nft=first.kernel.nft)
    second.run(nothing)
    assert len(second.kernel.nft.committed) == committed


def test_a_firewall_changed_while_nobody_ran_is_obeyed(tmp_path: Path) -> None:
    """A flow on the flowtable does not meet the operator's new rule: the next controller takes it off."""

    async def followed(bench: Bench) -> None:
        bench.kernel.nft.foreign_change()
        await bench.until(lambda: Heard(tmp_path).read() == bench.kernel.nft.generation())

    async def nothing(bench: Bench) -> None:
        pass

    first = Bench(A, heard=Heard(tmp_path))
    first.run(followed)
    nft = first.kernel.nft
    second = Bench(A, nft=nft, heard=Heard(tmp_path))
    before = second.flushes()
    second.run(nothing)
    assert second.flushes() == before  # nothing was changed meanwhile: a restart disturbs nobody
    nft.foreign_change("table inet operator { chain forward { drop; } }")
    Bench(A, nft=nft, heard=Heard(tmp_path)).run(nothing)
    assert second.flushes() == before + 1


def test_what_was_heard_makes_its_own_folder(tmp_path: Path) -> None:
    """Without it every restart would take all flows off."""
    heard = Heard(tmp_path / "run" / "flowfast")
    heard.keep(7)
    assert heard.read() == 7


def test_what_was_heard_is_never_more_than_was_followed(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        heard = Heard(tmp_path).read()
        bench.kernel.nft.fail = KernelError("nft: Device or resource busy", 16)
        bench.kernel.nft.foreign_change()
        await bench.until(lambda: bench.kernel.nft.fail is None)
        assert Heard(tmp_path).read() == heard  # the flush failed: a crash now must not be forgotten
        await bench.until(lambda: Heard(tmp_path).read() == bench.kernel.nft.generation())

    Bench(A, heard=Heard(tmp_path)).run(scenario)


def test_devices_that_come_and_go_are_followed() -> None:
    async def scenario(bench: Bench) -> None:
        bench.kernel.nft.device_came("ipsec0")
        bench.kernel.links.set(IPSEC)

        def hooked() -> frozenset[str]:
            return bench.kernel.nft.read([INET]).tables[INET].flowtables["fast"].devices

        await bench.until(lambda: hooked() == {"lan0", "wan0", "ipsec0"})
        bench.kernel.links.remove("ipsec0")
        await bench.until(lambda: hooked() == {"lan0", "wan0"})

    Bench(A).run(scenario)


def test_what_the_kernel_refuses_is_tried_again() -> None:
    async def scenario(bench: Bench) -> None:
        bench.kernel.nft.fail = KernelError("nft: Cannot allocate memory", 12)
        for policy in A:
            await bench.kernel.xfrm.add_policy(policy)
        await bench.until(lambda: bench.guarded != set())
        assert bench.controller.reconciles.failed == 1

    Bench().run(scenario)


def test_lost_events_lead_to_a_look_at_everything() -> None:
    async def scenario(bench: Bench) -> None:
        rounds = len(bench.snapshots)
        bench.kernel.nft.lose_events()
        await bench.until(lambda: len(bench.snapshots) > rounds)
        assert bench.controller.reconciles.events_lost == 1

    Bench(A).run(scenario)


def test_a_rekey_makes_no_round_and_takes_no_flow_off() -> None:
    async def scenario(bench: Bench) -> None:
        rounds, committed = len(bench.snapshots), len(bench.kernel.nft.committed)
        for number in range(HUB):
            for old, new in zip(sa_pair(number), sa_pair(number, generation=1), strict=True):
                bench.kernel.xfrm.put(new)
                bench.kernel.xfrm.emit(SaAdded(new))
                await bench.kernel.xfrm.delete_sa(old.dst, old.spi)
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert len(bench.snapshots) == rounds
        assert len(bench.kernel.nft.committed) == committed

    bench = Bench()
    bench.kernel = fake_hub(HUB)
    bench.run(scenario)


def test_the_ruleset_is_listed_only_where_it_may_have_changed() -> None:
    class Counting(FakeNft):
        reads = 0

        def read(self, tables: Iterable[Table]) -> Ruleset:
            self.reads += 1
            return super().read(tables)

    nft = Counting(devices={"lan0", "wan0"})

    async def scenario(bench: Bench) -> None:
        await bench.another_round()  # after a foreign change
        read = nft.reads
        rounds = len(bench.snapshots)
        await bench.until(lambda: len(bench.snapshots) > rounds + 2)
        assert nft.reads == read
        bench.kernel.links.set(replace(LAN, mtu=1400))
        await bench.until(lambda: nft.reads > read)

    Bench(A, nft=nft).run(scenario, interval=0.02)


def test_totals_survive_a_rekey() -> None:
    async def scenario(bench: Bench) -> None:
        rounds = len(bench.snapshots)
        bench.kernel.xfrm.put(SA_OUT)
        bench.kernel.nft.foreign_change()
        await bench.until(lambda: len(bench.snapshots) > rounds)
        bench.kernel.xfrm.count(SA_OUT.dst, SA_OUT.spi, size=5000, packets=5)
        await bench.kernel.xfrm.delete_sa(SA_OUT.dst, SA_OUT.spi)
        bench.kernel.nft.foreign_change()
        await bench.until(lambda: bench.snapshots[-1].totals.get(("reqid-1", Direction.OUT)) is not None)
        await bench.until(lambda: bench.snapshots[-1].totals["reqid-1", Direction.OUT].bytes == 5000)

    Bench(A).run(scenario)


def test_totals_survive_a_hard_limit_which_sends_no_deletion() -> None:
    async def scenario(bench: Bench) -> None:
        bench.kernel.xfrm.put(SA_OUT)
        await bench.another_round()
        bench.kernel.xfrm.count(SA_OUT.dst, SA_OUT.spi, size=5000, packets=5)
        await bench.kernel.xfrm.expire(SA_OUT.dst, SA_OUT.spi, hard=True)
        await bench.another_round()
        await bench.until(lambda: bench.total() == 5000)

    Bench(A).run(scenario)


def test_totals_survive_a_restart(tmp_path: Path) -> None:
    kernel = Bench(A).kernel

    def start() -> Bench:
        bench = Bench(A, store=Store(tmp_path / "counts.jsonl", "this boot"))
        bench.kernel = kernel
        return bench

    async def first(bench: Bench) -> None:
        bench.kernel.xfrm.put(SA_OUT)
        bench.kernel.xfrm.count(SA_OUT.dst, SA_OUT.spi, size=5000, packets=5)
        await bench.another_round()
        assert bench.total() == 5000
        await bench.kernel.xfrm.delete_sa(SA_OUT.dst, SA_OUT.spi)
        await bench.until(lambda: len((tmp_path / "counts.jsonl").read_text().splitlines()) > 4)

    async def second(bench: Bench) -> None:
        assert bench.total() == 5000
        bench.kernel.xfrm.put(SA_OUT._replace(spi=0x77))
        bench.kernel.xfrm.count(SA_OUT.dst, 0x77, size=40, packets=1)
        await bench.another_round()
        assert bench.total() == 5040

    start().run(first)
    start().run(second)


def test_ends_in_another_network_namespace_are_heard() -> None:
    async def scenario(bench: Bench) -> None:
        there = bench.kernel.netns["underlay"]
        bench.kernel.nft.device_came("ipsec0")
        bench.kernel.links.set(replace(IPSEC, underlay_netns=1))
        await there.add_policy(policies(if_id=42)[0])
        there.put(SA_OUT._replace(if_id=42))
        await bench.another_round()
        there.count(SA_OUT.dst, SA_OUT.spi, size=5000, packets=5)
        await there.delete_sa(SA_OUT.dst, SA_OUT.spi)
        await bench.another_round()
        await bench.until(lambda: bench.total("ipsec0") == 5000)

    bench = Bench(A)
    bench.settings += "\nunderlay_netns: [underlay]"
    bench.run(scenario)


SA_OUT = make_sa(US, PEER, reqid=1)


@pytest.mark.parametrize("mode", ["guarded", "off"])
def test_rounds_go_on_without_events(mode: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.until(lambda: len(bench.snapshots) >= 3)

    Bench(A).run(scenario, interval=0.02)
