"""The MSS of TCP connections through tunnels, both ways: a packet too big falls to the full path, and nobody notices.

What goes into a tunnel is clamped to the MTU of its route, which is the tunnel's (`set rt mtu`, which also looks at the
way back: get_tcpmss(), net/netfilter/nft_rt.c). What comes out of a policy-based tunnel has no route that knows: there
the number is the planner's. nft only ever lowers an MSS (nft_exthdr_tcp_set_eval, nft_exthdr.c).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from flowfast.model.nftables import element_text, quoted
from flowfast.model.tunnel import Topology, Tunnel
from flowfast.plan.pairs import FAMILIES, Part

CLAMP = "clamp_mss"
"""The chain. What it says concerns new connections alone, so that no flow need be taken off when it changes."""

_SET = "tcp option maxseg size set"
_HEADERS = {"ip": ("ipv4", 40), "ip6": ("ipv6", 60)}
"""The family's name behind `meta nfproto`, and bytes of the IP and TCP headers."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The tunnels, xfrm `interfaces` whose traffic may be fast, and `rooms`: tunnel -> bytes that its SAs carry."""

    tunnels: tuple[Tunnel, ...]
    interfaces: frozenset[str]
    rooms: Mapping[str, int]

    def of_interfaces(self) -> dict[int, list[str]]:
        """Bytes -> the interfaces behind which that is what fits."""
        least: dict[str, int] = {}
        for tunnel in self.tunnels:
            room, device = self.rooms.get(tunnel.name), tunnel.interface
            if room is not None and device is not None and device in self.interfaces:
                least[device] = min(room, least.get(device, room))
        return _grouped(least)

    def of_policies(self) -> dict[int, list[str]]:
        """Bytes -> the policy-based tunnels that have room for so much, the smallest first."""
        named = (tunnel.name for tunnel in self.tunnels if tunnel.topology is Topology.POLICY)
        return _grouped({name: self.rooms[name] for name in named if name in self.rooms})


def clamp_rules(
    sizes: Sizes, fast: Iterable[Part], inbound: Mapping[int, Mapping[tuple[str, str], Tunnel]]
) -> Iterator[str]:
    """Rules for SYNs. `fast`: the sets of pairs (remote, local) of policy-based tunnels; `inbound`: whose each is."""
    yield f"rt ipsec exists {_SET} rt mtu"
    if sizes.interfaces:
        yield f"oifname {quoted(sizes.interfaces)} {_SET} rt mtu"
        yield f"iifname {quoted(sizes.interfaces)} {_SET} rt mtu"
    for room, devices in sizes.of_interfaces().items():
        for proto, headers in _HEADERS.values():
            for side in ("iifname", "oifname"):
                yield f"{side} {quoted(devices)} meta nfproto {proto} {_SET} {room - headers}"
    yield from _out_of_policies(sizes.of_policies(), fast, inbound)


def _grouped(rooms: Mapping[str, int]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for name, room in sorted(rooms.items()):
        groups.setdefault(room, []).append(name)
    return dict(sorted(groups.items()))


def _out_of_policies(
    groups: Mapping[int, list[str]], fast: Iterable[Part], inbound: Mapping[int, Mapping[tuple[str, str], Tunnel]]
) -> Iterator[str]:
    """By inner addresses, which needs no secpath: a rule for each size but the largest, which is that of the rest."""
    for room in list(groups)[:-1]:
        names = set(groups[room])
        for family, owners in inbound.items():
            ip = FAMILIES[family].ip
            if pairs := [element_text(ends) for ends, tunnel in owners.items() if tunnel.name in names]:
                size = room - _HEADERS[ip][1]
                yield f"{ip} saddr . {ip} daddr {{ {', '.join(sorted(pairs))} }} {_SET} {size}"
    if groups:
        for part in fast:
            yield f"{part.key()} @{part.set.name} {_SET} {max(groups) - _HEADERS[part.family.ip][1]}"


def several_sizes(tunnels: Iterable[Tunnel], rooms: Mapping[str, int]) -> bool:
    """True where policy-based tunnels have to be told apart by it."""
    return len({rooms[t.name] for t in tunnels if t.topology is Topology.POLICY and t.name in rooms}) > 1
