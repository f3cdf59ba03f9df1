"""SAs and policies without an IKE daemon, by `ip xfrm`: for measurements, and for tests that are not about IKE."""

import secrets
from dataclasses import dataclass
from typing import Protocol

from flowfast.lab.netns import Netns
from flowfast.lab.topology import Family, Peering, Tunnel, wan_address

SPI_OUT, SPI_IN = 0x1000, 0x2000
"""SPIs of the first tunnel are one more than these, seen from gw1 (or the hub); those of the others count up."""
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

    def commands(self, tunnel: Tunnel) -> list[str]:
        """What `ip -batch` takes: two SAs, then three policies for each family."""
        if_id = f" if_id {tunnel.if_id}" if tunnel.if_id is not None else ""
        outbound, inbound = (self.near, self.far), (self.far, self.near)
        # af-unspec: the tunnel carries both families, whatever its own is.
        lines = [
            f"xfrm state add src {source} dst {destination} proto esp spi {spi:#x} reqid {self.reqid} mode tunnel"
            f" replay-window 128 flag esn af-unspec aead rfc4106(gcm(aes)) 0x{self.key} 128{if_id}"
            for (source, destination), spi in zip((outbound, inbound), self.spis, strict=True)
        ]
        if self.mark is not None:
            lines[1] += f" output-mark {self.mark:#x} mask 0xffffffff"
        for ours, theirs in zip(tunnel.local, tunnel.remote, strict=True):
            for direction, source, destination, ends in (
                ("out", ours, theirs, outbound),
                ("in", theirs, ours, inbound),
                ("fwd", theirs, ours, inbound),
            ):
                lines.append(
                    f"xfrm policy add src {source} dst {destination} dir {direction}"
                    f" tmpl src {ends[0]} dst {ends[1]} proto esp reqid {self.reqid} mode tunnel{if_id}"
                )
        return lines


def manual_keys(topology: Peered, outer: Family = 4, *, marks: bool = False) -> None:
    """Gives every tunnel of the topology a pair of SAs (AES-GCM-128, ESN, replay window 128) with random keys.

    `outer`: the family of the gateways' addresses. `marks`: the inbound SAs of gw1 (or the hub) mark their packets,
    each tunnel's with another number (swanctl: set_mark_in). Both directions of a tunnel share a key, which no IKE
    daemon would have them do.
    """
    batches: dict[Netns, list[str]] = {}
    number = 0
    for peering in topology.peerings:
        left, right = (wan_address(side, outer) for side in peering.sides)
        for tunnel in peering.tunnels:
            number += 1
            key, spis = secrets.token_hex(20), (SPI_OUT + number, SPI_IN + number)
            one = _End(left, right, spis, number, key, MARK + number if marks else None)
            other = _End(right, left, spis[::-1], number, key)
            batches.setdefault(peering.left, []).extend(one.commands(tunnel))
            batches.setdefault(peering.right, []).extend(other.commands(tunnel.reversed()))
    for ns, lines in batches.items():
        ns.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
