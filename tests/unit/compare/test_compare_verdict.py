"""A verdict where like was compared with like; a reason, with what to do, everywhere else."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.compare.result import Carried, Latency, Window
from flowfast.compare.verdict import RATE, SIZE, find, pairs_of
from tests.unit.compare.world import FAST, FULL, experiment, window


def codes(windows: list[Window]) -> set[str]:
    return {reason.code for reason in find(windows).reasons}


def changed(windows: list[Window], arm: str, change: Callable[[Window], Window]) -> list[Window]:
    return [change(each) if each.arm == arm else each for each in windows]


def scaled(times: float) -> Callable[[Window], Window]:
    """So many times the packets, at the same cost each."""

    def change(each: Window) -> Window:
        carried = tuple(
            replace(one, bytes=round(one.bytes * times), packets=round(one.packets * times)) for one in each.carried
        )
        return replace(each, softirq=each.softirq * times, carried=carried, slow_bytes=round(each.slow_bytes * times))

    return change


def test_steady_traffic_gives_the_factor_with_its_interval() -> None:
    found = find(experiment())
    assert found.factor == found.per_packet
    assert found.factor is not None
    assert found.factor.value == pytest.approx(FULL / FAST, rel=0.03)
    assert found.factor.low < FULL / FAST < found.factor.high
    assert found.factor.pairs == 6
    assert found.per_bit is not None
    assert found.per_bit.value == pytest.approx(found.factor.value)
    assert found.throughput is not None
    assert found.throughput.value == pytest.approx(1)
    assert found.reasons == ()
    (berlin,) = found.tunnels
    assert berlin.tunnel == "berlin"
    assert berlin.cpu is not None
    assert berlin.cpu.value == pytest.approx(FULL / FAST, rel=0.03)
    assert berlin.throughput.keys() == {"in", "out"}


@given(st.floats(1.01, 3.0), st.sampled_from(["full", "fast"]), st.booleans())
def test_rates_that_differ_refuse_the_verdict_unless_a_cpu_was_at_its_limit(
    times: float, arm: str, saturated: bool
) -> None:
    windows = changed(experiment(busiest=0.99 if saturated else 0.4), arm, scaled(times))
    found = find(windows)
    if times > RATE * 1.001 and not saturated:
        assert found.factor is None
        assert [reason.code for reason in found.reasons] == ["TRAFFIC_DIFFERED"]
        assert found.per_packet is not None
        assert all(tunnel.cpu is None for tunnel in found.tunnels)
    elif times < RATE * 0.999 or saturated:
        assert found.factor is not None
        assert ("SATURATED" in codes(windows)) == saturated


@pytest.mark.parametrize(("times", "refused"), [(1.05, False), (SIZE * 1.02, True), (0.7, True)])
def test_packets_of_another_size_refuse_the_verdict(times: float, refused: bool) -> None:
    def larger(each: Window) -> Window:
        carried = tuple(replace(one, bytes=round(one.bytes * times)) for one in each.carried)
        return replace(each, carried=carried)

    assert (find(changed(experiment(), "fast", larger)).factor is None) == refused


def test_another_mix_of_tunnels_refuses_the_verdict() -> None:
    def other(each: Window) -> Window:
        one, two = each.carried
        return replace(each, carried=(one, replace(two, tunnel="paris")))

    found = find(changed(experiment(), "full", other))
    assert found.factor is None
    assert "50% of the bytes were other tunnels' or directions'" in found.reasons[0].sentence


def test_the_same_changes_on_both_paths_are_no_difference() -> None:
    """A traffic that doubles after half of the time meets both paths alike."""
    windows = experiment(count=16)
    windows[8:] = [scaled(2)(each) for each in windows[8:]]
    assert find(windows).factor is not None


@pytest.mark.parametrize("packets", [0, 100])
def test_too_little_traffic_is_no_verdict(packets: int) -> None:
    found = find(experiment(packets=packets))
    assert found.factor is None
    assert codes(experiment(packets=packets)) == {"TOO_LITTLE_TRAFFIC"}


def test_hardly_anything_fast_is_no_verdict() -> None:
    assert codes(experiment(share=0.05)) == {"NOTHING_FAST"}
    assert codes(experiment(share=0.5)) == {"PARTLY_FAST"}
    assert find(experiment(share=0.5)).factor is not None


def test_one_pair_is_no_verdict_but_shows_what_it_has() -> None:
    found = find(experiment()[:3])
    assert found.factor is None
    assert {reason.code for reason in found.reasons} == {"TOO_FEW_WINDOWS"}
    assert found.per_packet is not None
    assert found.per_packet.low is None


def test_nothing_at_all_is_no_verdict() -> None:
    found = find([])
    assert (found.factor, found.per_packet, found.tunnels) == (None, None, ())


def test_a_spoiled_window_takes_its_neighbour_with_it() -> None:
    windows = experiment(count=8)
    windows[3] = replace(windows[3], spoiled="the experiment was stopped", softirq=1e9)
    assert len(pairs_of(windows)) == 3
    found = find(windows)
    assert found.factor is not None
    assert found.factor.value == pytest.approx(2, rel=0.05)
    assert [(reason.code, reason.object) for reason in found.reasons] == [("WINDOW_SPOILED", "window 4")]


def test_drops_and_latency_are_reported() -> None:
    windows = changed(experiment(), "full", lambda each: replace(each, drops={"softnet": 3, "wan0 tx": 0}))
    windows = [replace(each, latency=Latency(30e-6 if each.arm == "full" else 10e-6, 1e-4, 100)) for each in windows]
    found = find(windows)
    assert found.latency is not None
    assert found.latency.value == pytest.approx(3)
    assert [str(reason) for reason in found.reasons] == ["full L3 path: dropped: softnet 18"]


def test_a_wide_interval_says_so() -> None:
    assert "UNSURE" in codes(experiment(count=4, spread=0.2))


def test_a_share_is_unknown_without_counters() -> None:
    assert find([replace(each, slow_bytes=None) for each in experiment()]).factor is not None
    assert window("fast").fast_share == pytest.approx(0.98)
    assert replace(window("fast"), slow_bytes=None).fast_share is None
    assert Carried("berlin", "out", None, 25_000_000, 50_000) == window("fast").way(("berlin", "out"))
