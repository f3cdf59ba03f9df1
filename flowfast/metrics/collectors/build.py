"""Which flowfast runs, on which kernel."""

import platform
from collections.abc import Iterable

from prometheus_client import Metric

from flowfast import __version__
from flowfast.metrics.family import gauge


def collect() -> Iterable[Metric]:
    """Needs no snapshot."""
    family = gauge(
        "flowfast_build_info",
        "1, with the version of flowfast and of the kernel it runs on.",
        "version",
        "kernel",
    )
    family.add((__version__, platform.release(), 1))
    yield family
