"""What the guards in front of the flowtable dropped."""

from collections.abc import Iterable

from prometheus_client import Metric

from flowfast.metrics.family import counter
from flowfast.model.snapshot import Snapshot
from flowfast.model.tunnel import identifier

_PREFIX = "guard_"


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """One series for each WAN device behind a guard."""
    family = counter(
        "flowfast_guard_dropped_packets_total",
        "Packets that came in on the device without IPsec although a policy demands it, and were dropped before the "
        "flowtable; and those of connections through xfrm interfaces. GRO may have made one of several.",
        "device",
    )
    devices = {identifier(link.name): link.name for link in snapshot.state.links}
    dropped: dict[str, int] = {}
    # Before the flowtable what policies protect, in the forward chain what xfrm interfaces carry.
    for name, value in (*snapshot.before_flowtable.items(), *snapshot.full_path.items()):
        if name.startswith(_PREFIX):
            slug = name.removeprefix(_PREFIX)
            dropped[slug] = dropped.get(slug, 0) + value.packets
    for slug, packets in sorted(dropped.items()):
        family.add((devices.get(slug, slug), packets))
    yield family
