"""One connection and all that is known of it: what explain.py asks its questions of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from flowfast.config.schema import Config
from flowfast.model.desired import Desired
from flowfast.model.link import Link
from flowfast.model.nftables import Flowtable, TableState
from flowfast.model.reason import Reason
from flowfast.model.route import Lookup
from flowfast.model.sa import SA, Policy
from flowfast.model.state import Flow, RouterState
from flowfast.model.tunnel import Topology, Tunnel, TunnelKey, TunnelPath
from flowfast.plan.flows import Forwarded, Packet, directions, first_policy, inside, tunnel_of
from flowfast.plan.mtu import tunnel_mtu
from flowfast.plan.pairs import prefixes
from flowfast.plan.roles import Role, roles
from flowfast.plan.ruleset import FLOWTABLE, INET
from flowfast.plan.spd import SpdRegions, cut

SaKey = tuple[str, int, int]


@dataclass(frozen=True)
class Sight:
    """What is known of the router. Without a config, roles of devices and what is wanted are unknown.

    `route` asks the kernel's routing; None: it cannot be asked. `growth`: the packets that each SA carried while it was
    looked at.
    """

    state: RouterState
    tunnels: tuple[Tunnel, ...]
    config: Config | None = None
    desired: Desired | None = None
    route: Lookup | None = None
    growth: Mapping[SaKey, int] = field(default_factory=dict)

    @property
    def blind(self) -> Reason | None:
        """Why conntrack cannot be read, if it cannot."""
        feature = self.state.features.get("conntrack")
        return feature.reason if feature and not feature.present else None

    @cached_property
    def by_key(self) -> Mapping[TunnelKey, Tunnel]:
        """The tunnels by what they are known by."""
        return {tunnel.key: tunnel for tunnel in self.tunnels}

    @cached_property
    def paths(self) -> Mapping[TunnelKey, TunnelPath]:
        """What the planner says of each tunnel; empty without a config."""
        return {path.tunnel.key: path for path in self.desired.paths} if self.desired else {}

    @cached_property
    def regions(self) -> SpdRegions:
        """The SPD as the planner cuts it: what can be fast, and what cannot, whatever a config says."""
        return cut(self.state, self.tunnels, counting=False)

    @cached_property
    def roles(self) -> Mapping[str, Role]:
        """The side that each device faces, as far as it is known."""
        return roles(self.state, self.config)

    @cached_property
    def table(self) -> TableState | None:
        """Our table, if it is in the kernel with its flowtable."""
        table = self.state.ruleset.tables.get(INET)
        return table if table is not None and FLOWTABLE in table.flowtables else None

    @property
    def flowtable(self) -> Flowtable | None:
        """Our flowtable, as the kernel holds it."""
        return self.table.flowtables[FLOWTABLE] if self.table else None

    @cached_property
    def links(self) -> Mapping[int, Link]:
        """The devices by ifindex."""
        return {link.ifindex: link for link in self.state.links}

    def towards(self, address: str) -> Link | None:
        """The device that the router's own packets to the address go out of; None: no way, or it cannot be asked."""
        route = self.route(address, None, None) if self.route else None
        return self.links.get(route.ifindex) if route else None

    def exit(self, packet: Packet) -> Link | None:
        """The device that a forwarded packet goes out of, by policy routing, too."""
        came = self.towards(packet.src)
        route = self.route(packet.dst, packet.src, came.ifindex) if self.route and came else None
        return self.links.get(route.ifindex) if route else self.towards(packet.dst)


@dataclass(frozen=True)
class Case:
    """One connection, tracked (`flow`) or only asked for. `out` are the packets that leave through the tunnel."""

    sight: Sight
    flow: Flow | None
    asked: Packet
    out: Forwarded
    policy: Policy | None
    tunnel: Tunnel | None
    back: Tunnel | None
    """The tunnel that the answers leave through: set where the connection goes from one tunnel into another."""
    size: int | None = None

    @property
    def offloaded(self) -> bool:
        """Conntrack says OFFLOAD."""
        return self.flow is not None and (self.flow.offloaded or self.flow.hardware)

    @property
    def named(self) -> str:
        """The connection, as the object of a Reason."""
        return str(self.out.seen)

    @cached_property
    def lan(self) -> Link | None:
        """The device that the tunnel's far side is answered on: where packets of `out` come from."""
        return self.sight.towards(self.out.seen.src)

    @cached_property
    def exit(self) -> Link | None:
        """The device that the routing sends packets of `out` to."""
        return self.sight.exit(self.out.seen)

    @cached_property
    def arrival(self) -> Link | None:
        """The device on whose ingress hook answers appear in the clear: xfrm interface, or where ESP comes in."""
        if self.tunnel is None:
            return self.exit
        if self.tunnel.topology is not Topology.POLICY:
            return self.sight.state.link(self.tunnel.interface) if self.tunnel.interface else None
        return self.sight.towards(self.tunnel.key.remote)

    @property
    def policy_based(self) -> bool:
        """Through a tunnel without an interface: a flow then holds on to one SA."""
        return self.tunnel is not None and self.tunnel.topology is Topology.POLICY

    @property
    def path(self) -> TunnelPath | None:
        """What the planner says of the tunnel."""
        return self.sight.paths.get(self.tunnel.key) if self.tunnel else None

    @property
    def addresses(self) -> frozenset[str]:
        """Both ends, as whoever sees the connection calls them."""
        return frozenset(end for packet in self.out for end in (packet.src, packet.dst))

    @cached_property
    def mtu(self) -> int | None:
        """Bytes of the largest packet that goes into the tunnel; None where that is unknown.

        Behind an xfrm interface the smaller of its MTU and what the SA has room for, which nobody keeps in step.
        """
        limits = [self._room()]
        if not self.policy_based:
            limits.append(self.arrival.mtu if self.arrival else None)
        return min((limit for limit in limits if limit is not None), default=None)

    def _room(self) -> int | None:
        """Bytes that fit into the youngest SA on the way to the peer; None where SA or way are out of sight."""
        tunnel, route = self.tunnel, self.sight.route
        if tunnel is None or not tunnel.outbound or tunnel.key.netns is not None or route is None:
            return None
        way = route(tunnel.key.remote, None, None)
        device = self.sight.links.get(way.ifindex) if way else None
        youngest = max(tunnel.outbound, key=lambda sa: sa.counters.add_time)
        return tunnel_mtu(youngest, way.mtu or device.mtu) if way and device else None

    def in_set(self) -> bool:
        """Whether the kernel's set of what may be fast holds the connection."""
        table, packet = self.sight.table, self.out.sent
        held = prefixes("fast6" if packet.family == 10 else "fast4", table.sets.values()) if table else ()
        return any(inside(packet.dst, remote) and inside(packet.src, local) for remote, local in held)


def choose(sas: Sequence[SA], growth: Mapping[SaKey, int]) -> tuple[SA | None, tuple[SA, ...]]:
    """The SA that packets of one direction take, if that can be told; and all that it may be.

    For each CPU (pcpu, RFC 9611) and for all others the youngest counts (xfrm_state_look_at, net/xfrm/xfrm_state.c).
    Of several it is the one that alone carried packets while it was looked at.
    """
    youngest: dict[int | None, SA] = {}
    for sa in sorted(sas, key=lambda sa: sa.counters.add_time):
        youngest[sa.pcpu] = sa
    found = tuple(youngest[cpu] for cpu in sorted(youngest, key=lambda cpu: -1 if cpu is None else cpu))
    moved = [sa for sa in found if growth.get(sa.key)]
    if len(found) == 1:
        return found[0], found
    return (moved[0] if len(moved) == 1 else None), found


def case_of(sight: Sight, flow: Flow | None, asked: Packet, size: int | None = None) -> Case:
    """Finds the tunnel of a connection, whichever end it is named from or was opened by."""
    ways = directions(flow) if flow is not None else (Forwarded(asked, asked), Forwarded(asked.back, asked.back))
    found = [_exit(sight, way) for way in ways]
    at = 1 if found[1][1] is not None and found[0][1] is None else 0
    policy, tunnel = found[at]
    return Case(sight, flow, asked, ways[at], policy, tunnel, found[1 - at][1] if tunnel else None, size)


def _exit(sight: Sight, way: Forwarded) -> tuple[Policy | None, Tunnel | None]:
    """The policy that takes the packets of one direction, and the tunnel they leave through."""
    policy = first_policy(sight.state.policies, way.sent)
    tunnel = tunnel_of(sight.by_key, policy)
    if tunnel is not None or (policy is not None and policy.action):
        return policy, tunnel
    device = sight.exit(way.seen)
    if device is None or not device.is_xfrm:
        return policy, None
    return _through(sight, device, way.sent)


def _through(sight: Sight, device: Link, packet: Packet) -> tuple[Policy | None, Tunnel | None]:
    """The tunnel behind an xfrm interface; of several peers the one whose policy takes the packet."""
    spds = {None: sight.state.policies} | {netns: spd.policies for netns, spd in sight.state.underlay.items()}
    for netns, policies in spds.items():
        policy = first_policy(policies, packet, if_id=device.xfrm_if_id or 0)
        tunnel = tunnel_of(sight.by_key, policy, netns)
        if tunnel is not None:
            return policy, tunnel
    (*_, only) = (None, *(tunnel for tunnel in sight.tunnels if tunnel.interface == device.name))
    return None, only
