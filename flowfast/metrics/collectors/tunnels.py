"""Per tunnel: what it is, whether it is up, and how much went through on which path."""

from collections.abc import Iterable

from prometheus_client import Metric

from flowfast.metrics.family import Family, counter, gauge
from flowfast.model.sa import Direction
from flowfast.model.snapshot import Snapshot
from flowfast.model.tunnel import Path, Tunnel, TunnelPath

BOTH = (Direction.OUT, Direction.IN)


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """Bytes by path, packets, SAs and facts of every tunnel, also of those that are down."""
    found = snapshot.desired.paths
    yield _bytes(snapshot)
    yield _packets(snapshot)
    yield _buffers(snapshot)
    yield _info(found)
    yield _up(snapshot)
    yield _sas(found)
    missed = counter(
        "flowfast_sa_ends_missed_total",
        "SAs that ended without the kernel telling their last counts (its event was lost, or all SAs were flushed at "
        "once, or the controller was not running): what they carried since the last look is missing where SAs count.",
    )
    missed.add((snapshot.ends_missed,))
    yield missed


def _bytes(snapshot: Snapshot) -> Family:
    family = counter(
        "flowfast_tunnel_bytes_total",
        "Inner bytes (IP header included, ESP and outer header not) that the tunnel carried since counting began, "
        "by the path they took: the full L3 path as the forward chain counts it, and the flowtable as the rest "
        "of all that the tunnel carried. So the rest includes the router's own traffic through the tunnel and, "
        "with accounting: precise, what the firewall dropped. Absent with accounting: off.",
        "tunnel",
        "direction",
        "path",
    )
    add, by_path = family.add, snapshot.by_path
    for path in snapshot.desired.paths:
        name = path.tunnel.name
        for direction in BOTH:
            both = by_path.get((name, direction))
            if both is not None:
                add((name, direction.value, "flowtable", both.flowtable))
                add((name, direction.value, "l3", both.full))
    return family


def _packets(snapshot: Snapshot) -> Family:
    family = counter(
        "flowfast_tunnel_packets_total",
        "Packets of the tunnel on the wire, accumulated over rekeys: as its SAs counted them, and by their sequence "
        "numbers where ESP segments what they counted once (GSO). Of an SA in packet offload as its driver says.",
        "tunnel",
        "direction",
    )
    for path in snapshot.desired.paths:
        name = path.tunnel.name
        for direction in BOTH:
            traffic = snapshot.totals.get((name, direction))
            if traffic is not None:
                family.add((name, direction.value, traffic.packets))
    return family


def _buffers(snapshot: Snapshot) -> Family:
    family = counter(
        "flowfast_tunnel_buffers_total",
        "Packets of the tunnel as the router handled them before the flowtable: one that GRO made of several counts "
        "once, so that flowfast_tunnel_packets_total for each of these is how many travel together. Only with "
        "accounting: precise.",
        "tunnel",
        "direction",
    )
    for path in snapshot.desired.paths:
        for direction in BOTH:
            by_path = snapshot.by_path.get((path.tunnel.name, direction))
            if by_path is not None and by_path.buffers is not None:
                family.add((path.tunnel.name, direction.value, by_path.buffers))
    return family


def _info(found: Iterable[TunnelPath]) -> Family:
    family = gauge(
        "flowfast_tunnel_info",
        "1 for each tunnel, with what it is: topology, reqid, if_id, outer addresses, xfrm interface, and the path "
        "that packets to (tx) and from (rx) the tunnel are meant to take: flowtable or l3.",
        *("tunnel", "topology", "reqid", "if_id", "local", "remote", "interface", "tx", "rx"),
    )
    for path in found:
        tunnel, key = path.tunnel, path.tunnel.key
        labels = (tunnel.name, tunnel.topology.value, str(key.reqid), str(key.if_id), key.local, key.remote)
        family.add((*labels, tunnel.interface or "", _way(path.tx), _way(path.rx), 1))
    return family


def _up(snapshot: Snapshot) -> Family:
    family = gauge(
        "flowfast_tunnel_up",
        "1 where the tunnel has SAs in both directions; 0 where it has not, also for a tunnel that the config names "
        "and no policy of the router asks for. Absent where its SAs are out of sight (another network namespace).",
        "tunnel",
    )
    for path in snapshot.desired.paths:
        if visible(path.tunnel):
            family.add((path.tunnel.name, int(bool(path.tunnel.outbound and path.tunnel.inbound))))
    for reason in snapshot.desired.reasons:
        if reason.code == "TUNNEL_MISSING":
            family.add((reason.object, 0))
    return family


def visible(tunnel: Tunnel) -> bool:
    """Whether its SAs and policies can be seen from here."""
    return bool(tunnel.key.remote)


def _sas(found: Iterable[TunnelPath]) -> Family:
    family = gauge(
        "flowfast_tunnel_sas",
        "SAs of the tunnel that are installed now; 0 where the tunnel is down.",
        "tunnel",
        "direction",
    )
    for path in found:
        tunnel = path.tunnel
        family.add((tunnel.name, "out", len(tunnel.outbound)))
        family.add((tunnel.name, "in", len(tunnel.inbound)))
    return family


def _way(path: Path) -> str:
    return "flowtable" if path.fast else "l3"
