"""The router's XFRM as a whole: what the kernel dropped and why, and how many SAs and policies it holds."""

from collections.abc import Iterable, Iterator

from prometheus_client import Metric

from flowfast.metrics.family import Family, counter, gauge
from flowfast.model.snapshot import Snapshot
from flowfast.model.state import Spd


def collect(snapshot: Snapshot) -> Iterable[Metric]:
    """Of this network namespace (netns="") and of the underlays'."""
    yield _errors(snapshot)
    yield from _held(snapshot)


def _errors(snapshot: Snapshot) -> Family:
    family = counter(
        "flowfast_xfrm_errors_total",
        "Packets that XFRM dropped, by the kernel's own name of the counter (/proc/net/xfrm_stat; "
        "Documentation/networking/xfrm_proc.rst says what each means). XfrmAcquireError counts failed requests.",
        "netns",
        "counter",
    )
    for netns, counters in snapshot.xfrm_errors.items():
        for name, value in counters.items():
            family.add((netns, name, value))
    return family


def _held(snapshot: Snapshot) -> Iterator[Family]:
    states = gauge(
        "flowfast_xfrm_states",
        "SAs that the kernel holds: of a tunnel (policies ask for them), larval (placeholders of a negotiation), or "
        "orphan: no policy asks for them. Orphans that stay are leaked by the IKE daemon.",
        "netns",
        "kind",
    )
    policies = gauge("flowfast_xfrm_policies", "Policies that the kernel holds, those of sockets not counted.", "netns")
    owned: dict[str, int] = {}
    for path in snapshot.desired.paths:
        tunnel = path.tunnel
        netns = tunnel.key.netns or ""
        owned[netns] = owned.get(netns, 0) + len(tunnel.inbound) + len(tunnel.outbound)
    state = snapshot.state
    for netns, spd in {"": Spd(state.sas, state.policies), **state.underlay}.items():
        larval = sum([sa.larval for sa in spd.sas])
        in_tunnels = owned.get(netns, 0)
        states.add((netns, "tunnel", in_tunnels))
        states.add((netns, "larval", larval))
        states.add((netns, "orphan", max(0, len(spd.sas) - larval - in_tunnels)))
        policies.add((netns, sum([not policy.socket for policy in spd.policies])))
    yield states
    yield policies
