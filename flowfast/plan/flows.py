"""Connections and the SPD: which packets a connection is made of, which policy takes each, whose tunnel that is.

A forwarded packet meets the SPD after DNAT and, a second time, after SNAT (nf_xfrm_me_harder of nf_nat_core.c): in the
tunnel it has the addresses of the other direction's conntrack tuple, turned around.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from flowfast.model.route import Lookup
from flowfast.model.sa import Direction, Policy
from flowfast.model.state import Flow, RouterState
from flowfast.model.tunnel import Tunnel, TunnelKey
from flowfast.plan.regions import Pair, Regions, parse
from flowfast.plan.spd import BITS, cut
from flowfast.plan.tunnels import policy_key

PORTS = frozenset((6, 17, 33, 132, 136))
"""Protocols with ports: TCP, UDP, DCCP, SCTP, UDP-Lite."""


class Packet(NamedTuple):
    """A packet as rules and policies see it. A port of None may be any."""

    family: int
    proto: int
    src: str
    dst: str
    sport: int | None = None
    dport: int | None = None

    @property
    def back(self) -> "Packet":
        """Its answer."""
        return self._replace(src=self.dst, dst=self.src, sport=self.dport, dport=self.sport)

    def __str__(self) -> str:
        return f"{end_text(self.src, self.sport)} -> {end_text(self.dst, self.dport)} {proto_text(self.proto)}"


class Forwarded(NamedTuple):
    """One direction of a connection: as the forward chain sees it, and as it is on the wire, or in the tunnel."""

    seen: Packet
    sent: Packet


_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 132: "sctp"}
_NUMBERS = {name: number for number, name in _PROTOCOLS.items()} | {"udplite": 136, "ipv6-icmp": 58, "ipip": 4}


def proto_text(proto: int) -> str:
    """The protocol's name, or its number."""
    return _PROTOCOLS.get(proto, str(proto))


def proto_number(text: str) -> int | None:
    """The protocol that is meant by a name or number; None: none is."""
    number = int(text) if text.isdecimal() else _NUMBERS.get(text.lower(), -1)
    return number if 0 <= number < 256 else None


def end_text(address: str, port: int | None) -> str:
    """An address with its port, as in "[fd00::1]:443"; without, where there is none."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def directions(flow: Flow) -> tuple[Forwarded, Forwarded]:
    """Packets of the original direction, and those of the reply."""
    seen = Packet(flow.family, flow.proto, flow.src, flow.reply_src, flow.sport, flow.reply_sport)
    sent = seen._replace(src=flow.reply_dst, sport=flow.reply_dport)
    back = Packet(flow.family, flow.proto, flow.reply_src, flow.src, flow.reply_sport, flow.sport)
    return Forwarded(seen, sent), Forwarded(back, back._replace(src=flow.dst, sport=flow.dport))


def name(flow: Flow) -> str:
    """A connection by its original tuple, as who opened it would call it."""
    return str(Packet(flow.family, flow.proto, flow.src, flow.dst, flow.sport, flow.dport))


# one packet: exactly


def first_policy(
    policies: Iterable[Policy], packet: Packet, direction: Direction = Direction.OUT, if_id: int = 0
) -> Policy | None:
    """The policy that takes the packet: of those that match, the lowest number, and among equals the older one
    (xfrm_policy_lookup_bytype, net/xfrm/xfrm_policy.c). One that asks for a mark is taken to match: a connection does
    not show the marks of its packets."""
    matching = (policy for policy in policies if _concerns(policy, direction, if_id) and matches(policy, packet))
    return min(matching, key=lambda policy: policy.priority, default=None)


def _concerns(policy: Policy, direction: Direction, if_id: int) -> bool:
    # Type 0 is XFRM_POLICY_TYPE_MAIN.
    return policy.direction is direction and policy.if_id == if_id and policy.type == 0 and not policy.socket


def matches(policy: Policy, packet: Packet) -> bool:
    """Whether the policy's selector takes the packet (__xfrm4_selector_match). A device in it is not looked at."""
    selector = policy.selector
    return (
        selector.family == packet.family
        and selector.proto in (0, packet.proto)
        and inside(packet.src, selector.src)
        and inside(packet.dst, selector.dst)
        and _port(packet.sport, selector.sport, selector.sport_mask)
        and _port(packet.dport, selector.dport, selector.dport_mask)
    )


def inside(address: str, prefix: str) -> bool:
    """Whether the prefix holds the address; never across families."""
    if (":" in address) != (":" in prefix):
        return False
    bits = 128 if ":" in address else 32
    base, length = parse(prefix)
    return parse(address)[0] >> (bits - length) == base >> (bits - length)


def _port(port: int | None, wanted: int, mask: int) -> bool:
    return port is None or (port ^ wanted) & mask == 0


def tunnel_of(tunnels: Mapping[TunnelKey, Tunnel], policy: Policy | None, netns: str | None = None) -> Tunnel | None:
    """Whose packets a policy takes, if it protects them."""
    demand = policy.demand if policy is not None else None
    if policy is None or demand is None:
        return None
    return tunnels.get(policy_key(policy, demand, netns))


# many connections: by their addresses


class Owners:
    """Tells connections apart by tunnel, thousands at once, by addresses alone: for tables.

    A policy that asks for more than addresses is nobody's here. What an xfrm interface carries is told by the `route`
    of its far end, if that can be asked.
    """

    def __init__(self, state: RouterState, tunnels: Iterable[Tunnel], route: Lookup | None = None) -> None:
        self._tunnels = {tunnel.key: tunnel for tunnel in tunnels}
        self._regions: dict[int, Regions[TunnelKey]] = {family: Regions(bits) for family, bits in BITS.items()}
        for family, owned in cut(state, self._tunnels.values(), counting=True).outbound.items():
            for (src, dst), tunnel in owned.items():
                self._regions[family].add(Pair(parse(src), parse(dst)), tunnel.key)
        interfaces = {tunnel.interface: tunnel.key for tunnel in self._tunnels.values() if tunnel.interface}
        self._devices = {link.ifindex: interfaces[link.name] for link in state.links if link.name in interfaces}
        self._route = route if self._devices else None
        self._pairs: dict[tuple[str, str], TunnelKey | None] = {}
        self._routed: dict[str, TunnelKey | None] = {}

    def of(self, flow: Flow) -> tuple[Tunnel, ...]:
        """The tunnels that the connection's packets leave through: none, one, or for tunnel to tunnel two."""
        found = (self._owner(flow.family, way.sent.src, way.sent.dst) for way in directions(flow))
        return tuple(self._tunnels[key] for key in dict.fromkeys(found) if key is not None)

    def _owner(self, family: int, src: str, dst: str) -> TunnelKey | None:
        if (src, dst) not in self._pairs:
            regions, pair = self._regions.get(family), Pair(parse(src), parse(dst))
            hit = next((key for _, key in regions.overlapping(pair)), None) if regions else None
            self._pairs[src, dst] = hit or self._by_route(dst)
        return self._pairs[src, dst]

    def _by_route(self, dst: str) -> TunnelKey | None:
        if self._route is None:
            return None
        if dst not in self._routed:
            route = self._route(dst, None, None)
            self._routed[dst] = self._devices.get(route.ifindex) if route else None
        return self._routed[dst]
