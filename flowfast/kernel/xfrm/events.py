"""What the kernel tells a monitor: one named tuple a kind of notification, and how each is read.

decode_events() keeps the rules of decode.py: no object of a key, and no exception but DecodeError.
"""

from collections.abc import Callable
from socket import ntohl, ntohs
from typing import NamedTuple

from flowfast.kernel.xfrm import attributes as attr
from flowfast.kernel.xfrm import decode, uapi
from flowfast.kernel.xfrm.attributes import Buffer, Found, attributes, corrupt, messages, require
from flowfast.kernel.xfrm.info import DefaultPolicy, default_policy
from flowfast.kernel.xfrm.uapi import Attr, Msg
from flowfast.model.sa import SA, Counters, Direction, Mark, Policy, Replay, Selector, Template


class SaAdded(NamedTuple):
    """An SA was added (NEWSA). An allocated SPI (larval SA) is not announced."""

    sa: SA


class SaUpdated(NamedTuple):
    """An SA was replaced or changed (UPDSA)."""

    sa: SA


class SaDeleted(NamedTuple):
    """An SA was deleted (DELSA). `sa` holds its last counters: the only place where the kernel gives them."""

    sa: SA


class SaExpired(NamedTuple):
    """A soft limit was reached, or with `hard` a hard one, which deletes the SA. `sa` has no algorithms."""

    sa: SA
    hard: bool


class SaFlushed(NamedTuple):
    """All SAs of a protocol are gone, or all there were (0). No SaDeleted comes with it: their counters are lost."""

    proto: int


class PolicyAdded(NamedTuple):
    """A policy was added (NEWPOLICY)."""

    policy: Policy


class PolicyUpdated(NamedTuple):
    """A policy was replaced (UPDPOLICY)."""

    policy: Policy


class PolicyDeleted(NamedTuple):
    """A policy was deleted (DELPOLICY)."""

    policy: Policy


class PolicyExpired(NamedTuple):
    """A policy reached a soft limit, or with `hard` a hard one, which deletes it."""

    policy: Policy
    hard: bool


class PoliciesFlushed(NamedTuple):
    """All policies of a type are gone."""

    type: int


class DefaultChanged(NamedTuple):
    """What becomes of packets that match no policy was set anew (GETDEFAULT, kernel 5.15)."""

    default: DefaultPolicy


class Acquire(NamedTuple):
    """The kernel wants an SA (ACQUIRE). `pcpu`: for this CPU, beside a fallback SA that exists (kernel 6.13)."""

    src: str
    dst: str
    proto: int
    spi: int
    selector: Selector
    policy: Policy
    sequence: int
    templates: tuple[Template, ...] = ()
    mark: Mark | None = None
    if_id: int = 0
    pcpu: int | None = None
    direction: Direction | None = None


class AsyncEvent(NamedTuple):
    """State of an SA, pushed by a threshold or asked for (NEWAE). `flags`: AeFlag. Absent is what it did not carry."""

    src: str
    dst: str
    spi: int
    proto: int
    reqid: int
    flags: int
    replay: Replay | None = None
    counters: Counters | None = None
    replay_threshold: int | None = None
    timer_threshold: int | None = None  # in tenths of a second
    mark: Mark | None = None
    if_id: int = 0
    pcpu: int | None = None
    direction: Direction | None = None


class Migration(NamedTuple):
    """One pair of addresses that becomes another."""

    old_src: str
    old_dst: str
    new_src: str
    new_dst: str
    proto: int
    mode: int
    reqid: int


class Migrated(NamedTuple):
    """Templates of a policy, and their SAs, moved to other addresses (MIGRATE, RFC 4555)."""

    selector: Selector
    direction: Direction
    migrations: tuple[Migration, ...]


class Mapping(NamedTuple):
    """The peer's NAT mapping changed: ESP in UDP came from another address or port."""

    src: str
    dst: str
    spi: int
    proto: int
    reqid: int
    new_src: str
    old_sport: int
    new_sport: int


class Report(NamedTuple):
    """A packet was refused for want of an extension header (Mobile IPv6)."""

    proto: int
    selector: Selector


class Resync(NamedTuple):
    """Notifications were lost, or one could not be read: only a dump tells the state now. `reason` says which."""

    reason: str


Event = (
    SaAdded
    | SaUpdated
    | SaDeleted
    | SaExpired
    | SaFlushed
    | PolicyAdded
    | PolicyUpdated
    | PolicyDeleted
    | PolicyExpired
    | PoliciesFlushed
    | DefaultChanged
    | Acquire
    | AsyncEvent
    | Migrated
    | Mapping
    | Report
    | Resync
)


def _sa(body: memoryview) -> SA:
    return decode.sa(body, 0, attributes(body, uapi.USERSA_INFO.size))


def _policy(body: memoryview) -> Policy:
    return decode.policy(body, 0, attributes(body, uapi.USERPOLICY_INFO.size))


def _sa_deleted(body: memoryview) -> SaDeleted:
    found = attributes(body, uapi.USERSA_ID.size)
    info = found.get(Attr.SA)
    if info is None:
        raise corrupt("a deletion without its SA")
    return SaDeleted(decode.sa(body, info, found))


def _sa_expired(body: memoryview) -> SaExpired:
    found = attributes(body, uapi.USER_EXPIRE.size)
    return SaExpired(decode.sa(body, 0, found), body[uapi.USERSA_INFO.size] != 0)


def _sa_flushed(body: memoryview) -> SaFlushed:
    require(body, uapi.USERSA_FLUSH.size)
    return SaFlushed(body[0])


def _policy_deleted(body: memoryview) -> PolicyDeleted:
    found = attributes(body, uapi.USERPOLICY_ID.size)
    info = found.get(Attr.POLICY)
    if info is None:
        raise corrupt("a deletion without its policy")
    return PolicyDeleted(decode.policy(body, info, found))


def _policy_expired(body: memoryview) -> PolicyExpired:
    found = attributes(body, uapi.USER_POLEXPIRE.size)
    return PolicyExpired(decode.policy(body, 0, found), body[uapi.USERPOLICY_INFO.size] != 0)


def _policies_flushed(body: memoryview) -> PoliciesFlushed:
    at = attributes(body, 0).get(Attr.POLICY_TYPE)
    return PoliciesFlushed(0 if at is None else body[at])


def _direction(body: memoryview, found: Found) -> Direction | None:
    at = found.get(Attr.SA_DIR)
    return None if at is None else attr.sa_direction(body[at])


def _acquire(body: memoryview) -> Acquire:
    found = attributes(body, uapi.USER_ACQUIRE.size)
    identity, src, selector, _, *_, sequence = uapi.USER_ACQUIRE.unpack_from(body)
    dst, spi, proto = uapi.ID.unpack(identity)
    policy = decode.policy(body, 24 + 16 + 56, found)
    family = policy.templates[0].family if policy.templates else policy.selector.family
    return Acquire(
        attr.address(family, src),
        attr.address(family, dst),
        proto,
        ntohl(spi),
        attr.selector(selector),
        policy,
        sequence,
        templates=policy.templates,
        mark=policy.mark,
        if_id=policy.if_id,
        pcpu=attr.u32(body, found, Attr.SA_PCPU),
        direction=_direction(body, found),
    )


def async_event(body: memoryview) -> AsyncEvent:
    """The body of NEWAE, a reply and a notification. Raises DecodeError."""
    found = attributes(body, uapi.AEVENT_ID.size)
    identity, src, flags, reqid = uapi.AEVENT_ID.unpack_from(body)
    dst, spi, family, proto = uapi.USERSA_ID.unpack(identity)
    replay = None
    if at := found.get(Attr.REPLAY_ESN_VAL):
        state = attr.replay_esn(body, at, True)
        # The message does not say whether the SA has ESN: one without leaves the upper halves at 0.
        replay = state._replace(esn=state.oseq >> 32 != 0 or state.seq >> 32 != 0)
    elif at := found.get(Attr.REPLAY_VAL):
        replay = attr.replay(body, at, 0)
    lifetime = found.get(Attr.LTIME_VAL)
    counters = None
    if lifetime is not None:
        size, packets, added, used = uapi.LIFETIME_CUR.unpack_from(body, lifetime)
        counters = Counters(size, packets, added, used or None)
    return AsyncEvent(
        attr.address(family, src),
        attr.address(family, dst),
        ntohl(spi),
        proto,
        reqid,
        flags,
        replay=replay,
        counters=counters,
        replay_threshold=attr.u32(body, found, Attr.REPLAY_THRESH),
        timer_threshold=attr.u32(body, found, Attr.ETIMER_THRESH),
        mark=attr.mark(body, found),
        if_id=attr.u32(body, found, Attr.IF_ID) or 0,
        pcpu=attr.u32(body, found, Attr.SA_PCPU),
        direction=_direction(body, found),
    )


def _migration(body: memoryview, at: int) -> Migration:
    old_dst, old_src, new_dst, new_src, proto, mode, _, reqid, old, new = uapi.USER_MIGRATE.unpack_from(body, at)
    before = attr.address(old, old_src), attr.address(old, old_dst)
    after = attr.address(new, new_src), attr.address(new, new_dst)
    return Migration(*before, *after, proto, mode, reqid)


def _migrated(body: memoryview) -> Migrated:
    attributes(body, uapi.USERPOLICY_ID.size)
    selector, _, value = uapi.USERPOLICY_ID.unpack_from(body)
    starts = attr.repeated(body, uapi.USERPOLICY_ID.size, Attr.MIGRATE)
    migrations = tuple(_migration(body, at) for at in starts)
    return Migrated(attr.selector(selector), decode.direction(value)[0], migrations)


def _mapping(body: memoryview) -> Mapping:
    require(body, uapi.USER_MAPPING.size)
    identity, reqid, old_src, new_src, old_sport, new_sport = uapi.USER_MAPPING.unpack_from(body)
    dst, spi, family, proto = uapi.USERSA_ID.unpack(identity)
    ends = attr.address(family, old_src), attr.address(family, dst)
    return Mapping(*ends, ntohl(spi), proto, reqid, attr.address(family, new_src), ntohs(old_sport), ntohs(new_sport))


def _report(body: memoryview) -> Report:
    require(body, uapi.USER_REPORT.size)
    proto, selector = uapi.USER_REPORT.unpack_from(body)
    return Report(proto, attr.selector(selector))


_READERS: dict[int, Callable[[memoryview], Event]] = {
    Msg.NEWSA: lambda body: SaAdded(_sa(body)),
    Msg.UPDSA: lambda body: SaUpdated(_sa(body)),
    Msg.DELSA: _sa_deleted,
    Msg.EXPIRE: _sa_expired,
    Msg.FLUSHSA: _sa_flushed,
    Msg.NEWPOLICY: lambda body: PolicyAdded(_policy(body)),
    Msg.UPDPOLICY: lambda body: PolicyUpdated(_policy(body)),
    Msg.DELPOLICY: _policy_deleted,
    Msg.POLEXPIRE: _policy_expired,
    Msg.FLUSHPOLICY: _policies_flushed,
    Msg.GETDEFAULT: lambda body: DefaultChanged(default_policy(body)),
    Msg.ACQUIRE: _acquire,
    Msg.NEWAE: async_event,
    Msg.MIGRATE: _migrated,
    Msg.MAPPING: _mapping,
    Msg.REPORT: _report,
}


def decode_events(buffer: Buffer) -> list[Event]:
    """The events of one datagram. Kinds of message that a later kernel may add are left out. Raises DecodeError."""
    readers = ((_READERS.get(kind), body) for kind, _, body in messages(buffer))
    return [read(body) for read, body in readers if read is not None]
