"""What a dump says, SA by SA and policy by policy: recorded from a kernel, and made with each attribute there is."""

import struct
from dataclasses import replace

import pytest

from flowfast.kernel.xfrm import (
    Aead,
    Auth,
    Crypt,
    DefaultPolicy,
    SAConfig,
    SadInfo,
    SpdInfo,
    Thresholds,
    decode_policies,
    decode_sas,
    encode,
    info,
    uapi,
)
from flowfast.kernel.xfrm.uapi import Attr, Msg
from flowfast.model.errors import DecodeError
from flowfast.model.sa import (
    Counters,
    Direction,
    Encap,
    Iptfs,
    Lifetime,
    Mark,
    Mode,
    Offload,
    Policy,
    Replay,
    Selector,
    Template,
)
from tests.unit.kernel.xfrm.dumps import ack, config, done, dumped, message, recorded


def read(asked: SAConfig):
    (sa,) = decode_sas(dumped(asked))
    return sa


def test_recorded_sas():
    beet, encapsulated, legacy, pcpu, inbound, outbound = decode_sas(recorded("sas"))
    assert (outbound.src, outbound.dst, outbound.spi) == ("192.0.2.1", "192.0.2.2", 0xC0000001)
    assert (outbound.algorithm, outbound.icv_bits, outbound.key_bits) == ("rfc4106(gcm(aes))", 128, 160)
    assert (outbound.direction, outbound.if_id, outbound.mark) == (Direction.OUT, 7, Mark(1, 0xFF))
    assert outbound.replay == Replay(0, 0, 0, True)
    assert (inbound.direction, inbound.replay.window, inbound.mark) == (Direction.IN, 128, None)
    assert (pcpu.pcpu, inbound.pcpu) == (0, None)
    assert (legacy.family, legacy.mode, legacy.algorithm) == (10, Mode.TRANSPORT, "cbc(aes)")
    assert (legacy.auth_algorithm, legacy.icv_bits, legacy.auth_key_bits) == ("hmac(sha256)", 128, 256)
    assert legacy.selector == Selector(10, "2001:db8::1/128", "2001:db8::2/128", proto=6, sport=80, sport_mask=0xFFFF)
    assert legacy.replay == Replay(0, 0, 32, False)
    assert encapsulated.encap == Encap(2, 4500, 4501)
    assert encapsulated.lifetime == Lifetime(1_000_000, 2_000_000, None, None, 3000, 3600)
    assert (encapsulated.output_mark, encapsulated.extra_flags, encapsulated.flags) == (Mark(5, 15), 2, 128 | 4)
    assert (beet.mode, beet.algorithm, beet.key_bits) == (Mode.BEET, "ecb(cipher_null)", 0)
    assert {sa.counters for sa in (beet, outbound)} == {
        Counters(0, 0, 1795500919, None),
        Counters(0, 0, 1795500918, None),
    }


def test_recorded_policies():
    socket_out, socket_in, block, forward, out = decode_policies(recorded("policies"))
    template = Template(2, "192.0.2.1", "192.0.2.2", 50, 0, 1, Mode.TUNNEL)
    assert out.selector == Selector(2, "10.1.0.0/16", "10.2.0.0/16")
    assert (out.direction, out.priority, out.if_id, out.mark) == (Direction.OUT, 1000, 7, Mark(1, 0xFF))
    assert out.templates == (template,)
    assert out.protects
    assert forward.templates == (template._replace(src="192.0.2.2", dst="192.0.2.1", optional=True),)
    assert (forward.direction, forward.protects) == (Direction.FORWARD, False)
    assert (block.action, block.flags, block.direction) == (1, 2, Direction.IN)
    assert block.selector == Selector(10, "2001:db8:1::/48", "2001:db8:2::/48", 6, dport=443, dport_mask=0xFFFF)
    assert [(each.direction, each.socket) for each in (socket_in, socket_out)] == [
        (Direction.IN, True),
        (Direction.OUT, True),
    ]
    assert not out.socket


def test_numbers_of_an_sa():
    (sa,) = decode_sas(dumped(config(5), counters=(1 << 40, 1 << 33, 1_700_000_000, 0)))
    assert sa.counters == Counters(1 << 40, 1 << 33, 1_700_000_000, None)
    assert (sa.reqid, sa.spi, sa.dst) == (5, 0xC0000005, "10.0.0.5")
    (sa,) = decode_sas(dumped(config(5)))
    assert (sa.last_used, sa.counters.use_time) == (1_700_000_001, 1_700_000_001)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("if_id", 0xFFFFFFFF),
        ("mark", Mark(0x12, 0xFF)),
        ("output_mark", Mark(3, 0xFFFFFFFF)),
        ("direction", Direction.OUT),
        ("pcpu", 0),
        ("encap", Encap(2, 4500, 4501, "198.51.100.1")),
        ("encap", Encap(7, 4500, 4501)),
        ("offload", Offload(3, 6)),
        ("extra_flags", 3),
        ("tfc_pad", 1500),
        ("nat_keepalive_seconds", 20),
        ("mapping_threshold_seconds", 60),
        ("care_of_address", "203.0.113.9"),
        ("iptfs", Iptfs(drop_time=1_000_000, reorder_window=3)),
        ("iptfs", Iptfs(dont_frag=True, init_delay=5, max_queue_size=1 << 20, packet_size=1400)),
        ("lifetime", Lifetime(1, 2, 3, 4, 5, 6, 7, 8)),
        ("selector", Selector(2, "10.1.0.0/16", "10.2.3.4/32", 17, 1, 0xFFFF, 2, 0xFFFE, 9, 1000)),
        ("acquire_sequence", 77),
        ("mode", Mode.IPTFS),
        ("proto", 51),
        ("flags", 128 | 8),
    ],
)
def test_each_field(field, value):
    asked = replace(config(), **{field: value})
    assert getattr(read(asked), field) == value


def test_ipv6_ends():
    sa = read(replace(config(), src="2001:db8::1", dst="2001:db8::ffff"))
    assert (sa.family, sa.src, sa.dst) == (10, "2001:db8::1", "2001:db8::ffff")


def test_separate_algorithms():
    asked = replace(config(), aead=None, crypt=Crypt("cbc(aes)", bytes(32)), auth=Auth("hmac(sha512)", bytes(64), 256))
    sa = read(asked)
    assert (sa.algorithm, sa.key_bits) == ("cbc(aes)", 256)
    assert (sa.auth_algorithm, sa.auth_key_bits, sa.icv_bits) == ("hmac(sha512)", 512, 256)
    assert not sa.larval


def test_compression():
    sa = read(replace(config(), aead=None, esn=False, replay_window=0, proto=108, compression="deflate"))
    assert (sa.compression, sa.algorithm, sa.larval) == ("deflate", None, False)


def test_sequence_numbers():
    wide = Replay(oseq=(5 << 32) + 7, seq=(3 << 32) + 9, window=256, esn=True)
    assert read(replace(config(), replay=wide)).replay == wide
    narrow = Replay(oseq=7, seq=9, window=32, esn=False)
    assert read(replace(config(), esn=False, replay_window=32, replay=narrow)).replay == narrow
    large = Replay(oseq=7, seq=9, window=1024, esn=False)
    assert read(replace(config(), esn=False, replay=large)).replay == large


def test_larval_sa_has_addresses_without_a_family():
    body = bytearray(encode.sa(SAConfig(src="192.0.2.1", dst="192.0.2.2", spi=1)))
    struct.pack_into("=4s12x4s12x", body, 0, bytes([192, 0, 2, 2]), bytes([192, 0, 2, 1]))
    body[42], body[43] = 32, 32
    (sa,) = decode_sas(message(Msg.NEWSA, body))
    assert sa.larval
    assert sa.selector == Selector(0, "192.0.2.1/32", "192.0.2.2/32")


def test_sas_of_many_shapes_in_one_dump():
    asked = [
        replace(config(1), mark=Mark(1, 1)),
        config(2),
        replace(config(3), pcpu=1),
        replace(config(4), if_id=0, aead=Aead("rfc4106(gcm(aes))", bytes(36))),
        replace(config(5), mark=Mark(2, 3)),
        replace(config(6), encap=Encap(2, 1, 2)),
    ]
    one_by_one = [read(each) for each in asked]
    assert decode_sas(b"".join(dumped(each) for each in asked) + done()) == one_by_one
    assert len({sa.mark for sa in one_by_one}) == 3


def test_an_attribute_of_a_later_kernel_is_let_through():
    body = encode.sa(config())
    encode.add(body, 77, b"whatever")
    assert decode_sas(message(Msg.NEWSA, body))[0] == decode_sas(message(Msg.NEWSA, encode.sa(config())))[0]


def test_an_attribute_twice_is_the_last_one():
    body = encode.sa(config())
    encode.add_u32(body, Attr.IF_ID, 9)
    other = encode.sa(config())
    encode.add_u32(other, Attr.IF_ID, 10)
    dump = message(Msg.NEWSA, body) + message(Msg.NEWSA, other)
    assert [sa.if_id for sa in decode_sas(dump)] == [9, 10]


def break_family(body: bytearray) -> None:
    body[212:214] = b"\x07\0"


def break_prefix(body: bytearray) -> None:
    body[43] = 33


def break_name(body: bytearray) -> None:
    body[228 : 228 + 64] = b"\xff" * 64


def break_key_length(body: bytearray) -> None:
    struct.pack_into("=I", body, 228 + 64, 161)


def break_attribute_length(body: bytearray) -> None:
    struct.pack_into("=H", body, 224, 3)


def break_attribute_end(body: bytearray) -> None:
    struct.pack_into("=H", body, 224, 0xFFF0)


def break_bitmap(body: bytearray) -> None:
    at = 224 + 4 + 72 + 20
    assert struct.unpack_from("=HHI", body, at) == (4 + 24 + 16, Attr.REPLAY_ESN_VAL, 4)
    struct.pack_into("=I", body, at + 4, 5)


def break_direction(body: bytearray) -> None:
    assert body[-8:-4] == struct.pack("=HH", 5, Attr.SA_DIR)
    body[-4] = 3


@pytest.mark.parametrize(
    "harm",
    [
        break_family,
        break_prefix,
        break_name,
        break_key_length,
        break_attribute_length,
        break_attribute_end,
        break_bitmap,
        break_direction,
    ],
)
def test_what_is_corrupt_raises(harm):
    body = encode.sa(replace(config(), if_id=0))
    assert decode_sas(message(Msg.NEWSA, body))
    harm(body)
    with pytest.raises(DecodeError, match=r"^xfrm: corrupt netlink message: "):
        decode_sas(message(Msg.NEWSA, body))


def test_a_message_of_another_type_raises():
    with pytest.raises(DecodeError, match="type 19 in a dump of type 16"):
        decode_sas(recorded("policies"))
    with pytest.raises(DecodeError, match="type 16 in a dump of type 19"):
        decode_policies(recorded("sas"))
    with pytest.raises(DecodeError):
        decode_sas(ack(1))


def test_a_policy_as_it_was_asked_for():
    asked = Policy(
        Selector(10, "2001:db8:1::/48", "::/0", 6, 0, 0, 443, 0xFFFF),
        Direction.IN,
        8,
        4_000_000_000,
        0,
        templates=(
            Template(2, "192.0.2.1", "192.0.2.2", 50, 0x100, 7, Mode.TUNNEL, False, 3, 1, 2, 3),
            Template(10, "::", "::", 51, 0, 0, Mode.TRANSPORT, True),
        ),
        if_id=5,
        mark=Mark(1, 0xF),
        flags=7,
        type=1,
        offload=Offload(4, 4),
        counters=Counters(0, 0, 0, None),
        lifetime=Lifetime(hard_use_seconds=9),
    )
    assert decode_policies(message(Msg.NEWPOLICY, encode.policy(asked))) == [asked]


@pytest.mark.parametrize(("size", "least"), [(63, "cut off"), (65, "cut off"), (7 * 64, "cut off")])
def test_templates_of_a_wrong_size_raise(size, least):
    body = bytearray(encode.policy(decode_policies(recorded("policies"))[2]))
    encode.add(body, Attr.TMPL, bytes(size))
    with pytest.raises(DecodeError, match=least):
        decode_policies(message(Msg.NEWPOLICY, body))


def test_a_policy_direction_beyond_those_of_sockets_raises():
    body = encode.policy(decode_policies(recorded("policies"))[2])
    body[160] = 6
    with pytest.raises(DecodeError, match="direction"):
        decode_policies(message(Msg.NEWPOLICY, body))


def test_database_info():
    body = bytearray(4)
    encode.add_u32(body, 1, 1234)
    encode.add(body, 2, struct.pack("=II", 8, 1 << 20))
    assert info.sad_info(memoryview(body)) == SadInfo(1234, 8, 1 << 20)
    body = bytearray(4)
    encode.add(body, 1, struct.pack("=6I", 1, 2, 3, 4, 5, 6))
    encode.add(body, 2, struct.pack("=II", 7, 8))
    encode.add(body, 3, bytes([9, 10]))
    with pytest.raises(DecodeError, match="SPDINFO"):
        info.spd_info(memoryview(body))
    encode.add(body, 4, bytes([11, 12]))
    assert info.spd_info(memoryview(body)) == SpdInfo(1, 2, 3, 4, 5, 6, 7, 8, Thresholds(9, 10), Thresholds(11, 12))
    assert info.default_policy(memoryview(b"\1\2\2\0")) == DefaultPolicy(1, 2, 2)
    assert uapi.USERPOLICY_DEFAULT.size == 3
