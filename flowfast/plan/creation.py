"""Why no flow is made for a connection: the questions in the order in which they are decided, up to `flow add`.

Every question is a function from a Case to the Reason that says no, or None. What needs the entry of conntrack is not
asked of a connection that is not tracked.
"""

from collections.abc import Callable

from flowfast.config.traffic import Ports
from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import Mode
from flowfast.model.state import Status, TcpState
from flowfast.model.tunnel import Topology
from flowfast.plan.case import Case
from flowfast.plan.flows import first_policy, inside, proto_text
from flowfast.plan.pause import PAUSED_NOW, paused
from flowfast.plan.roles import Role

TCP, UDP, GRE = 6, 17, 47
IKE_PORTS = frozenset((500, 4500))
_CLOSING = frozenset(
    (TcpState.FIN_WAIT, TcpState.CLOSE_WAIT, TcpState.LAST_ACK, TcpState.TIME_WAIT, TcpState.CLOSE)
)  # fmt: skip
_FORWARDING = {2: ("IPv4", "net.ipv4.ip_forward"), 10: ("IPv6", "net.ipv6.conf.all.forwarding")}

Check = Callable[[Case], Reason | None]

# is it forwarded at all: routing and policies


def _own(case: Case) -> Reason | None:
    own = case.sight.state.local_addresses()
    for end in (case.out.seen.src, case.out.seen.dst):
        if end in own:
            sentence = "is an address of this router: what it sends or takes itself is not forwarded, and never fast"
            return Reason("ROUTER_ITSELF", end, sentence, "ask for the connection of a host behind it", Severity.INFO)
    return None


def _forwarding(case: Case) -> Reason | None:
    family, sysctl = _FORWARDING[case.out.seen.family]
    if case.sight.state.sysctls.get(sysctl) != "0":
        return None
    sentence = f"{family} is not forwarded, so no {family} flow can be fast"
    return Reason("NOT_FORWARDING", sysctl, sentence, f"sysctl -w {sysctl}=1", Severity.ERROR)


def _blocked(case: Case) -> Reason | None:
    if case.policy is None or not case.policy.action:
        return None
    selector = case.policy.selector
    sentence = f"the policy {selector.src} -> {selector.dst} (priority {case.policy.priority}) blocks it"
    return Reason("BLOCKED", case.named, sentence, "ip xfrm policy; the IKE daemon or an operator made it")


def _unreachable(case: Case) -> Reason | None:
    if case.sight.route is None or case.exit is not None:
        return None
    end = case.out.seen.dst
    return Reason("UNREACHABLE", case.named, f"there is no route to {end}", f"ip route get {end}", Severity.ERROR)


# the rules of our last forward chain (plan/ruleset.py), in their order


def _applied(case: Case) -> Reason | None:
    desired = case.sight.desired
    if desired is not None and not desired.ruleset.tables:
        return case.path.tx.reason if case.path else next(iter(desired.reasons), None)
    if case.sight.table is not None:
        return None
    sentence = "no flowtable of flowfast's is in this kernel, so everything takes the full path"
    return Reason("NOT_APPLIED", "ruleset", sentence, "flowfast apply, or flowfast run")


def _paused(case: Case) -> Reason | None:
    return PAUSED_NOW if paused(case.sight.state.ruleset) else None


def _protocol(case: Case) -> Reason | None:
    proto, config = case.out.seen.proto, case.sight.config
    if proto not in (TCP, UDP, GRE):
        sentence = f"{proto_text(proto)} keeps to the full path: a flowtable carries TCP, UDP and GRE only"
        return Reason("PROTOCOL", case.named, sentence, severity=Severity.INFO)
    wanted = ("tcp", "udp") if config is None else config.offload.protocols
    if proto_text(proto) in wanted:
        return None
    sentence = f"{proto_text(proto)} keeps to the full path by the config"
    remedy = "" if proto == GRE else "add it to offload.protocols"
    return Reason("PROTOCOL", case.named, sentence, remedy, Severity.INFO)


def _established(case: Case) -> Reason | None:
    flow = case.flow
    if flow is None:
        return None
    if not flow.established:
        sentence = "not established: packets of one direction only have been seen"
        return Reason("NOT_ESTABLISHED", case.named, sentence, "see whether the answers come through this router")
    if flow.tcp_state in (TcpState.SYN_SENT, TcpState.SYN_RECV, TcpState.SYN_SENT2):
        sentence = f"not established: its TCP handshake is at {TcpState(flow.tcp_state).name}"
        return Reason("NOT_ESTABLISHED", case.named, sentence, "wait for it")
    return None


def _from_tunnel(case: Case) -> Reason | None:
    if case.back is None or case.tunnel is None:
        return None
    sentence = f"goes from tunnel {case.back.name} into tunnel {case.tunnel.name}: decrypted packets add no flow"
    remedy = "by design: the kernel looks at the secpath (nft_flow_offload_skip)"
    return Reason("SECPATH", case.named, sentence, remedy, Severity.INFO)


def _lan(case: Case) -> Reason | None:
    if case.lan is None or case.sight.config is None or case.sight.roles.get(case.lan.name) is Role.LAN:
        return None
    sentence = f"{case.out.seen.src} is behind this device, which the config does not name as a LAN device"
    return Reason("LAN_NOT_CONFIGURED", case.lan.name, sentence, "add it to devices.lan")


def _ike(case: Case) -> Reason | None:
    seen = case.out.seen
    if seen.proto != UDP or not IKE_PORTS & {seen.sport, seen.dport}:
        return None
    sentence = "UDP ports 500 and 4500 are IKE's and NAT-T's, and keep to the full path"
    return Reason("IKE_PORT", case.named, sentence, severity=Severity.INFO)


def _excluded(sentence: str, case: Case, where: str) -> Reason:
    return Reason("EXCLUDED", case.named, sentence, f"change {where} in the config", Severity.INFO)


def _exclusions(case: Case) -> Reason | None:
    seen, config = case.out.seen, case.sight.config
    held = case.sight.table.sets if case.sight.table else {}
    prefixes = {prefix for name in ("excluded4", "excluded6") if name in held for (prefix,) in held[name].elements}
    ports: tuple[Ports, ...] = ()
    if config is not None:
        prefixes |= {str(prefix) for prefix in config.exclude.addresses}
        ports = config.exclude.ports
    for end in (seen.src, seen.dst):
        if (prefix := next((prefix for prefix in sorted(prefixes) if inside(end, prefix)), None)) is not None:
            return _excluded(f"{prefix} keeps to the full path by the config", case, "exclude.addresses")
    for port in (seen.sport, seen.dport):
        if port and (taken := next((each for each in ports if each.first <= port <= each.last), None)):
            return _excluded(f"port {taken} keeps to the full path by the config", case, "exclude.ports")
    return None


def _selected(case: Case) -> Reason | None:
    config, flow = case.sight.config, case.flow
    if config is None:
        return None
    wanted = config.offload
    port = flow.dport if flow is not None else case.asked.dport
    if wanted.ports and port is not None and not any(each.first <= port <= each.last for each in wanted.ports):
        listed = ", ".join(map(str, wanted.ports))
        return _excluded(f"it was opened to port {port}, and only {listed} are to be fast", case, "offload.ports")
    if flow is not None and wanted.zones and flow.zone not in wanted.zones:
        return _excluded(f"conntrack zone {flow.zone} is not one that is to be fast", case, "offload.zones")
    return None


def _old_enough(case: Case) -> Reason | None:
    config, flow = case.sight.config, case.flow
    if config is None or flow is None or not config.offload.after_packets:
        return None
    if flow.packets is None:
        sentence = "the config waits for a number of packets, which conntrack does not count"
        remedy = "sysctl -w net.netfilter.nf_conntrack_acct=1 (counts connections that are made from then on)"
        return Reason("NOT_COUNTED", case.named, sentence, remedy)
    carried, wanted = sum(flow.packets), config.offload.after_packets
    if carried >= wanted:
        return None
    sentence = f"has carried {carried} packets of the {wanted} that the config waits for"
    return Reason("AFTER_PACKETS", case.named, sentence, "change offload.after_packets in the config", Severity.INFO)


def _protected(case: Case) -> Reason | None:
    if case.tunnel is not None:
        return None
    config = case.sight.config
    if config is not None and config.offload.plain:
        if case.exit is None or case.sight.roles.get(case.exit.name) is Role.WAN:
            return None
        sentence = f"leaves by {case.exit.name}, which is neither a tunnel's nor a WAN device"
        return Reason("WAN_NOT_CONFIGURED", case.named, sentence, "add it to devices.wan")
    where = f" by {case.exit.name}" if case.exit else ""
    sentence = f"no policy and no xfrm interface sends it into a tunnel: it leaves in the clear{where}"
    return Reason("NO_POLICY", case.named, sentence, "flowfast show policies", Severity.INFO)


def _up(case: Case) -> Reason | None:
    tunnel = case.tunnel
    # An xfrm interface takes a packet also while its tunnel is down; SAs of another network namespace may be unseen.
    if tunnel is None or tunnel.outbound or tunnel.topology is Topology.CROSS_NETNS or not tunnel.key.remote:
        return None
    sentence = "the tunnel is down: it has no outbound SA"
    return Reason(
        "NO_SA", tunnel.name, sentence, "bring it up: the IKE daemon's log says why it is not", Severity.ERROR
    )


def _nat(case: Case) -> Reason | None:
    if not case.policy_based or case.out.seen == case.out.sent:
        return None
    before = first_policy(case.sight.state.policies, case.out.seen)
    source = f"source NAT ({case.out.seen.src} becomes {case.out.sent.src})"
    if before is not None and before.protects:
        if not case.sight.regions.by_source:
            return None
        sentence = f"{source} may change its tunnel after the forward chain: several lead to addresses over there"
        return Reason("NAT_INTO_TUNNEL", case.named, sentence, "no NAT of what goes into tunnels", Severity.INFO)
    sentence = f"{source} leads it into the tunnel only after the forward chain, where no IPsec route is seen yet"
    return Reason("NAT_INTO_TUNNEL", case.named, sentence, "let the tunnel's selectors hold the addresses before NAT")


def _planned(case: Case) -> Reason | None:
    """The planner's word: excluded, mode, selectors, no interface."""
    if case.tunnel is None:
        return None
    if case.path is not None:
        return None if case.path.tx.fast else case.path.tx.reason
    if refused := case.sight.regions.refused.get(case.tunnel.key):
        return refused
    modes = {selectors.mode for selectors in case.tunnel.selectors} - {Mode.TUNNEL}
    return Reason("MODE_NOT_ELIGIBLE", case.tunnel.name, "only tunnel mode is fast") if modes else None


def _held(case: Case) -> Reason | None:
    """Whether what the kernel holds says the same as the plan."""
    tunnel, flowtable = case.tunnel, case.sight.flowtable
    if tunnel is None or flowtable is None:
        return None
    if case.in_set() if case.policy_based else tunnel.interface in flowtable.devices:
        return None
    sentence = "the ruleset in the kernel does not let this tunnel be fast"
    return Reason("NOT_APPLIED", tunnel.name, sentence, "flowfast plan shows the difference, flowfast apply makes it")


# `flow add`: nft_flow_offload_eval(), net/netfilter/nft_flow_offload.c


def _closing(case: Case) -> Reason | None:
    flow = case.flow
    if flow is None or flow.proto != TCP:
        return None
    if flow.tcp_state in _CLOSING:
        sentence = f"is closing: its TCP state is {TcpState(flow.tcp_state or 0).name}"
        return Reason("CLOSING", case.named, sentence, severity=Severity.INFO)
    if flow.says(Status.ASSURED) is False:
        sentence = "not established: conntrack has not seen its handshake whole (not ASSURED)"
        return Reason("NOT_ESTABLISHED", case.named, sentence, "wait for it; or it was picked up in its middle")
    return None


def _helped(case: Case) -> Reason | None:
    if case.flow is None or case.flow.helper is None:
        return None
    sentence = f"the conntrack helper {case.flow.helper} reads along, and must see every packet"
    return Reason("HELPER", case.named, sentence, "take the helper away, if nothing needs it", Severity.INFO)


def _adjusted(case: Case) -> Reason | None:
    if case.flow is None or not case.flow.says(Status.SEQ_ADJUST):
        return None
    sentence = "its TCP sequence numbers are rewritten on the way (SEQ_ADJUST)"
    return Reason("SEQ_ADJUST", case.named, sentence, "a helper or synproxy does that", Severity.INFO)


CREATION: tuple[Check, ...] = (
    _own,
    _forwarding,
    _blocked,
    _unreachable,
    _applied,
    _paused,
    _protocol,
    _established,
    _from_tunnel,
    _lan,
    _ike,
    _exclusions,
    _selected,
    _old_enough,
    _protected,
    _up,
    _nat,
    _planned,
    _held,
    _closing,
    _helped,
    _adjusted,
)
"""First comes what is decided first."""
