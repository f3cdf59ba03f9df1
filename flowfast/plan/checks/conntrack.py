"""Connection tracking: is it counting, has it room, and does it outlast the flowtable?"""

from collections.abc import Iterator

from flowfast.model.reason import Reason, Severity
from flowfast.plan.checks.base import Check, Examination

_AREA = "conntrack"
_NF = "net.netfilter.nf_"
FULL = 0.9
"""Share of the limit from which on it is said."""
LONG = 8
"""Connections for each bucket of the hash table from which on a lookup is slow."""
SHORT = 10
"""Seconds of quiet below which a flow falls off the flowtable more often than it should."""


def conntrack(seen: Examination) -> Iterator[Check]:
    """Accounting, limits, timeouts."""
    accounting = seen.sysctl(f"{_NF}conntrack_acct")
    if accounting is not None:
        yield Check(_AREA, "accounting", "on" if accounting != "0" else "off", _accounting(accounting))
    count, limit = seen.number(f"{_NF}conntrack_count"), seen.number(f"{_NF}conntrack_max")
    if count is not None and limit:
        yield Check(_AREA, "connections", f"{count} of {limit}", _room(count, limit))
    buckets = seen.number(f"{_NF}conntrack_buckets")
    if limit and buckets:
        yield Check(_AREA, "buckets", str(buckets), _chains(limit, buckets))
    for proto, state in (("tcp", "tcp_timeout_established"), ("udp", "udp_timeout_stream")):
        flow, tracked = seen.number(f"{_NF}flowtable_{proto}_timeout"), seen.number(f"{_NF}conntrack_{state}")
        if flow is not None:
            yield Check(_AREA, f"flowtable_{proto}_timeout", f"{flow} s", _timeout(proto, flow, state, tracked))


def _accounting(value: str) -> Reason | None:
    if value != "0":
        return None
    sentence = "flows are not counted one by one (the flowtable's counter needs conntrack accounting)"
    return Reason("NO_FLOW_COUNTERS", "conntrack", sentence, f"sysctl -w {_NF}conntrack_acct=1", Severity.INFO)


def _room(count: int, limit: int) -> Reason | None:
    if count <= FULL * limit:
        return None
    sentence = f"{count} of {limit} connections are tracked: new ones will soon be refused"
    return Reason("CONNTRACK_FULL", "conntrack", sentence, f"sysctl -w {_NF}conntrack_max={2 * limit}")


def _chains(limit: int, buckets: int) -> Reason | None:
    if limit <= LONG * buckets:
        return None
    sentence = f"{limit} connections may share {buckets} buckets, so that finding one is slow on the full path"
    remedy = f"sysctl -w {_NF}conntrack_buckets={limit}"
    return Reason("CONNTRACK_BUCKETS", "conntrack", sentence, remedy, Severity.INFO)


def _timeout(proto: str, flow: int, state: str, tracked: int | None) -> Reason | None:
    """A flow that leaves has the tracked state's timeout less its own (flow_offload_fixup_ct, nf_flow_table_core.c)."""
    name = f"{_NF}flowtable_{proto}_timeout"
    if tracked is not None and tracked <= flow:
        sentence = (
            f"a connection that leaves the flowtable after {flow} s of quiet is forgotten at once, because conntrack "
            f"keeps it {tracked} s in all: the firewall and NAT then take it for a new one"
        )
        remedy = f"sysctl -w {_NF}conntrack_{state}={flow * 4}"
        return Reason("FLOW_TIMEOUT", name, sentence, remedy)
    if flow < SHORT:
        sentence = f"connections that are quiet for {flow} s leave the flowtable, and come back over the full path"
        return Reason("FLOW_TIMEOUT", name, sentence, f"sysctl -w {name}=30", Severity.INFO)
    return None
