"""Per tunnel: what it is, how many SAs carry it, and how much went through on which path."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from flowfast.model.sa import Direction
from flowfast.model.snapshot import Snapshot
from flowfast.model.tunnel import Path, TunnelPath


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """Bytes by path, packets, SAs and facts of every tunnel, also of those that are down."""
    found = snapshot.desired.paths
    yield _bytes(snapshot)
    yield _packets(snapshot)
    yield _info(found)
    yield _sas(found)
    yield CounterMetricFamily(
        "flowfast_sa_ends_missed_total",
        "SAs that ended without the kernel telling their last counts (its event was lost, or all SAs were flushed at "
        "once, or the controller was not running): what they carried since the last look is missing where SAs count.",
        snapshot.ends_missed,
    )


def _bytes(snapshot: Snapshot) -> Metric:
    family = CounterMetricFamily(
        "flowfast_tunnel_bytes_total",
        "Inner bytes (IP header included, ESP and outer header not) that the tunnel carried since counting began, "
        "by the path they took: the full L3 path as the forward chain counts it, and the flowtable as the rest "
        "of all that the tunnel carried. So the rest includes the router's own traffic through the tunnel and, "
        "with accounting: precise, what the firewall dropped. Absent with accounting: off.",
        labels=("tunnel", "direction", "path"),
    )
    for path in snapshot.desired.paths:
        name = path.tunnel.name
        for direction in (Direction.OUT, Direction.IN):
            by_path = snapshot.by_path.get((name, direction))
            if by_path is not None:
                family.add_metric((name, direction.value, "flowtable"), by_path.flowtable)
                family.add_metric((name, direction.value, "l3"), by_path.full)
    return family


def _packets(snapshot: Snapshot) -> Metric:
    family = CounterMetricFamily(
        "flowfast_tunnel_packets_total",
        "Packets of the tunnel on the wire, accumulated over rekeys: as its SAs counted them, and by their sequence "
        "numbers where ESP segments what they counted once (GSO). Of an SA in packet offload as its driver says.",
        labels=("tunnel", "direction"),
    )
    for path in snapshot.desired.paths:
        name = path.tunnel.name
        for direction in (Direction.OUT, Direction.IN):
            traffic = snapshot.totals.get((name, direction))
            if traffic is not None:
                family.add_metric((name, direction.value), traffic.packets)
    return family


def _info(found: Iterable[TunnelPath]) -> Metric:
    family = GaugeMetricFamily(
        "flowfast_tunnel_info",
        "1 for each tunnel, with what it is: topology, reqid, if_id, outer addresses, xfrm interface, and the path "
        "that packets to (tx) and from (rx) the tunnel are meant to take: flowtable or l3.",
        labels=("tunnel", "topology", "reqid", "if_id", "local", "remote", "interface", "tx", "rx"),
    )
    for path in found:
        tunnel, key = path.tunnel, path.tunnel.key
        labels = (tunnel.name, tunnel.topology.value, str(key.reqid), str(key.if_id), key.local, key.remote)
        family.add_metric((*labels, tunnel.interface or "", _way(path.tx), _way(path.rx)), 1)
    return family


def _sas(found: Iterable[TunnelPath]) -> Metric:
    family = GaugeMetricFamily(
        "flowfast_tunnel_sas",
        "SAs of the tunnel that are installed now; 0 where the tunnel is down.",
        labels=("tunnel", "direction"),
    )
    for path in found:
        tunnel = path.tunnel
        family.add_metric((tunnel.name, Direction.OUT.value), len(tunnel.outbound))
        family.add_metric((tunnel.name, Direction.IN.value), len(tunnel.inbound))
    return family


def _way(path: Path) -> str:
    return "flowtable" if path.fast else "l3"
