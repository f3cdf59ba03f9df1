"""Security associations and policies, as the kernel reports them. No field can hold a key.

Named tuples rather than dataclasses: a dump of 100 000 SAs makes one object each, and a tuple is made in C.
"""

from enum import IntEnum, StrEnum
from struct import Struct
from typing import Any, NamedTuple, Self


class Mode(IntEnum):
    """XFRM_MODE_* of include/uapi/linux/xfrm.h."""

    TRANSPORT = 0
    TUNNEL = 1
    ROUTEOPTIMIZATION = 2
    IN_TRIGGER = 3
    BEET = 4
    IPTFS = 5


class Direction(StrEnum):
    """Which way a packet goes, seen from this router. FORWARD is a direction of policies only."""

    IN = "in"
    OUT = "out"
    FORWARD = "fwd"


class Mark(NamedTuple):
    """Matches packets whose mark, masked, equals `value`."""

    value: int
    mask: int


class Selector(NamedTuple):
    """Which inner packets: prefixes as "10.1.0.0/16", ports with their masks (0/0 is any), `proto` 0 is any.

    `family` 0 (of a larval SA, or one that takes packets of either family): prefixes are written in the SA's own.
    """

    family: int
    src: str
    dst: str
    proto: int = 0
    sport: int = 0
    sport_mask: int = 0
    dport: int = 0
    dport_mask: int = 0
    ifindex: int = 0
    user: int = 0


class Encap(NamedTuple):
    """UDP (type 2) or TCP (type 7) encapsulation, ports as on the wire."""

    type: int
    sport: int
    dport: int
    original_address: str | None = None


class Offload(NamedTuple):
    """What a device does for the SA: with XFRM_OFFLOAD_PACKET (4) in `flags` the whole ESP path, else crypto only."""

    ifindex: int
    flags: int

    @property
    def packet(self) -> bool:
        """True where the device does the whole ESP path (XFRM_OFFLOAD_PACKET, since 6.2)."""
        return bool(self.flags & 4)


class Lifetime(NamedTuple):
    """Limits of an SA or policy: bytes and packets, seconds since added and since first used. None is no limit."""

    soft_bytes: int | None = None
    hard_bytes: int | None = None
    soft_packets: int | None = None
    hard_packets: int | None = None
    soft_add_seconds: int | None = None
    hard_add_seconds: int | None = None
    soft_use_seconds: int | None = None
    hard_use_seconds: int | None = None


class Counters(NamedTuple):
    """Used so far. `add_time`, `use_time`: seconds since the epoch; `use_time` None: never used."""

    bytes: int
    packets: int
    add_time: int
    use_time: int | None


class Replay(NamedTuple):
    """Sequence state, 64 bit (with ESN both halves joined). `window` in packets."""

    oseq: int
    seq: int
    window: int
    esn: bool


class Iptfs(NamedTuple):
    """IP-TFS settings (kernel 6.14); None where the kernel did not give one. Times in microseconds."""

    drop_time: int | None = None
    reorder_window: int | None = None
    dont_frag: bool = False
    init_delay: int | None = None
    max_queue_size: int | None = None
    packet_size: int | None = None


MOVING = Struct("=QQQQQQI?")
"""What changes with every packet of an SA, its counters (0: not used yet) and its replay state, as it is held: objects
and their numbers, which no two SAs share, take 160 bytes more, and 100 000 SAs are held at a time."""


def _moving(counters: Counters, replay: Replay) -> bytes:
    octets, packets, added, used = counters
    return MOVING.pack(octets, packets, added, used or 0, *replay)


class _Stored(NamedTuple):
    """An SA as it is held."""

    family: int
    src: str
    dst: str
    proto: int
    spi: int
    reqid: int
    mode: int
    flags: int
    moving: bytes
    lifetime: Lifetime
    selector: Selector
    replay_window_errors: int
    replay_errors: int
    integrity_errors: int
    algorithm: str | None = None  # "rfc4106(gcm(aes))", or "cbc(aes)" for the cipher of a separate pair
    auth_algorithm: str | None = None
    icv_bits: int | None = None
    if_id: int = 0
    mark: Mark | None = None
    direction: Direction | None = None
    pcpu: int | None = None
    encap: Encap | None = None
    offload: Offload | None = None
    extra_flags: int = 0
    last_used: int | None = None
    output_mark: Mark | None = None
    tfc_pad: int | None = None
    iptfs: Iptfs | None = None
    key_bits: int | None = None  # length of the key of `algorithm`; the key itself never leaves the kernel
    auth_key_bits: int | None = None
    compression: str | None = None  # "deflate", of an IPComp SA
    acquire_sequence: int = 0  # what the acquire that asked for it was numbered; 0 for none
    nat_keepalive_seconds: int | None = None
    mapping_threshold_seconds: int | None = None
    care_of_address: str | None = None


class SA(_Stored):
    """One security association. `direction` is XFRMA_SA_DIR (kernel 6.10), None where the kernel did not say."""

    __slots__ = ()

    def __new__(cls, *, counters: Counters, replay: Replay, **rest: Any) -> Self:
        return super().__new__(cls, moving=_moving(counters, replay), **rest)

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle, which would call __new__ with what is stored: the lab's namespaces are processes of their own."""
        return type(self)._make, (tuple(self),)

    def _replace(self, **changes: Any) -> Self:
        if not changes.keys().isdisjoint(("counters", "replay")):
            counters, replay = changes.pop("counters", self.counters), changes.pop("replay", self.replay)
            changes["moving"] = _moving(counters, replay)
        return super()._replace(**changes)

    @property
    def counters(self) -> Counters:
        """What it has carried."""
        octets, packets, added, used = MOVING.unpack(self.moving)[:4]
        return Counters(octets, packets, added, used or None)

    @property
    def replay(self) -> Replay:
        """Its sequence numbers."""
        return Replay._make(MOVING.unpack(self.moving)[4:])

    @property
    def key(self) -> tuple[str, int, int]:
        """(destination, SPI, protocol): what names an SA on the wire (RFC 4301 section 4.1)."""
        return (self.dst, self.spi, self.proto)

    @property
    def larval(self) -> bool:
        """True for the placeholder of an allocated SPI or a pending acquire, which carries no traffic."""
        return self.algorithm is None and self.auth_algorithm is None and self.compression is None


class Template(NamedTuple):
    """What a policy asks of a packet: the SA (bundle element) that must have, or will, carry it."""

    family: int
    src: str
    dst: str
    proto: int
    spi: int
    reqid: int
    mode: int
    optional: bool = False
    share: int = 0
    auth_algorithms: int = 0xFFFFFFFF  # bit masks of algorithm numbers that are allowed (aalgos, ealgos, calgos)
    algorithms: int = 0xFFFFFFFF
    compressions: int = 0xFFFFFFFF


class Policy(NamedTuple):
    """One SPD entry. `action` 0 allows (or protects, with templates), 1 blocks."""

    selector: Selector
    direction: Direction
    policy_index: int
    priority: int
    action: int
    templates: tuple[Template, ...] = ()
    if_id: int = 0
    mark: Mark | None = None
    flags: int = 0
    type: int = 0
    offload: Offload | None = None
    counters: Counters | None = None
    lifetime: Lifetime | None = None
    socket: bool = False  # set on one socket by its program (an IKE daemon's own), not an entry of the SPD

    @property
    def demand(self) -> Template | None:
        """The SA that packets it matches must go through; None where it lets them pass without one, or blocks them."""
        if not self.action:
            for template in self.templates:  # a loop: next() takes twice as long, and every plan asks every policy
                if not template.optional:
                    return template
        return None

    @property
    def protects(self) -> bool:
        """True where the packets it matches must go through an SA."""
        return self.demand is not None
