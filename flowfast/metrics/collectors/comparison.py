"""What the last `flowfast compare` on this router found."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from flowfast.model.snapshot import Snapshot

_ALL = ""
"""Label of the whole router: no tunnel is named so."""


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """Nothing before the first experiment, and no factor of one without a verdict."""
    last = snapshot.comparison
    if last is None:
        return
    ratio = GaugeMetricFamily(
        "flowfast_compare_factor_ratio",
        "How many times as much CPU time (softirq) a packet costs on the full L3 path as on the fast path, by the last "
        "flowfast compare that came to a verdict; tunnel is empty for the whole router.",
        labels=("tunnel",),
    )
    bound = GaugeMetricFamily(
        "flowfast_compare_factor_bound_ratio",
        "The 95 % confidence interval of flowfast_compare_factor_ratio: bound is lower or upper.",
        labels=("tunnel", "bound"),
    )
    routers = {_ALL: last.router} if last.router else {}
    for name, factor in {**routers, **last.tunnels}.items():
        ratio.add_metric((name,), factor.value)
        for end, value in (("lower", factor.low), ("upper", factor.high)):
            if value is not None:
                bound.add_metric((name, end), value)
    yield ratio
    yield bound
    yield GaugeMetricFamily(
        "flowfast_compare_timestamp_seconds",
        "When the last flowfast compare began, in seconds since the epoch.",
        last.taken_at,
    )
