"""Whatever a decoder is fed, it returns or raises DecodeError; and what was encoded is decoded as it was."""

import struct
from collections.abc import Callable
from dataclasses import fields
from functools import cache, partial
from socket import AF_INET, AF_INET6, inet_ntop

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from flowfast.kernel.xfrm import (
    Aead,
    Auth,
    Crypt,
    Migration,
    SAConfig,
    decode_events,
    decode_policies,
    decode_sas,
    encode,
    fake,
    info,
)
from flowfast.kernel.xfrm.attributes import attributes
from flowfast.kernel.xfrm.receive import Reply
from flowfast.kernel.xfrm.uapi import Msg
from flowfast.model.errors import DecodeError
from flowfast.model.sa import Direction, Encap, Iptfs, Lifetime, Mark, Offload, Policy, Replay, Selector, Template
from tests.unit.kernel.xfrm import test_events
from tests.unit.kernel.xfrm.dumps import ack, config, done, dumped, message, recorded

MIGRATION = Migration("192.0.2.1", "192.0.2.2", "198.51.100.1", "198.51.100.2", 50, 1, 7)


def _reply(buffer: bytes) -> bool:
    reply = Reply(Msg.NEWSA, bytes)
    ended = reply.take(memoryview(buffer))
    assert reply.failure is None or type(reply.failure) is DecodeError
    return ended


DECODERS: dict[str, Callable[[bytes], object]] = {
    "sas": decode_sas,
    "policies": decode_policies,
    "events": decode_events,
    "sad_info": lambda buffer: info.sad_info(memoryview(buffer)),
    "spd_info": lambda buffer: info.spd_info(memoryview(buffer)),
    "default": lambda buffer: info.default_policy(memoryview(buffer)),
    "reply": _reply,
}


def survives(buffer: bytes) -> None:
    """No decoder raises anything but DecodeError, and that quotes nothing."""
    for decode in DECODERS.values():
        try:
            decode(buffer)
        except DecodeError as error:
            text = str(error)
            assert text.startswith("xfrm: corrupt netlink message: ")
            assert len(text) < 120


@cache
def corpus() -> dict[str, bytes]:
    """A valid datagram of each kind that there is."""
    bodies = {
        Msg.DELSA: bytes(encode.sa_id("192.0.2.1", 5, 50)) + struct.pack("=HH", 228, 6) + test_events.SA_BODY,
        Msg.EXPIRE: test_events.SA_BODY[:224] + bytes(8),
        Msg.FLUSHSA: bytes(4),
        Msg.UPDPOLICY: test_events.POLICY_BODY,
        Msg.POLEXPIRE: test_events.POLICY_BODY[:168] + bytes(8) + test_events.POLICY_BODY[168:],
        Msg.NEWAE: bytes(encode.aevent("192.0.2.1", 5, 50, 0)),
        Msg.ACQUIRE: bytes(24 + 16) + test_events.POLICY_BODY[:56] + test_events.POLICY_BODY[:168] + bytes(16),
        Msg.MAPPING: bytes(encode.sa_id("192.0.2.1", 5, 50)) + bytes(40),
        Msg.MIGRATE: bytes(encode.migrate(test_events.SELECTOR, Direction.OUT, [MIGRATION])),
        Msg.GETDEFAULT: bytes(4),
    }
    found = {kind.name: bytes(message(kind, body, flags=0)) for kind, body in bodies.items()}
    everything = SAConfig(
        **{
            **{field.name: getattr(config(), field.name) for field in fields(SAConfig)},
            "encap": Encap(2, 1, 2),
            "offload": Offload(1, 2),
            "iptfs": Iptfs(1, 2, True, 3, 4, 5),
            "mark": Mark(1, 2),
            "output_mark": Mark(3, 4),
            "care_of_address": "10.0.0.1",
            "pcpu": 1,
        }
    )
    found |= {"sas": recorded("sas"), "policies": recorded("policies"), "dumped": bytes(dumped(everything))}
    return found | {"ack": bytes(ack(22, "no")), "done": bytes(done(code=-5))}


def test_every_datagram_of_the_corpus_is_valid_for_one_decoder() -> None:
    for name, buffer in corpus().items():
        if name not in ("ack", "done"):
            decode = DECODERS.get(name) or decode_events
            assert decode(buffer), name


@pytest.mark.parametrize("name", corpus())
def test_cut_off_at_each_byte(name: str) -> None:
    buffer = corpus()[name]
    for end in range(len(buffer)):
        survives(buffer[:end])


@pytest.mark.parametrize("name", corpus())
def test_shortened_at_each_byte_with_a_length_that_fits(name: str) -> None:
    buffer = bytearray(corpus()[name])
    (length,) = struct.unpack_from("=I", buffer)
    for end in range(16, length):
        cut = bytearray(buffer[:end])
        struct.pack_into("=I", cut, 0, end)
        survives(bytes(cut))


@pytest.mark.parametrize("name", corpus())
def test_each_byte_changed(name: str) -> None:
    for at in range(len(corpus()[name])):
        for value in (0, 0x7F, 0xFF):
            changed = bytearray(corpus()[name])
            changed[at] = value
            survives(bytes(changed))


@settings(max_examples=300)
@given(st.sampled_from(sorted(corpus())), st.data())
def test_mutations(name: str, data: st.DataObject) -> None:
    buffer = bytearray(corpus()[name])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(buffer) - 1))
        size = data.draw(st.integers(0, 8))
        buffer[at : at + size] = data.draw(st.binary(max_size=8))
        assume(buffer)
    survives(bytes(buffer))


@given(st.binary(max_size=600))
@example(b"")
def test_random_bytes(buffer: bytes) -> None:
    survives(buffer)


@given(st.sampled_from(sorted(Msg)), st.binary(max_size=400))
def test_random_bodies(kind: Msg, body: bytes) -> None:
    survives(bytes(message(kind, body)))


@given(st.binary(max_size=200), st.integers(0, 300))
def test_random_attributes(body: bytes, begin: int) -> None:
    try:
        found = attributes(memoryview(body), begin)
    except DecodeError:
        return
    assert all(begin + 4 <= at <= len(body) for at in found.values())


U8, U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
MARKS = st.builds(Mark, U32, U32)
ADDRESSES4 = st.binary(min_size=4, max_size=4).map(partial(inet_ntop, AF_INET))
ADDRESSES6 = st.binary(min_size=16, max_size=16).map(partial(inet_ntop, AF_INET6))
LIMITS = st.none() | st.integers(1, (1 << 64) - 2)
LIFETIMES = st.builds(Lifetime, *[LIMITS] * 8)
KEYS = st.binary(min_size=1, max_size=64)
NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=63)


@st.composite
def selectors(draw: st.DrawFn) -> Selector:
    family = draw(st.sampled_from((AF_INET, AF_INET6)))
    addresses, longest = (ADDRESSES4, 32) if family == AF_INET else (ADDRESSES6, 128)
    src, dst = (f"{draw(addresses)}/{draw(st.integers(0, longest))}" for _ in range(2))
    ports = (draw(U16), draw(U16), draw(U16), draw(U16))
    return Selector(family, src, dst, draw(U8), *ports, draw(st.integers(0, 1 << 30)), draw(U32))


@st.composite
def configs(draw: st.DrawFn) -> SAConfig:
    addresses = draw(st.sampled_from((ADDRESSES4, ADDRESSES6)))
    maybe = {
        "selector": selectors(),
        "mark": MARKS,
        "output_mark": MARKS,
        "direction": st.sampled_from((Direction.IN, Direction.OUT)),
        "pcpu": U32,
        "encap": st.builds(Encap, U16, U16, U16, addresses.filter(lambda text: text.strip(".0:"))),
        "offload": st.builds(Offload, st.integers(0, 1 << 30), U8),
        "tfc_pad": U32,
        "nat_keepalive_seconds": U32,
        "mapping_threshold_seconds": U32,
        "care_of_address": addresses,
        "iptfs": st.builds(Iptfs, U32, U16, st.booleans(), U32, U32, U32),
    }
    optional = {name: draw(value) for name, value in maybe.items() if draw(st.booleans())}
    algorithms: dict[str, object] = {"aead": Aead(draw(NAMES), draw(KEYS), draw(U32))}
    if draw(st.booleans()):
        algorithms = {"crypt": Crypt(draw(NAMES), draw(KEYS)), "auth": Auth(draw(NAMES), draw(KEYS), draw(U32))}
    esn = draw(st.booleans())
    numbers = U64 if esn else U32
    window = draw(st.integers(0, 4096))
    return SAConfig(
        src=draw(addresses),
        dst=draw(addresses),
        spi=draw(U32),
        proto=draw(U8),
        mode=draw(U8),
        reqid=draw(U32),
        flags=draw(U8) & 0x7F,
        extra_flags=draw(U32),
        esn=esn,
        replay=Replay(draw(numbers), draw(numbers), window, esn),
        lifetime=draw(LIFETIMES),
        acquire_sequence=draw(U32),
        if_id=draw(U32),
        **algorithms,  # type: ignore[arg-type]
        **optional,  # type: ignore[arg-type]
    )


@given(configs())
def test_an_sa_is_decoded_as_it_was_encoded(asked: SAConfig) -> None:
    (sa,) = decode_sas(message(Msg.NEWSA, encode.sa(asked)))
    want = fake.reported(asked)
    if asked.selector is None:  # the kernel fills that in
        want = want._replace(selector=sa.selector)
    assert sa == want._replace(counters=sa.counters)


TEMPLATES = st.builds(
    Template, st.just(2), ADDRESSES4, ADDRESSES4, U8, U32, U32, U8, st.booleans(), U8, U32, U32, U32
) | st.builds(Template, st.just(10), ADDRESSES6, ADDRESSES6, U8, U32, U32, U8, st.booleans(), U8, U32, U32, U32)
POLICIES = st.builds(
    Policy,
    selector=selectors(),
    direction=st.sampled_from(Direction),
    policy_index=U32,
    priority=U32,
    action=U8,
    templates=st.lists(TEMPLATES, max_size=6).map(tuple),
    if_id=U32,
    mark=st.none() | MARKS,
    flags=U8,
    type=U8,
    offload=st.none() | st.builds(Offload, st.integers(0, 1 << 30), U8),
    lifetime=LIFETIMES,
    counters=st.none(),
    socket=st.just(False),
)


@given(POLICIES)
def test_a_policy_is_decoded_as_it_was_encoded(asked: Policy) -> None:
    (policy,) = decode_policies(message(Msg.NEWPOLICY, encode.policy(asked)))
    assert policy._replace(counters=None) == asked


@given(st.lists(configs(), max_size=5))
def test_a_dump_is_the_sum_of_its_messages(asked: list[SAConfig]) -> None:
    parts = [message(Msg.NEWSA, encode.sa(each)) for each in asked]
    assert decode_sas(b"".join(parts) + done()) == [sa for part in parts for sa in decode_sas(part)]
