"""What this kernel and its tools can do."""

from collections.abc import Iterable

from prometheus_client import Metric

from flowfast.metrics.family import gauge
from flowfast.model.snapshot import Snapshot


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """One series for each feature that was probed."""
    family = gauge(
        "flowfast_feature",
        "1 where the capability of this kernel or its tools was tried and works, 0 where it is missing.",
        "name",
    )
    for name in sorted(snapshot.state.features):
        family.add((name, int(snapshot.state.features[name].present)))
    yield family
