"""What the controller did, and how fresh what it knows is."""

from collections.abc import Iterable

from prometheus_client import Metric

from flowfast.metrics.family import Family, counter, gauge
from flowfast.model.snapshot import Snapshot


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """Counts since the controller started, and times in seconds since the epoch."""
    done = snapshot.reconciles
    for name, about, count in (
        ("total", "Rounds in which the controller observed, planned, applied and verified.", done.total),
        ("failures_total", "Rounds that failed, or whose result the kernel did not hold.", done.failed),
        ("changes_total", "Rounds that changed the ruleset.", done.changes),
        ("flushes_total", "Times that all flows were taken off the flowtable.", done.flushes),
    ):
        yield _one(counter(f"flowfast_reconcile_{name}", about), count)
    lost = counter(
        "flowfast_events_lost_total",
        "Times that the kernel dropped events that the controller should have seen; each led to a full look.",
    )
    yield _one(lost, done.events_lost)
    for name, about, value in (
        (
            "flowfast_reconcile_last_success_timestamp_seconds",
            "When a round last ended with everything as wanted, in seconds since the epoch.",
            done.last_success,
        ),
        ("flowfast_reconcile_duration_seconds", "Seconds that the last round took.", done.last_seconds),
        (
            "flowfast_snapshot_timestamp_seconds",
            "When the state behind these metrics was asked of the kernel, in seconds since the epoch.",
            snapshot.state.taken_at,
        ),
    ):
        if value is not None:
            yield _one(gauge(name, about), value)


def _one(family: Family, value: float) -> Family:
    family.add((value,))
    return family
