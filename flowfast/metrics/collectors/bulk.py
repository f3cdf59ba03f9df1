"""How many packets of the wire travel as one, by device; what is on and what could be; what profile auto went by."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from flowfast.model.snapshot import Snapshot


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """One series for each device that bulking watches and that received enough to say; what is planned of each; and one
    of each stage that was tried on a device of profile auto."""
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
    yield _info(snapshot)
    yield from _tried(snapshot)


def _info(snapshot: Snapshot) -> Metric:
    family = GaugeMetricFamily(
        "flowfast_bulk_info",
        "1 for each device on which bulking matters to IPsec: its profile, the stage that is on, the best one that "
        "leaves all packets whole here (or whose risk is accepted), and whether the shield is on.",
        labels=("device", "side", "driver", "profile", "stage", "best", "shield"),
    )
    for each in snapshot.desired.bulked:
        shield = "on" if each.shielded else "off"
        labels = (each.device, each.side, each.driver or "", each.profile, each.stage, each.best, shield)
        family.add_metric([str(label) for label in labels], 1)
    return family


def _tried(snapshot: Snapshot) -> Iterable[Metric]:
    merged = GaugeMetricFamily(
        "flowfast_bulk_tried_packets_ratio",
        "Packets that travelled as one while profile auto tried the stage, when it last decided.",
        labels=("device", "stage"),
    )
    cost = GaugeMetricFamily(
        "flowfast_bulk_tried_softirq_seconds",
        "Seconds of softirq for each packet on the wire while profile auto tried the stage, when it last decided.",
        labels=("device", "stage"),
    )
    for device, choice in sorted(snapshot.state.bulk.chosen.items()):
        for stage, figures in choice.tried.items():
            merged.add_metric((device, stage), figures.factor)
            if figures.cost is not None:
                cost.add_metric((device, stage), figures.cost)
    return merged, cost
