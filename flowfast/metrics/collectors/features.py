"""What this kernel and its tools can do."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from flowfast.model.snapshot import Snapshot


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """One series for each feature that was probed."""
    family = GaugeMetricFamily(
        "flowfast_feature",
        "1 where the capability of this kernel or its tools was tried and works, 0 where it is missing.",
        labels=("name",),
    )
    for name in sorted(snapshot.state.features):
        family.add_metric((name,), int(snapshot.state.features[name].present))
    yield family
