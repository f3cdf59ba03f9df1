"""A hub with spokes, each with a tunnel to it; spokes reach each other through the hub.

    h0 e0 --- lan0 hub wan0 === bridge in "internet" === wan0 s1, s2, ...     lan0 of a spoke is a dummy device
    10.1.0.0/16        192.0.2.1/24                 192.0.2.101, .102, ...    10.101.0.0/16, 10.102.0.0/16, ...

A spoke is its own host: what it sends comes from its LAN address, 10.101.0.2 (fd00:101::2).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from flowfast.lab.netns import Netns
from flowfast.lab.nodes import Device, Route, set_up
from flowfast.lab.topology import (
    BOTH,
    IF_ID,
    TUNNEL_MTU,
    Family,
    Kind,
    Peering,
    Tunnel,
    lan_address,
    lan_prefix,
    on_lan,
    on_wan,
    settle,
    wan_address,
)
from flowfast.lab.wires import End, WireKind, wires

FIRST_SIDE = 101
"""Number of the first spoke's networks and addresses."""


def everything(family: Family) -> str:
    """The prefix with all LANs in it: what a spoke reaches through the hub."""
    return "10.0.0.0/8" if family == 4 else "fd00::/16"


@dataclass(frozen=True, slots=True)
class HubAndSpokes:
    """A running topology; `h0` is the host behind the hub."""

    kind: Kind
    wire: WireKind
    families: tuple[Family, ...]
    h0: Netns
    hub: Netns
    spokes: tuple[Netns, ...]
    internet: Netns

    @property
    def peerings(self) -> tuple[Peering, ...]:
        """A tunnel between the hub and each spoke: all LANs on the hub's side, the spoke's own on the other."""
        xfrmi = self.kind == "xfrmi"
        return tuple(
            Peering(
                name=spoke.name,
                left=self.hub,
                right=spoke,
                sides=(1, FIRST_SIDE + number),
                tunnels=(
                    Tunnel(
                        name=f"net{number}",
                        local=tuple(everything(family) for family in self.families),
                        remote=tuple(lan_prefix(FIRST_SIDE + number, family) for family in self.families),
                        if_id=IF_ID + number if xfrmi else None,
                        device=f"ipsec{number}" if xfrmi else None,
                    ),
                ),
            )
            for number, spoke in enumerate(self.spokes)
        )

    @property
    def tunnels(self) -> tuple[Tunnel, ...]:
        """All tunnels, seen from the hub."""
        return tuple(tunnel for peering in self.peerings for tunnel in peering.tunnels)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices of the hub that belong in its flowtable."""
        interfaces = tuple(tunnel.device for tunnel in self.tunnels if tunnel.device)
        return ("lan0", *(interfaces or ("wan0",)))

    @property
    def wan(self) -> tuple[End, ...]:
        """The WAN's ends: the hub's, then the spokes'."""
        return tuple(End(ns, "wan0") for ns in (self.hub, *self.spokes))

    def spoke_address(self, number: int, family: Family) -> str:
        """Address of spoke `number` (from 0) on its LAN."""
        return lan_address(FIRST_SIDE + number, family)

    def host_address(self, family: Family) -> str:
        """Address of the host behind the hub."""
        return lan_address(1, family)


@contextmanager
def hub_and_spokes(
    spokes: int, kind: Kind = "policy", wire: WireKind = "veth", families: tuple[Family, ...] = BOTH
) -> Iterator[HubAndSpokes]:
    """A hub with `spokes` spokes, policy-based or ("xfrmi") with an xfrm interface per tunnel.

    `wire`: "nic" takes spokes + 2 of the machine's pairs of NICs. Everything is taken down at the end.
    """
    with ExitStack() as stack:
        h0, hub, internet = (stack.enter_context(Netns(name)) for name in ("h0", "hub", "internet"))
        ends = tuple(stack.enter_context(Netns(f"s{number}")) for number in range(1, spokes + 1))
        supply = wires(wire)
        stack.callback(supply.close)
        supply.join(End(h0, "e0"), End(hub, "lan0"))
        built = HubAndSpokes(kind, wire, families, h0, hub, ends, internet)
        for number, end in enumerate(built.wan):
            supply.join(end, End(internet, f"p{number}"))
        ports = [f"p{number}" for number in range(spokes + 1)]
        internet.call(set_up, [Device("br0", bridge_of=ports)], [], False)
        defaults = [Route("default" if f == 4 else "::/0", via=lan_address(1, f, 1)) for f in families]
        h0.call(set_up, [Device("e0", [on_lan(lan_address(1, f), f) for f in families])], defaults, False)
        _hub(built)
        for number, _ in enumerate(ends):
            _spoke(built, number)
        if wire == "nic":
            settle(
                *((h0, lan_address(1, family, 1)) for family in families),
                *((spoke, wan_address(1, family)) for spoke in ends for family in families),
            )
        yield built


def _interface(tunnel: Tunnel) -> list[Device]:
    """The tunnel's xfrm interface, if it has one."""
    if tunnel.device is None:
        return []
    return [Device(tunnel.device, mtu=TUNNEL_MTU, xfrm_if_id=tunnel.if_id, xfrm_link="wan0")]


def _hub(built: HubAndSpokes) -> None:
    devices = [
        Device("lan0", [on_lan(lan_address(1, f, 1), f) for f in built.families]),
        Device("wan0", [on_wan(wan_address(1, f), f) for f in built.families]),
    ]
    routes = []
    for peering in built.peerings:
        (tunnel,) = peering.tunnels
        devices += _interface(tunnel)
        for family, prefix in zip(built.families, tunnel.remote, strict=True):
            via = None if tunnel.device else wan_address(peering.sides[1], family)
            routes.append(Route(prefix, via=via, device=tunnel.device))
    built.hub.call(set_up, devices, routes, True)


def _spoke(built: HubAndSpokes, number: int) -> None:
    side, (tunnel,) = FIRST_SIDE + number, built.peerings[number].tunnels
    devices = [
        Device("lan0", [on_lan(lan_address(side, f), f) for f in built.families], dummy=True),
        Device("wan0", [on_wan(wan_address(side, f), f) for f in built.families]),
        *_interface(tunnel),
    ]
    routes = [
        Route(
            everything(family),
            via=None if tunnel.device else wan_address(1, family),
            device=tunnel.device,
            source=lan_address(side, family),
        )
        for family in built.families
    ]
    built.spokes[number].call(set_up, devices, routes, False)
