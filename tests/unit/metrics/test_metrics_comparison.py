"""The last comparison as metrics: there once there was one, and no factor where there was no verdict."""

import pytest

from flowfast.metrics.collectors.comparison import collect
from flowfast.model.comparison import Comparison, Factor
from tests.unit.metrics.world import snapshot


def series(last: Comparison | None) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in collect(snapshot(comparison=last))
        for sample in family.samples
    }


def test_nothing_before_the_first_experiment() -> None:
    assert series(None) == {}


def test_the_router_and_its_tunnels_with_their_intervals() -> None:
    found = series(Comparison(7.0, Factor(2.0, 1.5, 2.5), {"berlin": Factor(3.0)}))
    assert found == {
        ("flowfast_compare_factor_ratio", ""): 2.0,
        ("flowfast_compare_factor_ratio", "berlin"): 3.0,
        ("flowfast_compare_factor_bound_ratio", "", "lower"): 1.5,
        ("flowfast_compare_factor_bound_ratio", "", "upper"): 2.5,
        ("flowfast_compare_timestamp_seconds",): 7.0,
    }


@pytest.mark.parametrize("tunnels", [{}, {"berlin": Factor(1.5, 1.4, 1.6)}])
def test_without_a_verdict_there_is_no_factor_of_the_router(tunnels: dict[str, Factor]) -> None:
    found = series(Comparison(7.0, None, tunnels))
    assert ("flowfast_compare_factor_ratio", "") not in found
    assert found["flowfast_compare_timestamp_seconds",] == 7.0
