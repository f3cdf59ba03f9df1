"""The experiment on a router in memory: what it finds, and that the fast path is back however it ends."""

from pathlib import Path

import pytest

from flowfast.compare.experiment import SLACK, Now
from flowfast.compare.result import Latency
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.errors import FlowfastError, KernelError
from flowfast.model.transaction import AddTimed
from flowfast.plan.ruleset import INET
from tests.unit.compare.bench import RATE, SIZE, SPIS, Bench
from tests.unit.compare.world import FAST, FULL
from tests.unit.plan.router import PEER, US


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "run")


def test_it_finds_what_the_paths_cost(bench: Bench) -> None:
    result = bench.compare()
    found = result.findings
    assert found.reasons == ()
    assert found.factor is not None
    assert found.factor.value == pytest.approx(FULL / FAST, rel=0.01)
    assert found.factor.pairs == 6
    assert found.throughput is not None
    assert found.throughput.value == pytest.approx(1, rel=0.01)
    assert [each.arm for each in result.windows].count("full") == 6
    assert result.ended is None
    for window in result.windows:
        assert window.seconds == pytest.approx(8.5)
        assert window.packets == pytest.approx(8.5 * RATE, rel=0.01)
        assert window.bytes == window.packets * SIZE
        assert window.fast_share == pytest.approx(0.98 if window.arm == "fast" else 0.0, abs=1e-3)
        assert {each.spi for each in window.carried} == set(SPIS.values())
    assert not bench.paused


def test_every_window_on_the_full_path_ends_by_itself_in_time(bench: Bench) -> None:
    bench.compare(60, 6)
    pauses = [each for commands in bench.kernel.nft.committed for each in commands if isinstance(each, AddTimed)]
    assert [each.seconds for each in pauses] == [10 + SLACK] * 3


def test_the_exporter_is_told(bench: Bench) -> None:
    result = bench.compare()
    last = bench.last.read()
    assert last is not None
    assert last.taken_at == result.started
    assert last.router is not None
    assert last.router.value == result.findings.factor.value
    assert last.tunnels.keys() == {"berlin"}


def test_stopping_it_puts_the_fast_path_back_and_reports_what_there_is(bench: Bench) -> None:
    def stop(now: Now) -> None:
        if now.number == 7:
            bench.stop.set()

    result = bench.compare(at=stop)
    assert not bench.paused
    assert result.ended == "it was stopped"
    assert len(result.windows) == 7
    assert result.windows[-1].spoiled is not None
    assert result.findings.factor is not None
    assert result.findings.factor.pairs == 3


def test_an_error_puts_the_fast_path_back_and_loses_no_window(bench: Bench) -> None:
    def somebody_else(now: Now) -> None:
        if now.number == 5:
            bench.kernel.nft.foreign_rule(INET, "to_flowtable")

    result = bench.compare(at=somebody_else)
    assert not bench.paused
    assert "flowfast apply" in result.ended
    assert 4 <= len(result.windows) < 7


def test_a_refusal_in_the_middle_of_a_window_is_tried_again(bench: Bench) -> None:
    def refuse(now: Now) -> None:
        if now.number == 2 and bench.seen[0][0] == "full" and bench.paused:
            bench.kernel.nft.fail = KernelError("nft: no", 1)

    bench.compare(at=refuse)
    assert not bench.paused


def test_a_full_path_that_cannot_carry_the_traffic_ends_it_at_once(bench: Bench) -> None:
    bench.traffic.cost = {True: 1 / RATE, False: FAST}
    bench.traffic.lost = 0.1
    result = bench.compare()
    assert not bench.paused
    assert "cannot carry this traffic" in result.ended
    last = result.windows[-1]
    assert last.arm == "full"
    assert last.seconds < 2
    assert result.findings.factor is None


def test_it_goes_on_where_it_was_told_to(bench: Bench) -> None:
    bench.traffic.cost = {True: 1 / RATE, False: FAST}
    bench.traffic.lost = 0.1
    result = bench.compare(keep_going=True)
    assert result.ended is None
    assert {reason.code for reason in result.findings.reasons} == {"SATURATED", "DROPS"}


def test_a_few_drops_are_no_outage(bench: Bench) -> None:
    bench.traffic.lost = 0.1  # but no CPU at its limit
    assert bench.compare().ended is None


def test_a_window_that_outlived_its_pause_does_not_count(bench: Bench) -> None:
    def time_passes(now: Now) -> None:
        bench.kernel.nft.time_passes(INET)

    class Slow:
        seconds = 0.1

        async def sample(self) -> Latency | None:
            bench.kernel.nft.time_passes(INET)
            return None

    result = bench.compare(60, 6, latency=Slow())
    assert {window.spoiled is None for window in result.windows if window.arm == "full"} == {False}
    assert result.findings.factor is None
    assert result.findings.reasons[0].code == "TOO_FEW_WINDOWS"


def test_a_pause_that_a_killed_experiment_left_ends_first(bench: Bench) -> None:
    bench.compare(60, 6)
    bench.kernel.nft.commit([AddTimed(INET, "paused", (("ipv4",), ("ipv6",)), 60)])
    bench.seen.clear()
    bench.compare(60, 6)
    assert not any(paused for _, paused in bench.seen)


def test_nothing_applied_is_nothing_to_compare(bench: Bench) -> None:
    bench.compare(60, 6)
    for table in list(bench.kernel.nft.read([INET]).tables):
        bench.kernel.nft.foreign_delete(table)
    before = len(bench.kernel.nft.committed)
    with pytest.raises(FlowfastError, match="flowfast apply"):
        bench.compare(60, 6)
    assert len(bench.kernel.nft.committed) == before


async def rekey(bench: Bench) -> None:
    bench.kernel.xfrm.put(make_sa(US, PEER, 0x1002))
    await bench.kernel.xfrm.delete_sa(PEER, SPIS[PEER])


def test_latency_is_part_of_every_window(bench: Bench) -> None:
    class Probe:
        seconds = 0.5

        async def sample(self) -> Latency | None:
            return Latency(30e-6 if bench.paused else 10e-6, 1e-3, 100)

    result = bench.compare(latency=Probe())
    assert result.findings.latency is not None
    assert result.findings.latency.value == pytest.approx(3)
