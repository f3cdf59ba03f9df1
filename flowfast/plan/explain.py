"""explain(): why a connection is, or is not, fast: the first reason, in the order in which it is decided.

The kernel and our ruleset decide one after the other: whether a packet is forwarded at all (routing, policies), whether
our last forward chain lets it add a flow (plan/ruleset.py), whether `flow add` does (nft_flow_offload_eval), and then
for each packet and direction whether the flowtable's hook sees and takes it (nf_flow_offload_ip_hook). CREATION
(creation.py) and TX and RX below stand in that order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import SA
from flowfast.model.state import Flow
from flowfast.model.tunnel import Path, Tunnel
from flowfast.plan.case import Case, Sight, case_of, choose
from flowfast.plan.creation import CREATION, Check
from flowfast.plan.flows import Packet, directions
from flowfast.plan.roles import Role


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: the two ends, either one first. `port` is the service's, `source_port` that of who opened it."""

    src: str
    dst: str
    proto: int | None = None
    port: int | None = None
    source_port: int | None = None
    size: int | None = None

    @property
    def packet(self) -> Packet:
        """The first packet of such a connection."""
        family = 10 if ":" in self.src else 2
        return Packet(family, 6 if self.proto is None else self.proto, self.src, self.dst, self.source_port, self.port)


@dataclass(frozen=True, slots=True)
class Way:
    """One direction: the path its packets take (of no connection yet: would take), and the SA that carries them.

    `sa` None while `sas` are several: it cannot be told which of them.
    """

    fast: bool
    how: str
    sa: SA | None
    sas: tuple[SA, ...]
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be said of one connection. `packet` is one that leaves through the tunnel."""

    packet: Packet
    flow: Flow | None
    tunnel: Tunnel | None
    tx: Way
    rx: Way
    reason: Reason | None
    """The first reason why not; where it is fast, what is wrong all the same, or None."""
    mtu: int | None
    hints: tuple[Reason, ...] = ()

    @property
    def fast(self) -> bool:
        """Both directions are on the flowtable now."""
        return self.flow is not None and self.tx.fast and self.rx.fast


def find(query: Query, flows: Sequence[Flow]) -> list[Flow]:
    """The connections that are meant, by either end's name of them (before or after NAT), in either direction."""
    return [flow for flow in flows if _meant(query, flow)]


def _meant(query: Query, flow: Flow) -> bool:
    if query.proto not in (None, flow.proto):
        return False
    return any(
        _same(query, packet, opened=at == 0) for at, way in enumerate(directions(flow)) for packet in _names(way)
    )


def _names(way: Sequence[Packet]) -> tuple[Packet, ...]:
    """What a direction may be called: as seen, as sent, and each end by either."""
    seen, sent = way
    return seen, sent, sent._replace(dst=seen.dst, dport=seen.dport), seen._replace(src=sent.src, sport=sent.sport)


def _same(query: Query, packet: Packet, *, opened: bool) -> bool:
    """Whether a packet of the direction that opened the connection, or of the other, is what is asked for."""
    if (query.src, query.dst) not in ((packet.src, packet.dst), (packet.dst, packet.src)):
        return False
    service, client = (packet.dport, packet.sport) if opened else (packet.sport, packet.dport)
    return query.port in (None, service) and query.source_port in (None, client)


def explain(query: Query, flows: Sequence[Flow], sight: Sight) -> list[Answer]:
    """An answer for each connection that is meant; where none is tracked, one for what would become of it."""
    found = find(query, flows)
    if found:
        return [_answer(case_of(sight, flow, query.packet, query.size)) for flow in found]
    return [_answer(case_of(sight, None, query.packet, query.size))]


def _answer(case: Case) -> Answer:
    refused = None if case.offloaded else next((why for check in CREATION if (why := check(case))), None)
    on = case.offloaded or (case.flow is None and refused is None)
    tx, rx = _way(case, TX, on, refused, outbound=True), _way(case, RX, on, refused, outbound=False)
    slow_first = sorted((tx, rx), key=lambda way: way.fast)
    reason = _not_tracked(case) if case.flow is None else next((way.reason for way in slow_first if way.reason), None)
    hints = () if refused else _hints(case)
    return Answer(case.out.seen, case.flow, case.tunnel, tx, rx, reason, case.mtu, hints)


def _way(case: Case, checks: Sequence[Check], on: bool, refused: Reason | None, *, outbound: bool) -> Way:
    sas = () if case.tunnel is None else case.tunnel.outbound if outbound else case.tunnel.inbound
    sa, candidates = choose(sas, case.sight.growth)
    why = refused or next((why for check in checks if (why := check(case))), None)
    if why is None and not on:
        why = _not_yet(case)
    if why is not None and not (on and why.code in _HARMLESS):
        return Way(False, why.sentence, sa, candidates, why)
    return Way(True, _how(case, outbound), sa, candidates, why)


def _how(case: Case, outbound: bool) -> str:
    path = case.path
    planned: Path | None = (path.tx if outbound else path.rx) if path else None
    if planned is not None and planned.fast:
        return planned.how
    if case.tunnel is None:
        return "without IPsec"
    return "bundle cached" if outbound and case.policy_based else ""


def _not_tracked(case: Case) -> Reason:
    if case.sight.blind is not None:
        return case.sight.blind
    sentence = "no such connection is tracked now"
    return Reason("NOT_TRACKED", case.named, sentence, "send something; flowfast show flows lists what is tracked")


def _not_yet(case: Case) -> Reason:
    config = case.sight.config
    if config and (config.offload.marks or config.offload.dscp or config.exclude.marks or config.exclude.dscp):
        sentence = "the config tells packets apart by mark or DSCP, which conntrack does not show"
        return Reason("PACKET_MARKS", case.named, sentence, "nft monitor trace shows the packets' marks", Severity.INFO)
    sentence = "nothing is wrong with it, but it is not on the flowtable (yet)"
    return Reason("NOT_YET", case.named, sentence, "the next packet from the LAN puts it there", Severity.INFO)


# each direction, packet by packet


def _foreign(case: Case) -> Reason | None:
    """OFFLOAD is conntrack's word for any flowtable."""
    if not case.offloaded or case.sight.table is not None:
        return None
    sentence = "it is on a flowtable, but not on flowfast's: no guard stands in front of that"
    remedy = "nft list flowtables shows whose it is"
    return Reason("FOREIGN_FLOWTABLE", case.named, sentence, remedy)


def _lan_hook(case: Case) -> Reason | None:
    return _not_hooked(case, case.lan.name) if case.lan else None


def _not_hooked(case: Case, device: str) -> Reason | None:
    if case.sight.table is None or device in case.sight.state.hooked:
        return None
    sentence = "the flowtable is not bound to this device, so its packets take the full path"
    return Reason("NOT_HOOKED", device, sentence, f'look at "nft list hooks netdev device {device}"', Severity.ERROR)


def _too_large_out(case: Case) -> Reason | None:
    if case.size is None or case.mtu is None or case.size <= case.mtu:
        return None
    sentence = (
        f"the tunnel carries {case.mtu} bytes at most: {case.size} bytes take the full path, to be refused or cut"
    )
    what = case.tunnel.name if case.tunnel else case.named
    return Reason("OVER_MTU", what, sentence, f"offload.clamp_mss for TCP; send {case.mtu} bytes at most")


def _too_large_in(case: Case) -> Reason | None:
    if case.size is None or case.lan is None or case.size <= case.lan.mtu:
        return None
    sentence = f"{case.size} bytes are more than its MTU of {case.lan.mtu}, and take the full path"
    return Reason("OVER_MTU", case.lan.name, sentence, "send less at once, or raise the MTU")


def _fallback(case: Case) -> Reason | None:
    """A policy-based flow holds on to one SA, the fallback SA too (kernel-facts.md 4.4); seen by what SAs carried."""
    if not case.offloaded or case.tunnel is None:
        return None
    sa, sas = choose(case.tunnel.outbound, case.sight.growth)
    if sa is None or sa.pcpu is not None or len(sas) == 1:
        return None
    sentence = f"goes out on the fallback SA {sa.spi:#010x}, though {len(sas) - 1} SAs have a CPU of their own"
    remedy = "take the flow off the flowtable: conntrack -D; it comes back on its CPU's SA"
    if not case.policy_based:
        remedy = "its CPU has no SA of its own: see that the IKE daemon makes one for each"
    return Reason("FALLBACK_SA", case.named, sentence, remedy)


def _planned_slow(case: Case) -> Reason | None:
    return case.path.rx.reason if case.path and not case.path.rx.fast else None


def _arrival_hook(case: Case) -> Reason | None:
    device = case.arrival
    if device is None or case.sight.table is None or device.name in case.sight.state.hooked:
        return None
    if case.policy_based and case.sight.config is not None and case.sight.roles.get(device.name) is not Role.WAN:
        sentence = "ESP of this tunnel comes in here, but the config does not name it as a WAN device"
        return Reason("WAN_NOT_CONFIGURED", device.name, sentence, "add it to devices.wan")
    return _not_hooked(case, device.name)


_HARMLESS = frozenset(("FALLBACK_SA", "FOREIGN_FLOWTABLE"))
"""What is worth saying of a direction that is fast all the same."""

TX: tuple[Check, ...] = (_foreign, _lan_hook, _too_large_out, _fallback)
"""Packets from the LAN into the tunnel: the hook of the LAN device, then the MTU."""
RX: tuple[Check, ...] = (_foreign, _planned_slow, _arrival_hook, _too_large_in)
"""Packets from the tunnel to the LAN: the hook of the device on which they appear in the clear, then the MTU."""


def _hints(case: Case) -> tuple[Reason, ...]:
    hints = []
    if case.size is None and case.mtu is not None:
        sentence = f"packets of more than {case.mtu} bytes take the full path one by one"
        hints.append(Reason("MTU", case.named, sentence, severity=Severity.INFO))
    sentence = "so do fragments, IP options, IPv6 extension headers, and packets whose TTL ends here"
    hints.append(Reason("FRAGMENTS_AND_OPTIONS", case.named, sentence, severity=Severity.INFO))
    return tuple(hints)
