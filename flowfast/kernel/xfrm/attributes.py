"""How to walk a netlink buffer, and to read the small C structs that SAs, policies and events share.

Nothing here makes an object of a key: an algorithm's header (name and lengths) is unpacked up to where its key
begins, and the next attribute is found by length. What is returned shares no memory with the buffer. A buffer whose
lengths do not fit raises DecodeError, whose text quotes nothing of the buffer.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from socket import inet_ntop, ntohs
from struct import Struct

from flowfast.kernel.xfrm import uapi
from flowfast.kernel.xfrm.uapi import Attr
from flowfast.model.errors import DecodeError
from flowfast.model.remembered import Remembered
from flowfast.model.sa import Direction, Encap, Iptfs, Lifetime, Mark, Offload, Replay, Selector

Buffer = bytes | bytearray | memoryview
Found = Mapping[int, int]
"""Where the payload of each attribute begins in a message's body, by XFRMA_* number."""

I32 = Struct("=i")
U16 = Struct("=H")
U32 = Struct("=I")
U64 = Struct("=Q")

_PAYLOADS: Mapping[int, int] = {
    Attr.ALG_AUTH: uapi.ALGO.size,
    Attr.ALG_CRYPT: uapi.ALGO.size,
    Attr.ALG_COMP: uapi.ALGO.size,
    Attr.ENCAP: uapi.ENCAP_TMPL.size,
    Attr.SA: uapi.USERSA_INFO.size,
    Attr.POLICY: uapi.USERPOLICY_INFO.size,
    Attr.LTIME_VAL: uapi.LIFETIME_CUR.size,
    Attr.REPLAY_VAL: uapi.REPLAY_STATE.size,
    Attr.REPLAY_THRESH: 4,
    Attr.ETIMER_THRESH: 4,
    Attr.SRCADDR: 16,
    Attr.COADDR: 16,
    Attr.LASTUSED: 8,
    Attr.POLICY_TYPE: uapi.USERPOLICY_TYPE.size,
    Attr.MIGRATE: uapi.USER_MIGRATE.size,
    Attr.ALG_AEAD: uapi.ALGO_AEAD.size,
    Attr.ALG_AUTH_TRUNC: uapi.ALGO_AUTH.size,
    Attr.MARK: uapi.MARK.size,
    Attr.TFCPAD: 4,
    Attr.REPLAY_ESN_VAL: uapi.REPLAY_STATE_ESN.size,
    Attr.SA_EXTRA_FLAGS: 4,
    Attr.OFFLOAD_DEV: uapi.USER_OFFLOAD.size,
    Attr.SET_MARK: 4,
    Attr.SET_MARK_MASK: 4,
    Attr.IF_ID: 4,
    Attr.MTIMER_THRESH: 4,
    Attr.SA_DIR: 1,
    Attr.NAT_KEEPALIVE_INTERVAL: 4,
    Attr.SA_PCPU: 4,
    Attr.IPTFS_DROP_TIME: 4,
    Attr.IPTFS_REORDER_WINDOW: 2,
    Attr.IPTFS_INIT_DELAY: 4,
    Attr.IPTFS_MAX_QSIZE: 4,
    Attr.IPTFS_PKT_SIZE: 4,
}


def least(payloads: Mapping[int, int]) -> tuple[int, ...]:
    """The lengths that attributes must have, header included, by number."""
    return tuple(4 + payloads.get(kind, 0) for kind in range(max(payloads) + 1))


_LEAST = least(_PAYLOADS)

_MARK = int(Attr.MARK)
_IPTFS = frozenset(range(Attr.IPTFS_DROP_TIME, Attr.IPTFS_PKT_SIZE + 1))
_SA_DIRECTIONS = {uapi.SA_DIR_IN: Direction.IN, uapi.SA_DIR_OUT: Direction.OUT}

_header = uapi.NLMSGHDR.unpack_from
_attribute = uapi.NLATTR.unpack_from
_algo = uapi.ALGO.unpack_from
_algo_icv = uapi.ALGO_AEAD.unpack_from
_replay_esn = uapi.REPLAY_STATE_ESN.unpack_from
_ALGO_ICV_SIZE = uapi.ALGO_AEAD.size
_REPLAY_ESN_SIZE = uapi.REPLAY_STATE_ESN.size
new = tuple.__new__  # a named tuple's own constructor is written in Python, and takes twice as long


def corrupt(what: str) -> DecodeError:
    """The one exception of all decoders. `what` names the part that is wrong and quotes nothing of it."""
    return DecodeError(f"xfrm: corrupt netlink message: {what}")


def require(body: memoryview, size: int) -> None:
    """Raises DecodeError where a message has fewer bytes than its struct."""
    if len(body) < size:
        raise corrupt("a message is too short for its type")


def messages(buffer: Buffer) -> Iterator[tuple[int, int, memoryview]]:
    """Each netlink message of a datagram as (type, flags, body), the body being a window on the buffer.

    Raises DecodeError where a length does not fit.
    """
    view = memoryview(buffer)
    at, stop = 0, len(view)
    while at < stop:
        if stop - at < 16:
            raise corrupt("a header is cut off")
        length, kind, flags, _, _ = _header(view, at)
        end = at + length
        if length < 16 or end > stop:
            raise corrupt("a message's length does not fit")
        yield kind, flags, view[at + 16 : end]
        at += (length + 3) & ~3


def attributes(body: memoryview, begin: int, lengths: Sequence[int] = _LEAST) -> Found:
    """The attributes of a message, from an offset to its end. Of those that repeat, the last one counts.

    An attribute that is shorter than its type demands (`lengths`, by number) is refused; those of later kernels are
    let through. Raises DecodeError.
    """
    found: dict[int, int] = {}
    require(body, begin)
    at, end = begin, len(body)
    while at < end:
        if end - at < 4:
            raise corrupt("an attribute's header is cut off")
        length, kind = _attribute(body, at)
        if at + length > end or length < 4 or (kind < len(lengths) and length < lengths[kind]):
            raise corrupt(f"the length of attribute {kind} does not fit")
        found[kind] = at + 4
        at += (length + 3) & ~3
    return found


def repeated(body: memoryview, begin: int, kind: int) -> list[int]:
    """Where the payloads of all attributes of one kind begin, in a body that attributes() has let through."""
    found, at = [], begin
    while at < len(body):
        length, each = _attribute(body, at)
        if each == kind:
            found.append(at + 4)
        at += (length + 3) & ~3
    return found


class Shapes:
    """attributes() for many messages of which most look alike, as the SAs of a dump do.

    The headers of all attributes are read in one go, and compared with those of the last message of that length:
    three times as fast as walking from one to the next.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Struct, tuple[int, ...], Found]] = {}

    def attributes(self, body: memoryview, begin: int) -> Found:
        """What attributes() gives for this message. Raises DecodeError."""
        known = self._known.get(len(body))
        if known is not None and known[0].unpack_from(body) == known[1]:
            return known[2]
        found = attributes(body, begin)
        sizes = [payload_size(body, at) for at in found.values()]
        headers = Struct(f"={begin}x" + "".join(f"HH{size + -size % 4}x" for size in sizes))
        if headers.size == len(body):  # else one repeats, and would not be compared
            self._known[len(body)] = headers, headers.unpack_from(body), found
        return found


def payload_size(body: memoryview, at: int) -> int:
    """Bytes in the payload that begins at an offset that attributes() gave."""
    length: int = _attribute(body, at - 4)[0]
    return length - 4


def u32(body: memoryview, found: Found, kind: int) -> int | None:
    """A 32-bit attribute, or None."""
    at = found.get(kind)
    return None if at is None else int(U32.unpack_from(body, at)[0])


ipv4 = Remembered[bytes, str](lambda raw: inet_ntop(uapi.AF_INET, raw[:4]), limit=1 << 18)
"""An xfrm_address_t (16 bytes, of which IPv4 uses the first 4) as text."""
ipv6 = Remembered[bytes, str](lambda raw: inet_ntop(uapi.AF_INET6, raw), limit=1 << 18)

shared = Remembered[int, int](lambda number: number)
"""Numbers that many SAs have, as one object each: seconds, reqids. 32 bytes less for every SA that repeats one."""


def address(family: int, raw: bytes) -> str:
    """An xfrm_address_t of either family as text. Raises DecodeError for another family."""
    if family == uapi.AF_INET:
        return ipv4[raw]
    if family == uapi.AF_INET6:
        return ipv6[raw]
    raise corrupt("an address is of neither IP family")


def selector(raw: bytes, owner: int = uapi.AF_INET6) -> Selector:
    """A struct xfrm_selector, 56 bytes, of an SA of family `owner`. Raises DecodeError.

    A larval SA's selector has addresses but no family (xfrm_init_tempstate()): they are of the SA's.
    """
    known = _selectors.get(owner)
    return known[raw] if known is not None else _selector(raw, owner)


def _selector(raw: bytes, owner: int) -> Selector:
    # fmt: off
    dst, src, dport, dport_mask, sport, sport_mask, family, dst_bits, src_bits, proto, ifindex, user = (
        uapi.SELECTOR.unpack(raw))
    # fmt: on
    of = family or owner
    if dst_bits > 128 or src_bits > 128 or (of == uapi.AF_INET and (dst_bits > 32 or src_bits > 32)):
        raise corrupt("a selector's prefix is too long")
    ends = family, f"{address(of, src)}/{src_bits}", f"{address(of, dst)}/{dst_bits}"
    ports = ntohs(sport), ntohs(sport_mask), ntohs(dport), ntohs(dport_mask)
    return new(Selector, (*ends, proto, *ports, ifindex, user))


_selectors = {
    family: Remembered[bytes, Selector](partial(_selector, owner=family), limit=1 << 17)
    for family in (uapi.AF_INET, uapi.AF_INET6)
}


@lru_cache(maxsize=1 << 12)
def lifetime(raw: bytes) -> Lifetime:
    """A struct xfrm_lifetime_cfg, 64 bytes: XFRM_INF means no limit, and so does 0 where seconds are meant."""
    values = uapi.LIFETIME_CFG.unpack(raw)
    sizes = (None if value == uapi.NO_LIMIT else value for value in values[:4])
    return Lifetime(*sizes, *(value or None for value in values[4:]))


@lru_cache(maxsize=1 << 10)
def name(raw: bytes) -> str:
    """An algorithm's name: 64 bytes, printable and ended by a NUL. Raises DecodeError."""
    text, end, _ = raw.partition(b"\0")
    if not end or not text or not text.isascii() or not text.decode("ascii").isprintable():
        raise corrupt("an algorithm's name is not text")
    return text.decode("ascii")


def algorithm(body: memoryview, at: int) -> tuple[str, int]:
    """Name and key bits of a struct xfrm_algo. The key behind it is stepped over. Raises DecodeError."""
    raw, key_bits = _algo(body, at)
    if _attribute(body, at - 4)[0] < 4 + uapi.ALGO.size + (key_bits + 7) // 8:
        raise corrupt("a key is cut off")
    return name(raw), key_bits


def algorithm_icv(body: memoryview, at: int) -> tuple[str, int, int]:
    """Name, key bits and ICV bits of a struct xfrm_algo_aead or xfrm_algo_auth; the key is stepped over."""
    raw, key_bits, icv_bits = _algo_icv(body, at)
    if _attribute(body, at - 4)[0] < 4 + _ALGO_ICV_SIZE + (key_bits + 7) // 8:
        raise corrupt("a key is cut off")
    return name(raw), key_bits, icv_bits


def replay_esn(body: memoryview, at: int, esn: bool) -> Replay:
    """A struct xfrm_replay_state_esn. Raises DecodeError where its bitmap is cut off."""
    words, oseq, seq, oseq_hi, seq_hi, window = _replay_esn(body, at)
    if _attribute(body, at - 4)[0] < 4 + _REPLAY_ESN_SIZE + 4 * words:
        raise corrupt("a replay bitmap is cut off")
    return new(Replay, (oseq_hi << 32 | oseq, seq_hi << 32 | seq, window, esn))


def replay(body: memoryview, at: int, window: int) -> Replay:
    """A struct xfrm_replay_state, of an SA without XFRMA_REPLAY_ESN_VAL."""
    oseq, seq, _ = uapi.REPLAY_STATE.unpack_from(body, at)
    return new(Replay, (oseq, seq, window, False))


def encap(body: memoryview, found: Found, family: int) -> Encap | None:
    """XFRMA_ENCAP, where the message has one. Raises DecodeError."""
    at = found.get(Attr.ENCAP)
    if at is None:
        return None
    kind, sport, dport, original = uapi.ENCAP_TMPL.unpack_from(body, at)
    return Encap(kind, ntohs(sport), ntohs(dport), address(family, original) if any(original) else None)


_marks = Remembered[tuple[int, int], Mark](Mark._make)


def one_mark(value: int, mask: int) -> Mark:
    """The Mark of these two numbers: one object for all that have it."""
    return _marks[value, mask]


def mark(body: memoryview, found: Found) -> Mark | None:
    """XFRMA_MARK, where the message has one."""
    at = found.get(_MARK)
    return None if at is None else one_mark(*uapi.MARK.unpack_from(body, at))


def output_mark(body: memoryview, found: Found) -> Mark | None:
    """XFRMA_SET_MARK and XFRMA_SET_MARK_MASK (without which the mask is full, xfrm_smark_init())."""
    value = u32(body, found, Attr.SET_MARK)
    mask = u32(body, found, Attr.SET_MARK_MASK)
    return None if value is None else one_mark(value, 0xFFFFFFFF if mask is None else mask)


def offload(body: memoryview, found: Found) -> Offload | None:
    """XFRMA_OFFLOAD_DEV, where the message has one."""
    at = found.get(Attr.OFFLOAD_DEV)
    return None if at is None else Offload._make(uapi.USER_OFFLOAD.unpack_from(body, at))


def sa_direction(value: int) -> Direction:
    """XFRMA_SA_DIR (kernel 6.10). Raises DecodeError."""
    direction = _SA_DIRECTIONS.get(value)
    if direction is None:
        raise corrupt("an SA's direction is neither in nor out")
    return direction


def iptfs(body: memoryview, found: Found) -> Iptfs | None:
    """XFRMA_IPTFS_* (kernel 6.14), where the message has one of them."""
    if found.keys().isdisjoint(_IPTFS):
        return None
    window = found.get(Attr.IPTFS_REORDER_WINDOW)
    return Iptfs(
        drop_time=u32(body, found, Attr.IPTFS_DROP_TIME),
        reorder_window=None if window is None else U16.unpack_from(body, window)[0],
        dont_frag=Attr.IPTFS_DONT_FRAG in found,
        init_delay=u32(body, found, Attr.IPTFS_INIT_DELAY),
        max_queue_size=u32(body, found, Attr.IPTFS_MAX_QSIZE),
        packet_size=u32(body, found, Attr.IPTFS_PKT_SIZE),
    )
