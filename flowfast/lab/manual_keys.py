"""SAs and policies without an IKE daemon, by `ip xfrm`: for measurements, and for tests that are not about IKE."""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from flowfast.lab.netns import Netns
from flowfast.lab.topology import Family, Peering, Tunnel, wan_address

SPI_OUT, SPI_IN = 0x1000, 0x2000
"""SPIs of the first tunnel are one more than these, seen from gw1 (or the hub); those of the others count up."""
REKEYED = 0x10000
"""Added to SPIs by a rekey."""
MARK = 0x100
"""With marks: that of the first tunnel is one more than this."""


class Peered(Protocol):
    """A topology, as far as its SAs go."""

    @property
    def peerings(self) -> tuple[Peering, ...]:
        """Who has SAs towards whom."""


@dataclass(frozen=True, slots=True)
class _End:
    """One gateway's end of a tunnel; `spis` are the outbound and the inbound one."""

    near: str
    far: str
    spis: tuple[int, int]
    reqid: int
    key: str
    mark: int | None = None
    """What the inbound SA sets as the mark of its packets."""

    def states(self, tunnel: Tunnel) -> list[tuple[str, str]]:
        """(SA, the rest of what `ip xfrm state add` wants to know of it): outbound, inbound."""
        if_id = f" if_id {tunnel.if_id}" if tunnel.if_id is not None else ""
        # af-unspec: the tunnel carries both families, whatever its own is.
        keyed = f"reqid {self.reqid} mode tunnel replay-window 128 flag esn af-unspec aead rfc4106(gcm(aes))"
        mark = f" output-mark {self.mark:#x} mask 0xffffffff" if self.mark is not None else ""
        both = ((self.near, self.far, ""), (self.far, self.near, mark))
        return [
            (f"src {source} dst {destination} proto esp spi {spi:#x}", f"{keyed} 0x{self.key} 128{if_id}{more}")
            for (source, destination, more), spi in zip(both, self.spis, strict=True)
        ]

    def policies(self, tunnel: Tunnel) -> list[str]:
        """What `ip -batch` takes: three policies for each family."""
        if_id = f" if_id {tunnel.if_id}" if tunnel.if_id is not None else ""
        outbound, inbound = (self.near, self.far), (self.far, self.near)
        return [
            f"xfrm policy add src {source} dst {destination} dir {direction}"
            f" tmpl src {ends[0]} dst {ends[1]} proto esp reqid {self.reqid} mode tunnel{if_id}"
            for ours, theirs in zip(tunnel.local, tunnel.remote, strict=True)
            for direction, source, destination, ends in (
                ("out", ours, theirs, outbound),
                ("in", theirs, ours, inbound),
                ("fwd", theirs, ours, inbound),
            )
        ]


def _ends(topology: Peered, outer: Family, marks: bool, spis_from: int = 0) -> Iterator[tuple[Netns, Tunnel, _End]]:
    """Both ends of every tunnel, the one that receives first; the tunnel as that end sees it. New keys each time."""
    number = 0
    for peering in topology.peerings:
        left, right = (wan_address(side, outer) for side in peering.sides)
        for tunnel in peering.tunnels:
            number += 1
            key, spis = secrets.token_hex(20), (spis_from + SPI_OUT + number, spis_from + SPI_IN + number)
            yield peering.right, tunnel.reversed(), _End(right, left, spis[::-1], number, key)
            yield peering.left, tunnel, _End(left, right, spis, number, key, MARK + number if marks else None)


def _batches(lines: Iterable[tuple[Netns, str]]) -> None:
    """Has `ip -batch` do the lines of each namespace, one namespace after the other."""
    batches: dict[Netns, list[str]] = {}
    for ns, line in lines:
        batches.setdefault(ns, []).append(line)
    for ns, own in batches.items():
        ns.run(["ip", "-batch", "-"], stdin="\n".join(own) + "\n")


def manual_keys(topology: Peered, outer: Family = 4, *, marks: bool = False) -> None:
    """Gives every tunnel of the topology a pair of SAs (AES-GCM-128, ESN, replay window 128) with random keys.

    `outer`: the family of the gateways' addresses. `marks`: the inbound SAs of gw1 (or the hub) mark their packets,
    each tunnel's with another number (swanctl: set_mark_in). Both directions of a tunnel share a key, which no IKE
    daemon would have them do.
    """
    _batches(
        (ns, line)
        for ns, tunnel, end in _ends(topology, outer, marks)
        for line in (*(f"xfrm state add {sa} {rest}" for sa, rest in end.states(tunnel)), *end.policies(tunnel))
    )


def manual_rekey(topology: Peered, outer: Family = 4, *, marks: bool = False) -> None:
    """New SAs for every tunnel, then those of manual_keys() deleted, as a daemon would. Once."""
    new = list(_ends(topology, outer, marks, REKEYED))
    _batches((ns, f"xfrm state add {sa} {rest}") for ns, tunnel, end in new for sa, rest in end.states(tunnel))
    old = _ends(topology, outer, marks)
    _batches((ns, f"xfrm state delete {sa}") for ns, tunnel, end in old for sa, _ in end.states(tunnel))
