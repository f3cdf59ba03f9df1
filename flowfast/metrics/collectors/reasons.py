"""Every decision that says no, as `explain`, `status` and the log print it."""

from collections.abc import Iterable

from prometheus_client import Metric

from flowfast.metrics.family import gauge
from flowfast.model.snapshot import Snapshot


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """One series for each reason that holds now; it ends with the reason."""
    family = gauge(
        "flowfast_reason",
        "1 for each reason that holds now why something is not as fast or as safe as it could be; `flowfast explain` "
        "prints the sentence and the remedy.",
        "code",
        "object",
        "severity",
    )
    # A tunnel may have one code for two sentences: that is one series.
    for labels in dict.fromkeys((reason.code, reason.object, reason.severity.value) for reason in snapshot.reasons):
        family.add((*labels, 1))
    yield family
