"""From the model to netlink bytes: the body of each request, as a bytearray that its owner can wipe.

Raises UsageError for an address, prefix or number that cannot be written; everything else is the kernel's to judge.
"""

from collections.abc import Iterable
from socket import htonl, htons, inet_pton
from struct import Struct, error

from flowfast.kernel.xfrm import uapi
from flowfast.kernel.xfrm.attributes import U16, U32
from flowfast.kernel.xfrm.config import Aead, Auth, Crypt, KeyBytes, SAConfig
from flowfast.kernel.xfrm.events import Migration
from flowfast.kernel.xfrm.uapi import Attr, SpdAttr, StateFlag
from flowfast.model.errors import UsageError
from flowfast.model.sa import (
    Counters,
    Direction,
    Encap,
    Iptfs,
    Lifetime,
    Mark,
    Offload,
    Policy,
    Replay,
    Selector,
    Template,
)

_POLICY_DIRECTIONS = {
    Direction.IN: uapi.POLICY_IN,
    Direction.OUT: uapi.POLICY_OUT,
    Direction.FORWARD: uapi.POLICY_FWD,
}
_SA_DIRECTIONS = {Direction.IN: uapi.SA_DIR_IN, Direction.OUT: uapi.SA_DIR_OUT}
_BITMAP_WINDOW = 32  # packets; what the bitmap of struct xfrm_replay_state can hold


def pack(struct: Struct, *values: int | bytes | bytearray) -> bytes:
    """Struct.pack(), with a UsageError where a number does not fit."""
    try:
        return struct.pack(*values)
    except error as exc:
        raise UsageError(f"xfrm: a number does not fit its field: {exc}") from exc


def family_of(address: str) -> int:
    """AF_INET or AF_INET6, by how the address is written."""
    return uapi.AF_INET6 if ":" in address else uapi.AF_INET


def address(text: str) -> bytes:
    """An xfrm_address_t: 16 bytes, of which IPv4 uses the first 4. Raises UsageError."""
    try:
        return inet_pton(family_of(text), text).ljust(16, b"\0")
    except OSError as exc:
        raise UsageError(f"xfrm: {text!r} is not an IP address") from exc


def _prefix(text: str) -> tuple[bytes, int]:
    host, _, bits = text.partition("/")
    longest = 32 if family_of(host) == uapi.AF_INET else 128
    if bits and not (bits.isdecimal() and int(bits) <= longest):
        raise UsageError(f"xfrm: {text!r} is not an IP prefix")
    return address(host), int(bits) if bits else longest


def selector(value: Selector) -> bytes:
    """A struct xfrm_selector. Raises UsageError."""
    src, src_bits = _prefix(value.src)
    dst, dst_bits = _prefix(value.dst)
    ports = (htons(port) for port in (value.dport, value.dport_mask, value.sport, value.sport_mask))
    ends = (value.family, dst_bits, src_bits, value.proto, value.ifindex, value.user)
    return pack(uapi.SELECTOR, dst, src, *ports, *ends)


def lifetime(value: Lifetime) -> bytes:
    """A struct xfrm_lifetime_cfg."""
    sizes = (uapi.NO_LIMIT if limit is None else limit for limit in value[:4])
    return pack(uapi.LIFETIME_CFG, *sizes, *(limit or 0 for limit in value[4:]))


def add(body: bytearray, kind: int, payload: bytes | bytearray) -> None:
    """Appends one attribute, padded to 4 bytes."""
    body += uapi.NLATTR.pack(4 + len(payload), kind)
    body += payload
    body += bytes(-len(payload) % 4)


def add_u32(body: bytearray, kind: int, value: int | None) -> None:
    """Appends a 32-bit attribute, unless it is None."""
    if value is not None:
        add(body, kind, pack(U32, value))


def _add_key(body: bytearray, kind: int, header: bytes, key: KeyBytes) -> None:
    """Appends an algorithm: the key goes from the caller's object into the request, and nowhere between."""
    body += uapi.NLATTR.pack(4 + len(header) + len(key), kind)
    body += header
    body += key
    body += bytes(-len(key) % 4)


def _name(text: str) -> bytes:
    raw = text.encode("ascii", "replace")
    if not raw or len(raw) >= uapi.ALGORITHM_NAME_BYTES:
        raise UsageError(f"xfrm: {text!r} is not the name of an algorithm")
    return raw


def _algorithms(body: bytearray, aead: Aead | None, crypt: Crypt | None, auth: Auth | None) -> None:
    if aead is not None:
        header = pack(uapi.ALGO_AEAD, _name(aead.name), len(aead.key) * 8, aead.icv_bits)
        _add_key(body, Attr.ALG_AEAD, header, aead.key)
    if crypt is not None:
        _add_key(body, Attr.ALG_CRYPT, pack(uapi.ALGO, _name(crypt.name), len(crypt.key) * 8), crypt.key)
    if auth is not None:
        header = pack(uapi.ALGO_AUTH, _name(auth.name), len(auth.key) * 8, auth.icv_bits)
        _add_key(body, Attr.ALG_AUTH_TRUNC, header, auth.key)


def replay_esn(value: Replay) -> bytes:
    """A struct xfrm_replay_state_esn with an empty bitmap of as many words as the window needs."""
    words = (value.window + 31) // 32
    low = 0xFFFFFFFF
    numbers = (value.oseq & low, value.seq & low, value.oseq >> 32, value.seq >> 32)
    return pack(uapi.REPLAY_STATE_ESN, words, *numbers, value.window) + bytes(4 * words)


def replay(value: Replay) -> bytes:
    """A struct xfrm_replay_state, which an SA with a window of up to 32 packets and no ESN has."""
    return pack(uapi.REPLAY_STATE, value.oseq, value.seq, 0)


def encap(value: Encap) -> bytes:
    """A struct xfrm_encap_tmpl."""
    original = bytes(16) if value.original_address is None else address(value.original_address)
    return pack(uapi.ENCAP_TMPL, value.type, htons(value.sport), htons(value.dport), original)


def counters(value: Counters) -> bytes:
    """A struct xfrm_lifetime_cur."""
    return pack(uapi.LIFETIME_CUR, value.bytes, value.packets, value.add_time, value.use_time or 0)


def add_mark(body: bytearray, mark: Mark | None) -> None:
    """Appends XFRMA_MARK, unless it is None."""
    if mark is not None:
        add(body, Attr.MARK, pack(uapi.MARK, *mark))


def add_offload(body: bytearray, offload: Offload | None) -> None:
    """Appends XFRMA_OFFLOAD_DEV, unless it is None."""
    if offload is not None:
        add(body, Attr.OFFLOAD_DEV, pack(uapi.USER_OFFLOAD, *offload))


def add_direction(body: bytearray, direction: Direction | None) -> None:
    """Appends XFRMA_SA_DIR (kernel 6.10), unless it is None. Raises UsageError for FORWARD."""
    if direction is None:
        return
    if direction not in _SA_DIRECTIONS:
        raise UsageError(f"xfrm: an SA's direction is in or out, not {direction}")
    add(body, Attr.SA_DIR, bytes([_SA_DIRECTIONS[direction]]))


def _add_iptfs(body: bytearray, value: Iptfs | None) -> None:
    if value is None:
        return
    add_u32(body, Attr.IPTFS_DROP_TIME, value.drop_time)
    if value.reorder_window is not None:
        add(body, Attr.IPTFS_REORDER_WINDOW, pack(U16, value.reorder_window))
    if value.dont_frag:
        add(body, Attr.IPTFS_DONT_FRAG, b"")
    add_u32(body, Attr.IPTFS_INIT_DELAY, value.init_delay)
    add_u32(body, Attr.IPTFS_MAX_QSIZE, value.max_queue_size)
    add_u32(body, Attr.IPTFS_PKT_SIZE, value.packet_size)


def usersa_info(config: SAConfig, window: int) -> bytes:
    """A struct xfrm_usersa_info with counters of zero. `window` is that of its one byte."""
    sel = bytes(uapi.SELECTOR.size) if config.selector is None else selector(config.selector)
    flags = config.flags | (StateFlag.ESN if config.esn else 0)
    identity = (address(config.dst), htonl(config.spi), config.proto, address(config.src))
    numbers = (config.acquire_sequence, config.reqid, family_of(config.dst), config.mode, window, flags)
    return pack(uapi.USERSA_INFO, sel, *identity, lifetime(config.lifetime), *[0] * 7, *numbers)


def sa(config: SAConfig) -> bytearray:
    """The body of NEWSA and UPDSA. It holds keys: wipe it once it is sent. Raises UsageError."""
    if not 0 <= config.spi <= 0xFFFFFFFF:
        raise UsageError(f"xfrm: {config.spi} is not an SPI (32 bits)")
    state = config.replay or Replay(0, 0, config.replay_window, config.esn)
    wide = config.esn or state.window > _BITMAP_WINDOW
    body = bytearray(usersa_info(config, 0 if wide else state.window))
    _algorithms(body, config.aead, config.crypt, config.auth)
    if config.compression is not None:
        add(body, Attr.ALG_COMP, pack(uapi.ALGO, _name(config.compression), 0))
    if wide:
        add(body, Attr.REPLAY_ESN_VAL, replay_esn(state))
    elif config.replay is not None:
        add(body, Attr.REPLAY_VAL, replay(state))
    if config.encap is not None:
        add(body, Attr.ENCAP, encap(config.encap))
    if config.care_of_address is not None:
        add(body, Attr.COADDR, address(config.care_of_address))
    add_mark(body, config.mark)
    if config.output_mark is not None:
        add_u32(body, Attr.SET_MARK, config.output_mark.value)
        add_u32(body, Attr.SET_MARK_MASK, config.output_mark.mask)
    add_u32(body, Attr.IF_ID, config.if_id or None)
    add_u32(body, Attr.SA_EXTRA_FLAGS, config.extra_flags or None)
    add_u32(body, Attr.TFCPAD, config.tfc_pad)
    add_offload(body, config.offload)
    add_direction(body, config.direction)
    add_u32(body, Attr.SA_PCPU, config.pcpu)
    add_u32(body, Attr.NAT_KEEPALIVE_INTERVAL, config.nat_keepalive_seconds)
    add_u32(body, Attr.MTIMER_THRESH, config.mapping_threshold_seconds)
    _add_iptfs(body, config.iptfs)
    return body


def sa_id(dst: str, spi: int, proto: int) -> bytes:
    """A struct xfrm_usersa_id."""
    return pack(uapi.USERSA_ID, address(dst), htonl(spi), family_of(dst), proto)


def address_filter(src: str | None, dst: str | None) -> bytes:
    """A struct xfrm_address_filter: prefixes that an SA's ends must be in; None takes any. Raises UsageError."""
    given = [_prefix(text) if text is not None else (bytes(16), 0) for text in (src, dst)]
    family = family_of(src or dst or "")
    (source, source_bits), (destination, destination_bits) = given
    return pack(uapi.ADDRESS_FILTER, source, destination, family, source_bits, destination_bits)


def aevent(dst: str, spi: int, proto: int, flags: int) -> bytearray:
    """The body of GETAE and NEWAE without attributes."""
    return bytearray(pack(uapi.AEVENT_ID, sa_id(dst, spi, proto), bytes(16), flags, 0))


def add_state(body: bytearray, state: Replay | None, used: Counters | None) -> None:
    """Appends replay state and counters for NEWAE. Only an SA with ESN or a window over 32 takes the wide form."""
    if state is not None:
        wide = state.esn or state.window > _BITMAP_WINDOW
        add(body, *((Attr.REPLAY_ESN_VAL, replay_esn(state)) if wide else (Attr.REPLAY_VAL, replay(state))))
    if used is not None:
        add(body, Attr.LTIME_VAL, counters(used))


def template(value: Template) -> bytes:
    """A struct xfrm_user_tmpl."""
    identity = (address(value.dst), htonl(value.spi), value.proto, value.family, address(value.src))
    wanted = (value.reqid, value.mode, value.share, int(value.optional))
    return pack(uapi.USER_TMPL, *identity, *wanted, value.auth_algorithms, value.algorithms, value.compressions)


def userpolicy_info(value: Policy) -> bytes:
    """A struct xfrm_userpolicy_info with counters of zero."""
    limits = lifetime(value.lifetime or Lifetime())
    numbers = (value.priority, value.policy_index, _POLICY_DIRECTIONS[value.direction], value.action, value.flags, 0)
    return pack(uapi.USERPOLICY_INFO, selector(value.selector), limits, 0, 0, 0, 0, *numbers)


def add_policy_type(body: bytearray, kind: int) -> None:
    """Appends XFRMA_POLICY_TYPE, unless it is the main type."""
    if kind:
        add(body, Attr.POLICY_TYPE, pack(uapi.USERPOLICY_TYPE, kind, 0, 0))


def policy(value: Policy) -> bytearray:
    """The body of NEWPOLICY and UPDPOLICY. Raises UsageError."""
    body = bytearray(userpolicy_info(value))
    if value.templates:
        add(body, Attr.TMPL, b"".join(template(each) for each in value.templates))
    add_key(body, value.mark, value.if_id, value.type)
    add_offload(body, value.offload)
    return body


def policy_id(value: Selector, direction: Direction, index: int = 0) -> bytearray:
    """The body of GETPOLICY and DELPOLICY without attributes: by index, or by selector where that is 0."""
    return bytearray(pack(uapi.USERPOLICY_ID, selector(value), index, _POLICY_DIRECTIONS[direction]))


def add_key(body: bytearray, mark: Mark | None, if_id: int, kind: int = 0) -> None:
    """Appends what besides its selector and direction tells a policy from others."""
    add_policy_type(body, kind)
    add_mark(body, mark)
    add_u32(body, Attr.IF_ID, if_id or None)


def migrate(value: Selector, direction: Direction, migrations: Iterable[Migration]) -> bytearray:
    """The body of MIGRATE: one attribute with all pairs of addresses."""
    body = policy_id(value, direction)
    packed = bytearray()
    for each in migrations:
        ends = (each.old_dst, each.old_src, each.new_dst, each.new_src)
        families = family_of(each.old_dst), family_of(each.new_dst)
        packed += pack(
            uapi.USER_MIGRATE, *(address(end) for end in ends), each.proto, each.mode, 0, each.reqid, *families
        )
    add(body, Attr.MIGRATE, packed)
    return body


def thresholds(pairs: Iterable[tuple[SpdAttr, tuple[int, int] | None]]) -> bytearray:
    """The body of NEWSPDINFO: prefix lengths, local and remote, from which on policies are hashed."""
    body = bytearray(4)
    for kind, pair in pairs:
        if pair is not None:
            add(body, kind, pack(uapi.SPDHTHRESH, *pair))
    return body
