"""advise(): what doctor says of a router beside its plan: settings without which nothing is forwarded, or counted."""

from flowfast.model.reason import Reason, Severity
from flowfast.model.state import RouterState
from flowfast.plan.planner import GUARD_NEEDS, NEEDED


def advise(state: RouterState) -> list[Reason]:
    """Reasons from the sysctls and features of a snapshot; what could not be read is passed over."""
    reasons = []
    for name in NEEDED:
        if not state.has(name) and (feature := state.features.get(name)) and feature.reason:
            given = feature.reason
            reasons.append(Reason(given.code, given.object, given.sentence, given.remedy, Severity.ERROR))
    for name in GUARD_NEEDS:
        if not state.has(name) and (feature := state.features.get(name)) and feature.reason and name not in NEEDED:
            reasons.append(feature.reason)
    for family, sysctl in (("IPv4", "net.ipv4.ip_forward"), ("IPv6", "net.ipv6.conf.all.forwarding")):
        if state.sysctls.get(sysctl) == "0":
            sentence = f"{family} is not forwarded, so no {family} flow can be fast"
            reasons.append(Reason("NOT_FORWARDING", sysctl, sentence, f"sysctl -w {sysctl}=1"))
    if state.sysctls.get("net.netfilter.nf_conntrack_acct") == "0":
        sentence = "flows are not counted one by one (the flowtable's counter needs conntrack accounting)"
        remedy = "sysctl -w net.netfilter.nf_conntrack_acct=1"
        reasons.append(Reason("NO_FLOW_COUNTERS", "conntrack", sentence, remedy, Severity.INFO))
    count, limit = (state.sysctls.get(f"net.netfilter.nf_conntrack_{name}") for name in ("count", "max"))
    if count and limit and int(limit) and int(count) > 0.9 * int(limit):
        sentence = f"{count} of {limit} connections are tracked: new ones will soon be refused"
        reasons.append(Reason("CONNTRACK_FULL", "conntrack", sentence, "raise net.netfilter.nf_conntrack_max"))
    return reasons
