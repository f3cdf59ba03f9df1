"""What the config keeps off the flowtable, and how packets are counted."""

from collections.abc import Iterable

from prometheus_client import Metric

from flowfast.metrics.family import counter, gauge
from flowfast.model.snapshot import Snapshot
from flowfast.plan.filters import EXCLUDED
from flowfast.plan.ruleset import accounting


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """One series for each kind of exclusion in the config; the accounting mode."""
    packets = counter(
        "flowfast_excluded_packets_total",
        "Packets from the LAN, of established connections that kept to the full path because of the config, by the "
        "key under `exclude` that said so, or `conditions`: they do not meet those under `offload`. GRO may have made "
        "one of several. Starts again when the ruleset is rebuilt.",
        "by",
    )
    for name, value in sorted(snapshot.full_path.items()):
        if name.startswith(EXCLUDED):
            packets.add((name.removeprefix(EXCLUDED), value.packets))
    mode = gauge(
        "flowfast_accounting_info",
        "1, with how bytes by path are counted now: precise, sa or off.",
        "mode",
    )
    mode.add((accounting(snapshot.desired.ruleset), 1))
    return packets, mode
