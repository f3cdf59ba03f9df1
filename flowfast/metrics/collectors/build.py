"""Which flowfast runs, on which kernel."""

import platform
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from flowfast import __version__


def collect() -> Iterable[Metric]:
    """Needs no snapshot."""
    family = GaugeMetricFamily(
        "flowfast_build_info",
        "1, with the version of flowfast and of the kernel it runs on.",
        labels=("version", "kernel"),
    )
    family.add_metric((__version__, platform.release()), 1)
    yield family
