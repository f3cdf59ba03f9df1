"""The lab's network: two gateways with a host behind each, in namespaces that last as long as its context.

    h1 e0 --- lan0 gw1 wan0 === ESP === wan0 gw2 lan0 --- e0 h2
    10.1.0.0/16      192.0.2.0/24 (the WAN)         10.2.0.0/16
    fd00:1::/64      2001:db8::/64                  fd00:2::/64

It makes no SAs: flowfast.lab.ike does (strongSwan), or flowfast.lab.manual_keys (without an IKE daemon).
"""

import ipaddress
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from pyroute2 import IPRoute

from flowfast.lab.netns import LabError, Netns
from flowfast.lab.nodes import Device, Route, set_up
from flowfast.lab.wires import End, WireKind, Wires, wires

Family = Literal[4, 6]
Kind = Literal["policy", "xfrmi", "cross-netns"]
"""policy: policies alone; xfrmi: an xfrm interface on both gateways; cross-netns: gw1's underlay in another netns."""

BOTH: tuple[Family, ...] = (4, 6)
IF_ID = 42
"""if_id of the first tunnel's xfrm interface; the others count up from it."""

TUNNEL_MTU = 1400
"""Of an xfrm interface: 1500 less the most that ESP in tunnel mode adds, rounded down."""


def lan_prefix(side: int, family: Family) -> str:
    """The network behind gateway `side` (1 or 2; spokes count from 101)."""
    return f"10.{side}.0.0/16" if family == 4 else f"fd00:{side}::/64"


def lan_address(side: int, family: Family, host: int = 2, tunnel: int = 0) -> str:
    """Address number `host` in that network, without its length; 1 is the gateway's.

    Where a topology has several tunnels, `tunnel` is the one that protects the address.
    """
    if family == 4:
        return f"10.{side}.{tunnel}.{host}"
    return str(ipaddress.ip_address(f"fd00:{side}:0:0:{tunnel:x}::{host:x}"))


def part_prefix(side: int, family: Family, tunnel: int) -> str:
    """What one of several tunnels protects of a network."""
    return f"10.{side}.{tunnel}.0/24" if family == 4 else str(ipaddress.ip_network(f"fd00:{side}:0:0:{tunnel:x}::/80"))


def wan_address(side: int, family: Family) -> str:
    """The address of gateway `side` on the WAN."""
    return f"192.0.2.{side}" if family == 4 else f"2001:db8::{side:x}"


def on_lan(address: str, family: Family) -> str:
    """A LAN address with its length, as a device gets it."""
    return f"{address}/{16 if family == 4 else 64}"


def on_wan(address: str, family: Family) -> str:
    """A WAN address with its length."""
    return f"{address}/{24 if family == 4 else 64}"


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What one tunnel protects, seen from gw1 (or the hub): prefixes of each family, and its xfrm interface."""

    name: str
    local: tuple[str, ...]
    remote: tuple[str, ...]
    if_id: int | None = None
    device: str | None = None

    def reversed(self) -> "Tunnel":
        """The same tunnel, seen from the other end."""
        return replace(self, local=self.remote, remote=self.local)


@dataclass(frozen=True, slots=True)
class Peering:
    """Two namespaces with SAs towards each other, by number of their side, and the tunnels seen from the first."""

    name: str
    left: Netns
    right: Netns
    sides: tuple[int, int]
    tunnels: tuple[Tunnel, ...]


@dataclass(frozen=True, slots=True)
class TwoGateways:
    """A running topology. `underlay1` is the namespace with gw1's WAN and SAs: gw1 itself, except in cross-netns."""

    kind: Kind
    wire: WireKind
    families: tuple[Family, ...]
    h1: Netns
    gw1: Netns
    gw2: Netns
    h2: Netns
    underlay1: Netns
    tunnels: tuple[Tunnel, ...]

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices of gw1 that belong in its flowtable: the LAN, and the WAN or the xfrm interfaces."""
        interfaces = tuple(tunnel.device for tunnel in self.tunnels if tunnel.device)
        return ("lan0", *(interfaces or ("wan0",)))

    @property
    def peerings(self) -> tuple[Peering, ...]:
        """The gateways, as those who make SAs for them see them."""
        return (Peering("gw", self.underlay1, self.gw2, (1, 2), self.tunnels),)

    @property
    def wan(self) -> tuple[End, End]:
        """Both ends of the WAN."""
        return End(self.underlay1, "wan0"), End(self.gw2, "wan0")

    @property
    def protected(self) -> tuple[str, ...]:
        """All prefixes that the tunnels protect, of both sides."""
        return tuple(prefix for tunnel in self.tunnels for prefix in (*tunnel.local, *tunnel.remote))

    def host_address(self, side: Literal[1, 2], family: Family, host: int = 2, tunnel: int = 0) -> str:
        """Address of the host behind gateway `side`; one that tunnel number `tunnel` protects."""
        return lan_address(side, family, host, tunnel)

    def ping(self, family: Family, count: int = 2) -> bool:
        """Whether h1 reaches h2: fills the neighbour tables, and makes a trap policy bring its tunnel up."""
        argv = ["ping", "-c", str(count), "-i", "0.2", "-W", "2", self.host_address(2, family)]
        return self.h1.run(argv, check=False).returncode == 0


def _tunnels(kind: Kind, families: tuple[Family, ...], count: int) -> tuple[Tunnel, ...]:
    """One tunnel protects the whole networks; of several, number k the k-th /24 (IPv4) and the k-th /80 (IPv6)."""

    def part(side: int, number: int) -> tuple[str, ...]:
        if count == 1:
            return tuple(lan_prefix(side, family) for family in families)
        return tuple(part_prefix(side, family, number) for family in families)

    return tuple(
        Tunnel(
            name=f"net{number}",
            local=part(1, number),
            remote=part(2, number),
            if_id=None if kind == "policy" else IF_ID + number,
            device=None if kind == "policy" else f"ipsec{number}",
        )
        for number in range(count)
    )


def _host(built: TwoGateways, side: Literal[1, 2], hosts: int) -> None:
    """Sets up h1 or h2: addresses 2, 3, ... for each tunnel, and routes that choose the one to send from."""
    ns, other = (built.h1, 2) if side == 1 else (built.h2, 1)
    numbers = range(len(built.tunnels))
    addresses = [
        on_lan(lan_address(side, family, host, number), family)
        for number in numbers
        for host in range(2, 2 + hosts)
        for family in built.families
    ]
    routes = [Route("default" if f == 4 else "::/0", via=lan_address(side, f, 1)) for f in built.families]
    if len(built.tunnels) > 1:
        routes += [
            Route(part_prefix(other, f, n), via=lan_address(side, f, 1), source=lan_address(side, f, 2, n))
            for n in numbers
            for f in built.families
        ]
    ns.call(set_up, [Device("e0", addresses)], routes, False)


@contextmanager
def two_gateways(
    kind: Kind = "policy",
    wire: WireKind = "veth",
    families: tuple[Family, ...] = BOTH,
    *,
    hosts: int = 1,
    tunnels: int = 1,
    finish_checksums: bool = False,
    wan: Wires | None = None,
    lan: Wires | None = None,
) -> Iterator[TwoGateways]:
    """Two gateways and the hosts behind them, each in a namespace: h1, gw1, gw2, h2 (and underlay1 in cross-netns).

    `wire`: "nic" takes three of the machine's pairs of NICs. `hosts`: addresses on each host, for each tunnel.
    `finish_checksums`: veth as a wire would be (flowfast.lab.wires). `wan`, `lan`: other wires for the WAN and gw1's
    LAN, their owner's to close. Everything is taken down at the end.
    """
    with ExitStack() as stack:
        h1, gw1, gw2, h2 = (stack.enter_context(Netns(name)) for name in ("h1", "gw1", "gw2", "h2"))
        underlay1 = stack.enter_context(Netns("underlay1")) if kind == "cross-netns" else gw1
        supply = wires(wire, finish_checksums)
        stack.callback(supply.close)
        (lan or supply).join(End(h1, "e0"), End(gw1, "lan0"))
        (wan or supply).join(End(underlay1, "wan0"), End(gw2, "wan0"))
        supply.join(End(gw2, "lan0"), End(h2, "e0"))
        built = TwoGateways(kind, wire, families, h1, gw1, gw2, h2, underlay1, _tunnels(kind, families, tunnels))
        _host(built, 1, hosts)
        _host(built, 2, hosts)
        _gateway(built, 1)
        _gateway(built, 2)
        if wire == "nic":
            settle(
                *((ns, lan_address(side, family, 1)) for ns, side in ((h1, 1), (h2, 2)) for family in families),
                *((underlay1, wan_address(2, family)) for family in families),
            )
        yield built


SETTLE = 20.0
"""Seconds within which neighbours must answer."""


def settle(*neighbours: tuple[Netns, str]) -> None:
    """Waits until neighbours answer: a NIC joins multicast groups a little after it is up; what is earlier is lost."""
    deadline = time.monotonic() + SETTLE
    waiting = set(neighbours)
    while waiting:
        # One packet each: a ping with a deadline gives up at the first "address unreachable".
        argv = ["ping", "-q", "-c", "1", "-W", "1"]
        pings = {(ns, address): ns.popen([*argv, address], stdout=subprocess.DEVNULL) for ns, address in waiting}
        waiting = {neighbour for neighbour, ping in pings.items() if ping.wait() != 0}
        if waiting and time.monotonic() > deadline:
            silent = ", ".join(f"{address} from {ns.name}" for ns, address in waiting)
            raise LabError(f"no answer over the emulated NICs within {SETTLE:g} s: {silent}")


def _gateway(built: TwoGateways, side: Literal[1, 2]) -> None:
    """Sets up gw1 or gw2, and gw1's underlay where that is another namespace."""
    families, other = built.families, 3 - side
    ns = built.gw1 if side == 1 else built.gw2
    lan = Device("lan0", [on_lan(lan_address(side, f, 1), f) for f in families])
    wan = Device("wan0", [on_wan(wan_address(side, f), f) for f in families])
    if built.kind == "policy":
        routes = [Route(lan_prefix(other, f), via=wan_address(other, f)) for f in families]
        ns.call(set_up, [lan, wan], routes, True)
        return
    ends = [
        (tunnel.device or "", tunnel.if_id, tunnel.remote if side == 1 else tunnel.local) for tunnel in built.tunnels
    ]
    interfaces = [Device(name, mtu=TUNNEL_MTU, xfrm_if_id=if_id, xfrm_link="wan0") for name, if_id, _ in ends]
    routes = [Route(prefix, device=name) for name, _, prefixes in ends for prefix in prefixes]
    if built.kind == "xfrmi" or side == 2:
        ns.call(set_up, [lan, wan, *interfaces], routes, True)
        return
    built.underlay1.call(set_up, [wan, *interfaces], [], True)
    built.underlay1.call(_move, [device.name for device in interfaces], ns.name)
    moved = [Device(device.name, mtu=TUNNEL_MTU) for device in interfaces]
    ns.call(set_up, [lan, *moved], routes, True)


def _move(devices: list[str], to: str) -> None:
    """Moves devices of this namespace to another."""
    with IPRoute() as ipr:
        for name in devices:
            ipr.link("set", index=ipr.link_lookup(ifname=name)[0], net_ns_fd=to)
