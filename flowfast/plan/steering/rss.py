"""RSS: which queue a NIC's hash sends a packet to, and the table that has each SA on the queue of its CPU.

The Toeplitz hash is that of Microsoft's "RSS hashing functions", which NICs and virtio (1.2, 5.1.6.4.3) share; what is
hashed of an ESP packet is the NIC's own affair: addresses, then the SPI where it looks at that at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from flowfast.model.knob import Denial, Knob, KnobKind
from flowfast.model.machine import Rss
from flowfast.model.sa import SA

WIDE = frozenset(("src", "dst", "sport", "dport"))
"""What ethtool calls "sdfn": of an ESP packet, whose SPI lies where ports would, addresses and SPI."""


def toeplitz(key: bytes, data: bytes) -> int:
    """The 32-bit Toeplitz hash of `data`. `key` has 4 bytes more than the data, at least; else ValueError."""
    if len(key) < len(data) + 4:
        raise ValueError(f"a key of {len(key)} bytes hashes {len(key) - 4} bytes at most, not {len(data)}")
    bits, length, found = int.from_bytes(key), len(key) * 8, 0
    for number, byte in enumerate(data):
        for bit in range(8):
            if byte >> (7 - bit) & 1:
                found ^= bits >> (length - 32 - number * 8 - bit) & 0xFFFFFFFF
    return found


def kind_of(sa: SA) -> str:
    """What a NIC takes the SA's packets for: "esp4", or "udp6" where it is encapsulated."""
    return f"{'udp' if sa.encap is not None else 'esp'}{'6' if ':' in sa.dst else '4'}"


def hash_of(rss: Rss, sa: SA) -> int | None:
    """The hash of an inbound SA's packets; None where key, fields or the peer's port are not known."""
    fields = rss.fields.get(kind_of(sa))
    if rss.key is None or not fields or port_unknown(sa):  # none: it is hashed in a way that the driver does not tell
        return None
    parts = {"src": ip_address(sa.src).packed, "dst": ip_address(sa.dst).packed}
    if sa.encap is None:
        parts |= {"spi": sa.spi.to_bytes(4), "sport": b"", "dport": b""}
    else:
        parts |= {"sport": sa.encap.sport.to_bytes(2), "dport": sa.encap.dport.to_bytes(2), "spi": b""}
    if not fields <= parts.keys():
        return None  # a VLAN's tag, a flow label
    return toeplitz(rss.key, b"".join(part for name, part in parts.items() if name in fields))


def tells_apart(rss: Rss, sa: SA) -> bool:
    """Whether the hash differs at all between the SAs of one peer."""
    fields = rss.fields.get(kind_of(sa), frozenset())
    return bool(fields & ({"sport"} if sa.encap is not None else {"spi"}))


def port_unknown(sa: SA) -> bool:
    """Whether the peer sends from a UDP port that only its packets tell: strongSwan's per_cpu_sas = encap."""
    return sa.encap is not None and sa.encap.sport == 0


def foresees(rss: Rss, sa: SA) -> bool:
    """Whether the SA's queue can be told beforehand, and is not that of all SAs of its peer."""
    return tells_apart(rss, sa) and hash_of(rss, sa) is not None


def hash_knob(device: str, kind: str) -> Knob:
    """What is hashed of such packets; "sdfn" is WIDE."""
    return Knob(KnobKind.RSS, device, f"rx-flow-hash {kind}")


def widenable(device: str, rss: Rss, sas: Iterable[SA], denied: Mapping[Knob, Denial]) -> frozenset[str]:
    """Kinds of packets of which WIDE is to be hashed: it is already, or the SAs of a peer would not be told apart.

    Not those that the driver would not have so, nor those of which it does not tell what it hashes.
    """
    found = set()
    for sa in sas:
        fields, kind = rss.fields.get(kind_of(sa), frozenset()), kind_of(sa)
        wants = fields - {"spi"} == WIDE or (fields and not tells_apart(rss, sa))
        if wants and hash_knob(device, kind) not in denied:
            found.add(kind)
    return frozenset(found)


def widened(device: str, rss: Rss, sas: Iterable[SA], denied: Mapping[Knob, Denial]) -> Rss:
    """The hash as it will be once that is so."""
    kinds = widenable(device, rss, sas, denied)
    return replace(rss, fields={**rss.fields, **{kind: WIDE | {"spi"} for kind in kinds}})


@dataclass(frozen=True, slots=True)
class Spread:
    """The indirection table that is wanted, and the SAs that share a slot with one of another CPU."""

    table: tuple[int, ...]
    collisions: tuple[tuple[SA, SA], ...]


def fit(rss: Rss, wanted: Iterable[tuple[SA, int]], queues: Mapping[int, int]) -> Spread:
    """Each SA's slot to the queue of its CPU; the first SA has a slot that two want. Other slots stay as they are.

    `wanted`: inbound SAs and their CPUs; `queues`: CPU -> queue.
    """
    table, taken = list(rss.table), dict[int, SA]()
    collisions = []
    for sa, cpu in wanted:
        found = hash_of(rss, sa)
        if found is None or cpu not in queues or not table:
            continue
        slot = found % len(table)
        if slot in taken and table[slot] != queues[cpu]:
            collisions.append((taken[slot], sa))
            continue
        taken[slot], table[slot] = sa, queues[cpu]
    return Spread(tuple(table), tuple(collisions))


def all_apart(balls: int, bins: int) -> float:
    """The chance that so many SAs, hashed onto so many queues or CPUs, all get one of their own."""
    chance = 1.0
    for number in range(balls):
        chance *= max(bins - number, 0) / bins if bins else 0.0
    return chance


def distinct(balls: int, bins: int) -> float:
    """How many of the queues or CPUs get an SA at all, on average."""
    return bins * (1 - (1 - 1 / bins) ** balls) if bins else 0.0


def spis(sas: Sequence[SA]) -> str:
    """SPIs for a sentence."""
    return ", ".join(f"0x{sa.spi:08x}" for sa in sas)
