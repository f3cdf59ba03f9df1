"""What each notification says."""

import struct
from socket import htons

import pytest

from flowfast.kernel.xfrm import (
    AeFlag,
    DefaultChanged,
    DefaultPolicy,
    Mapping,
    Migrated,
    Migration,
    PoliciesFlushed,
    PolicyAdded,
    PolicyDeleted,
    PolicyExpired,
    PolicyUpdated,
    Report,
    SaAdded,
    SaDeleted,
    SaExpired,
    SaFlushed,
    SaUpdated,
    decode_events,
    decode_policies,
    decode_sas,
    encode,
    uapi,
)
from flowfast.kernel.xfrm.uapi import Attr, Msg
from flowfast.model.errors import DecodeError
from flowfast.model.sa import Counters, Direction, Mark, Policy, Replay, Selector
from tests.unit.kernel.xfrm.dumps import config, message, recorded

SA_BODY = bytes(encode.sa(config()))
(SA,) = decode_sas(message(Msg.NEWSA, SA_BODY))
OUT: Policy = decode_policies(recorded("policies"))[-1]._replace(counters=Counters(0, 0, 0, None))
POLICY_BODY = bytes(encode.policy(OUT))
SELECTOR = Selector(2, "10.1.0.0/16", "10.2.0.0/16")


def only(kind: int, body: bytes | bytearray):
    (event,) = decode_events(message(kind, body, flags=0, sequence=0))
    return event


def test_sa_added_and_updated():
    assert only(Msg.NEWSA, SA_BODY) == SaAdded(SA)
    assert only(Msg.UPDSA, SA_BODY) == SaUpdated(SA)


def test_sa_deleted_carries_its_last_counters():
    inner = bytearray(SA_BODY[:224])
    struct.pack_into("=4Q", inner, 160, 123_456, 789, 1, 2)
    body = bytearray(encode.sa_id(SA.dst, SA.spi, SA.proto))
    encode.add(body, Attr.SA, inner)
    body += SA_BODY[224:]
    assert only(Msg.DELSA, body) == SaDeleted(SA._replace(counters=Counters(123_456, 789, 1, 2)))


def test_a_deletion_without_its_object_raises():
    with pytest.raises(DecodeError, match="without its SA"):
        only(Msg.DELSA, encode.sa_id(SA.dst, SA.spi, SA.proto))
    with pytest.raises(DecodeError, match="without its policy"):
        only(Msg.DELPOLICY, encode.policy_id(SELECTOR, Direction.OUT))


@pytest.mark.parametrize("hard", [False, True])
def test_sa_expired(hard):
    body = bytearray(uapi.USER_EXPIRE.pack(SA_BODY[:224], hard))
    encode.add_mark(body, Mark(5, 7))
    event = only(Msg.EXPIRE, body)
    assert isinstance(event, SaExpired)
    assert (event.hard, event.sa.key, event.sa.mark, event.sa.algorithm) == (hard, SA.key, Mark(5, 7), None)


def test_sas_flushed():
    assert only(Msg.FLUSHSA, b"\x32\0\0\0") == SaFlushed(50)


def test_policy_added_updated_expired():
    assert only(Msg.NEWPOLICY, POLICY_BODY) == PolicyAdded(OUT)
    assert only(Msg.UPDPOLICY, POLICY_BODY) == PolicyUpdated(OUT)
    body = uapi.USER_POLEXPIRE.pack(POLICY_BODY[:168], 1) + POLICY_BODY[168:]
    assert only(Msg.POLEXPIRE, body) == PolicyExpired(OUT, True)


def test_policy_deleted():
    body = encode.policy_id(OUT.selector, OUT.direction)
    encode.add(body, Attr.POLICY, POLICY_BODY[:168])
    body += POLICY_BODY[168:]
    assert only(Msg.DELPOLICY, body) == PolicyDeleted(OUT)


def test_policies_flushed():
    assert only(Msg.FLUSHPOLICY, b"") == PoliciesFlushed(0)
    body = bytearray()
    encode.add_policy_type(body, 1)
    assert only(Msg.FLUSHPOLICY, body) == PoliciesFlushed(1)


def test_default_changed():
    assert only(Msg.GETDEFAULT, b"\1\2\2\0") == DefaultChanged(DefaultPolicy(1, 2, 2))


def test_acquire():
    identity = uapi.ID.pack(encode.address("192.0.2.2"), 0, 50)
    body = bytearray(
        uapi.USER_ACQUIRE.pack(
            identity, encode.address("192.0.2.1"), encode.selector(SELECTOR), POLICY_BODY[:168], 1, 2, 3, 99
        )
    )
    body += POLICY_BODY[168:]
    encode.add_u32(body, Attr.SA_PCPU, 3)
    encode.add_direction(body, Direction.OUT)
    event = only(Msg.ACQUIRE, body)
    assert (event.src, event.dst, event.proto, event.spi) == ("192.0.2.1", "192.0.2.2", 50, 0)
    assert (event.selector, event.policy, event.templates) == (SELECTOR, OUT, OUT.templates)
    assert (event.sequence, event.pcpu, event.direction, event.if_id, event.mark) == (99, 3, "out", 7, Mark(1, 0xFF))


@pytest.mark.parametrize("state", [Replay(5, 6, 0, False), Replay(5 << 32 | 1, 6, 128, True), Replay(5, 6, 64, False)])
def test_async_event(state):
    identity = encode.sa_id("192.0.2.2", 0x100, 50)
    body = bytearray(uapi.AEVENT_ID.pack(identity, encode.address("192.0.2.1"), AeFlag.CR, 7))
    encode.add_state(body, state, Counters(1, 2, 3, 4))
    encode.add_u32(body, Attr.REPLAY_THRESH, 32)
    encode.add_u32(body, Attr.ETIMER_THRESH, 10)
    encode.add_u32(body, Attr.IF_ID, 5)
    event = only(Msg.NEWAE, body)
    assert (event.src, event.dst, event.spi, event.reqid) == ("192.0.2.1", "192.0.2.2", 0x100, 7)
    assert (event.flags, event.replay, event.counters) == (AeFlag.CR, state, Counters(1, 2, 3, 4))
    assert (event.replay_threshold, event.timer_threshold, event.if_id, event.pcpu) == (32, 10, 5, None)


def test_async_event_says_only_what_it_carries():
    identity = encode.sa_id("2001:db8::2", 0x100, 50)
    event = only(Msg.NEWAE, uapi.AEVENT_ID.pack(identity, encode.address("2001:db8::1"), AeFlag.CE, 7))
    assert (event.replay, event.counters, event.replay_threshold, event.timer_threshold) == (None,) * 4


def test_migrated_with_each_pair_in_an_attribute_of_its_own():
    pairs = (
        Migration("192.0.2.1", "192.0.2.2", "198.51.100.1", "198.51.100.2", 50, 1, 7),
        Migration("192.0.2.2", "192.0.2.1", "2001:db8::2", "2001:db8::1", 51, 0, 8),
    )
    body = encode.policy_id(SELECTOR, Direction.IN)
    for pair in pairs:
        body += encode.migrate(SELECTOR, Direction.IN, [pair])[len(encode.policy_id(SELECTOR, Direction.IN)) :]
    assert only(Msg.MIGRATE, body) == Migrated(SELECTOR, Direction.IN, pairs)


def test_mapping():
    identity = encode.sa_id("192.0.2.2", 0x100, 50)
    old, new = encode.address("192.0.2.1"), encode.address("198.51.100.7")
    body = uapi.USER_MAPPING.pack(identity, 7, old, new, htons(4500), htons(40001))
    assert only(Msg.MAPPING, body) == Mapping("192.0.2.1", "192.0.2.2", 0x100, 50, 7, "198.51.100.7", 4500, 40001)


def test_report():
    assert only(Msg.REPORT, uapi.USER_REPORT.pack(60, encode.selector(SELECTOR))) == Report(60, SELECTOR)


def test_a_kind_of_a_later_kernel_is_left_out():
    both = message(0x29, b"later") + message(Msg.FLUSHSA, b"\0")
    assert decode_events(both) == [SaFlushed(0)]


@pytest.mark.parametrize("kind", [kind for kind in Msg if kind not in (Msg.FLUSHPOLICY,)])
def test_an_empty_body_raises_or_is_unknown(kind):
    try:
        assert decode_events(message(kind, b"")) == []
    except DecodeError as error:
        assert str(error).startswith("xfrm: corrupt")
