"""CPU time is told apart by tunnel where their traffic lets it, and not said where it does not."""

import pytest

from flowfast.compare.result import Window
from flowfast.compare.split import tunnels_apart
from flowfast.compare.verdict import pairs_of
from tests.unit.compare.world import FAST, FULL, draws, experiment, several

COSTS = {"berlin": (20e-6, 10e-6), "paris": (23e-6, 15e-6)}


def apart(windows: list[Window], *tunnels: str) -> dict[str, float | None]:
    found = tunnels_apart(pairs_of(windows), tunnels)
    return {name: estimate.value if estimate else None for name, estimate in found.items()}


def test_one_tunnel_is_all_of_the_router() -> None:
    windows = experiment()
    assert apart(windows, "berlin") == {"berlin": pytest.approx(FULL / FAST, rel=0.02)}


def test_tunnels_that_vary_by_themselves_are_told_apart() -> None:
    lot = draws(3)
    packets = [{"berlin": lot.randrange(40_000, 120_000), "paris": lot.randrange(40_000, 120_000)} for _ in range(12)]
    found = tunnels_apart(pairs_of(several(COSTS, packets, lot)), ("berlin", "paris"))
    for name, (full, fast) in COSTS.items():
        estimate = found[name]
        assert estimate is not None
        assert estimate.value == pytest.approx(full / fast, rel=0.05)
        assert estimate.low < full / fast < estimate.high


def test_tunnels_that_rise_and_fall_together_are_not() -> None:
    windows = several(COSTS, [{"berlin": 80_000, "paris": 80_000}] * 8, draws(4))
    for number, each in enumerate(windows):
        same = tuple(
            type(part)(part.softirq, dict.fromkeys(part.packets, sum(part.packets.values()) // 2))
            for part in each.slices
        )
        windows[number] = type(each)(each.arm, 0.0, 10.0, each.softirq, 0.1, 0.3, each.carried, same)
    assert apart(windows, "berlin", "paris") == {"berlin": None, "paris": None}


def test_a_tunnel_without_packets_on_one_path_has_no_factor() -> None:
    lot = draws(5)
    packets = [{"berlin": 80_000, "paris": 0} for _ in range(8)]
    assert apart(several(COSTS, packets, lot), "berlin", "paris")["paris"] is None


def test_no_pairs_no_factors() -> None:
    assert apart([], "berlin") == {"berlin": None}
