"""The summary of a sample, and which packets are a tunnel's."""

import pytest

from flowfast.compare.latency import LEAST, Sample, summary
from flowfast.compare.result import Latency
from flowfast.plan.planner import plan
from tests.unit.plan.router import config, policies, router


def test_the_summary_is_the_median_and_the_slowest_percent() -> None:
    assert summary([float(each) for each in range(1000)]) == Latency(pytest.approx(499.5), 990.0, 1000)
    assert summary([1.0] * LEAST) == Latency(1.0, 1.0, LEAST)
    assert summary([1.0] * (LEAST - 1)) is None


def test_only_what_comes_out_of_a_tunnel_counts() -> None:
    state = router(policies(), policies("fd00:1::/64", "fd00:2::/64", reqid=3))
    sample = Sample(state, config(), plan(state, config()).paths, 0.1)
    assert sample._ours("10.2.9.9", "10.1.0.5")
    assert sample._ours("fd00:2::9", "fd00:1::5")
    assert not sample._ours("10.1.0.5", "10.2.9.9")
    assert not sample._ours("198.51.100.1", "10.1.0.5")
    assert not sample._ours("fd00:2::9", "10.1.0.5")
