"""Steering: packets that other CPUs processed than the SA's own, and what the fallback SAs carried."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from flowfast.model.snapshot import Snapshot


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """One series for each SA by CPU that was seen to work, and for each tunnel and direction; none without steering."""
    if snapshot.desired.steering is None:
        return
    mismatch = GaugeMetricFamily(
        "flowfast_steering_mismatch",
        "Share of the packets of a CPU's SA, 0 to 1, that another CPU processed while it was last looked at (one "
        "second in each interval). Absent for an SA that carried nothing meanwhile.",
        labels=("tunnel", "direction", "cpu"),
    )
    for owner, share in sorted(snapshot.elsewhere.items()):
        if share.ratio is not None:
            mismatch.add_metric((owner.tunnel, str(owner.direction), str(owner.pcpu)), share.ratio)
    yield mismatch
    fallback = GaugeMetricFamily(
        "flowfast_steering_fallback_ratio",
        "Share of a tunnel's packets, 0 to 1, that the fallback SA carried in the last interval. Absent where nothing "
        "was carried, and for a tunnel without SAs by CPU.",
        labels=("tunnel", "direction"),
    )
    for (tunnel, direction), share in sorted(snapshot.fallback.items()):
        if share.ratio is not None:
            fallback.add_metric((tunnel, str(direction)), share.ratio)
    yield fallback
