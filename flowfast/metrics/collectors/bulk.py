"""How many packets of the wire travel as one, by device."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from flowfast.model.snapshot import Snapshot


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """One series for each device that bulking watches and that received enough to say."""
    family = GaugeMetricFamily(
        "flowfast_bulk_packets_ratio",
        "Packets that the device received for each packet that the stack saw of them, in the last moment that was "
        "looked at: 1 where nothing is put together.",
        labels=("device",),
    )
    for device, arrival in sorted(snapshot.state.bulk.arrivals.items()):
        if arrival.factor is not None:
            family.add_metric((device,), arrival.factor)
    yield family
