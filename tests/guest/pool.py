"""Peers of remote access, with addresses from a pool: gw2 of two gateways plays all of them."""

import secrets
from collections.abc import Iterable

from flowfast.lab.topology import TwoGateways

KEY = secrets.token_hex(20)
POOL = "10.99.0.0/16"
LATER = 0x8000
"""Added to the SPIs of a peer's next SAs."""


def outer(peer: int) -> str:
    """The address of a peer on the WAN."""
    return f"192.0.2.{100 + peer}"


def pooled(peer: int) -> str:
    """The address that a peer was given."""
    return f"10.99.0.{peer}"


def _sas(peer: int, more: int = 0) -> list[tuple[str, str]]:
    """(SA, rest of the command that adds it) of one peer, for `ip -batch`."""
    ends = (("192.0.2.1", outer(peer), 0x1000 + peer), (outer(peer), "192.0.2.1", 0x2000 + peer))
    keyed = f"replay-window 128 flag esn aead rfc4106(gcm(aes)) 0x{KEY} 128"
    return [
        (f"src {source} dst {destination} proto esp spi {spi + more:#x}", f"reqid {peer} mode tunnel {keyed}")
        for source, destination, spi in ends
    ]


def commands(peer: int, *, hub: bool) -> list[str]:
    """The SAs and policies of one peer, at either end, for `ip -batch`."""
    lines = [f"xfrm state add {sa} {rest}" for sa, rest in _sas(peer)]
    ends, mirrored = ("192.0.2.1", outer(peer)), (outer(peer), "192.0.2.1")
    policies = [("10.1.0.0/16", f"{pooled(peer)}/32", ends), (f"{pooled(peer)}/32", "10.1.0.0/16", mirrored)]
    for (source, destination, (near, far)), outbound in zip(policies, (hub, not hub), strict=True):
        for direction in ("out",) if outbound else ("in", "fwd"):
            lines.append(
                f"xfrm policy add src {source} dst {destination} dir {direction}"
                f" tmpl src {near} dst {far} proto esp reqid {peer} mode tunnel"
            )
    return lines


def come(topo: TwoGateways, peers: Iterable[int]) -> None:
    """These peers connect."""
    both: tuple[list[str], list[str]] = ([], [])
    for peer in peers:
        both[0].extend(commands(peer, hub=True))
        both[1].extend([f"addr add {outer(peer)}/24 dev wan0", f"addr add {pooled(peer)}/32 dev lo"])
        both[1].extend(commands(peer, hub=False))
    for ns, lines in zip((topo.gw1, topo.gw2), both, strict=True):
        ns.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")


def go(topo: TwoGateways, peer: int) -> None:
    """One peer goes."""
    for ns in (topo.gw1, topo.gw2):
        policies = [line for line in commands(peer, hub=ns is topo.gw1) if line.startswith("xfrm policy")]
        lines = [line.replace("policy add", "policy delete").split(" tmpl")[0] for line in policies]
        lines.append(f"xfrm state deleteall reqid {peer}")
        ns.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")


def rekey(topo: TwoGateways, peers: Iterable[int]) -> None:
    """New SAs for these peers, then the old ones deleted. Once."""
    for number, verb in enumerate(("add", "delete")):
        lines = [
            f"xfrm state {verb} {sa} {'' if number else rest}"
            for peer in peers
            for sa, rest in _sas(peer, 0 if number else LATER)
        ]
        for ns in (topo.gw2, topo.gw1):
            ns.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
