"""From netlink bytes to the model: security associations and policies. Pure functions over a buffer.

The layout is that of net/xfrm/xfrm_user.c, copy_to_user_state_extra() and dump_one_policy(), kernel 7.3. A dump of
SAs holds their keys, and no decoder makes an object of one (attributes.py says how). Whatever it is fed, a decoder
returns or raises DecodeError.
"""

from collections.abc import Callable
from functools import lru_cache
from socket import ntohl
from typing import TypeVar

from flowfast.kernel.xfrm import uapi
from flowfast.kernel.xfrm.attributes import (
    U32,
    U64,
    Buffer,
    Found,
    Shapes,
    address,
    algorithm,
    algorithm_icv,
    corrupt,
    encap,
    iptfs,
    ipv4,
    ipv6,
    lifetime,
    mark,
    messages,
    new,
    offload,
    one_mark,
    output_mark,
    payload_size,
    replay,
    replay_esn,
    sa_direction,
    selector,
    shared,
    u32,
)
from flowfast.kernel.xfrm.uapi import AF_INET, AF_INET6, Attr, Msg
from flowfast.model.sa import MOVING, SA, Counters, Direction, Policy, Replay, Template

T = TypeVar("T")

# Plain ints: an IntEnum member costs three times as much to hash, and these are looked up once an SA.
_AEAD, _ESN, _REPLAY, _LASTUSED = (
    int(kind) for kind in (Attr.ALG_AEAD, Attr.REPLAY_ESN_VAL, Attr.REPLAY_VAL, Attr.LASTUSED)
)
_IF_ID, _MARK, _SA_DIR, _SA_PCPU = (int(kind) for kind in (Attr.IF_ID, Attr.MARK, Attr.SA_DIR, Attr.SA_PCPU))
_COMMON = frozenset({_AEAD, _ESN, _REPLAY, _LASTUSED, _IF_ID, _MARK, _SA_DIR, _SA_PCPU, int(Attr.PAD), int(Attr.SA)})
_ESN_FLAG = int(uapi.StateFlag.ESN)

_DIRECTIONS = {uapi.POLICY_IN: Direction.IN, uapi.POLICY_OUT: Direction.OUT, uapi.POLICY_FWD: Direction.FORWARD}

_usersa = uapi.USERSA_INFO.unpack_from
_mark = uapi.MARK.unpack_from
_moving = MOVING.pack
_u32 = U32.unpack_from
_u64 = U64.unpack_from


def sa(body: memoryview, info: int, found: Found) -> SA:
    """One SA: where its struct xfrm_usersa_info is, and its attributes. Raises DecodeError."""
    # fmt: off
    (raw_selector, dst, spi, proto, src, raw_lifetime, size, packets, added, used, window_errors, replay_errors,
     integrity_errors, sequence, reqid, family, mode, window, flags) = _usersa(body, info)
    # fmt: on
    text = ipv4 if family == AF_INET else ipv6
    get = found.get
    name = key_bits = icv_bits = None
    if at := get(_AEAD):
        name, key_bits, icv_bits = algorithm_icv(body, at)
    if at := get(_ESN):
        state = replay_esn(body, at, flags & _ESN_FLAG != 0)
    else:
        state = replay(body, at, window) if (at := get(_REPLAY)) else Replay(0, 0, window, False)
    fields = (
        family,
        text[src],
        text[dst],
        proto,
        ntohl(spi),
        shared[reqid],
        mode,
        flags,
        _moving(size, packets, added, used, *state),
        lifetime(raw_lifetime),
        selector(raw_selector, family),
        window_errors,
        replay_errors,
        integrity_errors,
        name,
        None,
        icv_bits,
        _u32(body, at)[0] if (at := get(_IF_ID)) else 0,
        one_mark(*_mark(body, at)) if (at := get(_MARK)) else None,
        sa_direction(body[at]) if (at := get(_SA_DIR)) else None,
        _u32(body, at)[0] if (at := get(_SA_PCPU)) else None,
        None,
        None,
        0,
        shared[_u64(body, at)[0]] if (at := get(_LASTUSED)) else None,
        None,
        None,
        None,
        key_bits,
        None,
        None,
        sequence,
        None,
        None,
        None,
    )
    common: SA = new(SA, fields)
    if family in (AF_INET, AF_INET6) and _COMMON.issuperset(found):
        return common
    return _with_rare(body, common, found)


def _with_rare(body: memoryview, common: SA, found: Found) -> SA:
    """The SA with those of its attributes that few SAs have."""
    if common.family not in (AF_INET, AF_INET6):
        raise corrupt("an SA is of neither IP family")
    if at := found.get(Attr.ALG_CRYPT):
        name, key_bits = algorithm(body, at)
        common = common._replace(algorithm=name, key_bits=key_bits)
    if at := found.get(Attr.ALG_AUTH_TRUNC):  # beside each ALG_AUTH, since 2.6.33
        name, key_bits, icv_bits = algorithm_icv(body, at)
        common = common._replace(auth_algorithm=name, auth_key_bits=key_bits, icv_bits=icv_bits)
    compression, care_of = found.get(Attr.ALG_COMP), found.get(Attr.COADDR)
    return common._replace(
        encap=encap(body, found, common.family),
        offload=offload(body, found),
        extra_flags=u32(body, found, Attr.SA_EXTRA_FLAGS) or 0,
        output_mark=output_mark(body, found),
        tfc_pad=u32(body, found, Attr.TFCPAD),
        iptfs=iptfs(body, found),
        compression=None if compression is None else algorithm(body, compression)[0],
        nat_keepalive_seconds=u32(body, found, Attr.NAT_KEEPALIVE_INTERVAL),
        mapping_threshold_seconds=u32(body, found, Attr.MTIMER_THRESH),
        care_of_address=None if care_of is None else address(common.family, bytes(body[care_of : care_of + 16])),
    )


def sa_message(body: memoryview, shapes: Shapes) -> SA:
    """The body of a NEWSA or UPDSA message. Raises DecodeError."""
    return sa(body, 0, shapes.attributes(body, uapi.USERSA_INFO.size))


@lru_cache(maxsize=1 << 12)
def _template(raw: bytes) -> Template:
    """A struct xfrm_user_tmpl. Policies of one tunnel stand beside each other, and two of three have the same one."""
    dst, spi, proto, family, src, *rest = uapi.USER_TMPL.unpack(raw)
    reqid, mode, share, optional, *algorithms = rest
    ends = address(family, src), address(family, dst)
    masks = [shared[each] for each in algorithms]
    return Template(family, *ends, proto, ntohl(spi), shared[reqid], mode, optional != 0, share, *masks)


@lru_cache(maxsize=1 << 12)
def _used(size: int, packets: int, added: int, used: int) -> Counters:
    """What a policy has counted, which is mostly when it was added (the kernel counts no bytes of policies)."""
    return Counters(size, packets, added, used or None)


def templates(body: memoryview, found: Found) -> tuple[Template, ...]:
    """XFRMA_TMPL, an array of struct xfrm_user_tmpl. Raises DecodeError."""
    at = found.get(Attr.TMPL)
    if at is None:
        return ()
    size = payload_size(body, at)
    if size % uapi.USER_TMPL.size or size > uapi.MAX_TEMPLATES * uapi.USER_TMPL.size:
        raise corrupt("a policy's templates are cut off")
    one = uapi.USER_TMPL.size
    return tuple(_template(bytes(body[start : start + one])) for start in range(at, at + size, one))


def direction(value: int) -> tuple[Direction, bool]:
    """A policy's direction, and whether it was set on one socket (XFRM_POLICY_MAX and up). Raises DecodeError."""
    if value >= 2 * uapi.POLICY_MAX:
        raise corrupt("a policy's direction is unknown")
    return _DIRECTIONS[value % uapi.POLICY_MAX], value >= uapi.POLICY_MAX


def policy(body: memoryview, info: int, found: Found) -> Policy:
    """One policy: where its struct xfrm_userpolicy_info is, and its attributes. Raises DecodeError."""
    raw_selector, raw_lifetime, size, packets, added, used, *rest = uapi.USERPOLICY_INFO.unpack_from(body, info)
    priority, index, raw_direction, action, flags, _ = rest
    way, socket = direction(raw_direction)
    kind = found.get(Attr.POLICY_TYPE)
    return Policy(
        selector(raw_selector),
        way,
        index,
        shared[priority],
        action,
        templates=templates(body, found),
        if_id=u32(body, found, _IF_ID) or 0,
        mark=mark(body, found),
        flags=flags,
        type=0 if kind is None else body[kind],
        offload=offload(body, found),
        counters=_used(size, packets, added, used),
        lifetime=lifetime(raw_lifetime),
        socket=socket,
    )


def policy_message(body: memoryview, shapes: Shapes) -> Policy:
    """The body of a NEWPOLICY or UPDPOLICY message. Raises DecodeError."""
    return policy(body, 0, shapes.attributes(body, uapi.USERPOLICY_INFO.size))


def decode_sas(buffer: Buffer) -> list[SA]:
    """The SAs of a dump, or of a part of one that ends with a message: NEWSA messages, and the end of the dump.

    Raises DecodeError for whatever is cut off, corrupt or something else.
    """
    return _decode(buffer, Msg.NEWSA, sa_message)


def decode_policies(buffer: Buffer) -> list[Policy]:
    """The policies of a dump, like decode_sas(). Raises DecodeError."""
    return _decode(buffer, Msg.NEWPOLICY, policy_message)


def _decode(buffer: Buffer, wanted: int, read: Callable[[memoryview, Shapes], T]) -> list[T]:
    shapes = Shapes()
    found = []
    for kind, _, body in messages(buffer):
        if kind == wanted:
            found.append(read(body, shapes))
        elif kind != uapi.NLMSG_DONE:
            raise corrupt(f"a message of type {kind} in a dump of type {wanted}")
    return found
