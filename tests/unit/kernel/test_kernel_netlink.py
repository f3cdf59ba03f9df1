"""Netlink, decoded: what the kernel said in the guest, what no kernel would say, and what a socket does with it."""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.kernel import LinkChanged
from flowfast.kernel.conntrack import decode_flow
from flowfast.kernel.links import Changes
from flowfast.kernel.netlink import (
    GroupEvents,
    Message,
    Netlink,
    attribute,
    attributes,
    decoded,
    messages,
    nested,
    picked,
    text,
)
from flowfast.kernel.nft import wire
from flowfast.kernel.nft.wire import Generation, OnIngress
from flowfast.model.errors import DecodeError, KernelError, Unavailable
from flowfast.model.nftables import Flowtable, Hook, Table
from flowfast.model.state import CounterValue, Flow

INET, NETDEV = Table("inet", "flowfast"), Table("netdev", "flowfast")


def be32(value: int) -> bytes:
    return pack(">I", value & 0xFFFFFFFF)


def be64(value: int) -> bytes:
    return pack(">Q", value)


def string(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def message(kind: int, body: bytes, *, sequence: int = 1, flags: int = 0) -> bytes:
    return pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) % 4)


def nf(kind: int, *attrs: bytes, family: int = 0) -> Message:
    return Message(kind, 0, 1, memoryview(bytes((family, 0, 0, 0)) + b"".join(attrs)))


# frames


def test_messages_and_attributes_come_apart() -> None:
    body = attribute(1, b"abcde") + nested(2, string(3, "lan0"))
    (found,) = messages(memoryview(message(0x10, body)))
    assert (found.type, found.sequence) == (0x10, 1)
    kinds = dict(attributes(found.body))
    assert kinds.keys() == {1, 2}  # without NLA_F_NESTED
    assert bytes(kinds[1]) == b"abcde"
    assert text(dict(attributes(kinds[2]))[3]) == "lan0"
    assert picked(found.body, frozenset({1})).keys() == {1}


@pytest.mark.parametrize(
    "data", [b"\0" * 15, pack("=IHHII", 15, 1, 0, 0, 0), pack("=IHHII", 17, 1, 0, 0, 0), pack("=IHHII", 0, 1, 0, 0, 0)]
)
def test_a_damaged_message_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        list(messages(memoryview(data)))


@pytest.mark.parametrize("data", [pack("=HH", 3, 1), pack("=HH", 5, 1), pack("=HH", 0, 1)])
def test_a_damaged_attribute_is_a_decode_error(data: bytes) -> None:
    for take in (lambda of: list(attributes(of)), lambda of: picked(of, frozenset({1}))):
        with pytest.raises(DecodeError):
            take(memoryview(data))


def _decoders() -> list[Callable[[Message], Iterable[Any]]]:
    return [
        wire.generation_of,
        wire.decode_on_ingress,
        lambda message: wire.decode_base_chain(message, INET),
        lambda message: wire.decode_flowtable(message, INET),
        lambda message: wire.decode_counter(message, INET),
        Changes([(1, "lo")]).decode,
        lambda message: [decode_flow(message.body)],
    ]


_attribute_trees = st.recursive(
    st.builds(attribute, st.integers(0, 30), st.binary(max_size=24)),
    lambda inner: st.builds(
        lambda kind, parts: attribute(kind | 0x8000, b"".join(parts)), st.integers(0, 30), st.lists(inner, max_size=5)
    ),
    max_leaves=20,
)
_types = st.sampled_from([0, 16, 17, 20, 21, 0xA03, 0xA0C, 0xA0F, 0xA12, 0xA16, 0x100, 0xC00])
_bodies = st.one_of(
    st.binary(max_size=120),
    st.builds(
        lambda head, parts: head + b"".join(parts),
        st.sampled_from([bytes((1, 0, 0, 0)), bytes(4), bytes(16)]),
        st.lists(_attribute_trees, max_size=6),
    ),
)


@given(_types, _bodies)
def test_decoders_raise_nothing_but_decode_errors(kind: int, body: bytes) -> None:
    for decode in _decoders():
        try:
            decoded(decode, Message(kind, 0, 1, memoryview(body)))
        except DecodeError:
            continue


# nf_tables


def test_generation_with_and_without_who() -> None:
    told = nf(0xA0F, attribute(1, be32(7)), attribute(2, be32(4242)), string(3, "nft"))
    assert list(wire.generation_of(told)) == [Generation(7, 4242, "nft")]
    assert list(wire.generation_of(nf(0xA0F, attribute(1, be32(8))))) == [Generation(8, None, None)]
    assert list(wire.generation_of(nf(0xA00, string(1, "t")))) == []


def _chain(*hook: bytes, family: int = 5, policy: int = 1, table: str = "flowfast") -> Message:
    attrs = (string(1, table), string(3, "guard"), nested(4, *hook), attribute(5, be32(policy)), string(7, "filter"))
    return nf(0xA03, *attrs, family=family)


def test_base_chains_with_their_devices() -> None:
    place = (attribute(1, be32(0)), attribute(2, be32(-10)))
    one = _chain(*place, string(3, "wan0"), nested(4, string(1, "wan0")))
    assert list(wire.decode_base_chain(one, NETDEV)) == [("guard", Hook("filter", "ingress", -10, device="wan0"))]
    single = _chain(*place, string(3, "wan0"), policy=0)
    assert list(wire.decode_base_chain(single, NETDEV)) == [
        ("guard", Hook("filter", "ingress", -10, policy="drop", device="wan0"))
    ]
    several = _chain(*place, nested(4, string(1, "b"), string(1, "a"), string(2, "ppp")))
    assert [hook.device for _, hook in wire.decode_base_chain(several, NETDEV)] == ["a, b, ppp*"]
    forward = _chain(attribute(1, be32(2)), attribute(2, be32(2147483000)), family=1)
    assert list(wire.decode_base_chain(forward, INET)) == [("guard", Hook("filter", "forward", 2147483000))]
    assert list(wire.decode_base_chain(_chain(*place, table="his"), NETDEV)) == []
    assert list(wire.decode_base_chain(_chain(*place, family=1), NETDEV)) == []
    assert list(wire.decode_base_chain(nf(0xA03, string(1, "flowfast"), string(3, "c"), family=5), NETDEV)) == []


def test_flowtables_with_the_flags_that_json_drops() -> None:
    hook = nested(3, attribute(1, be32(0)), attribute(2, be32(0)), nested(3, string(1, "lan0"), string(1, "wan0")))
    counting = nf(0xA16, string(1, "flowfast"), string(2, "fast"), hook, attribute(7, be32(2)), family=1)
    assert list(wire.decode_flowtable(counting, INET)) == [Flowtable("fast", frozenset({"lan0", "wan0"}))]
    hardware = nf(0xA16, string(1, "flowfast"), string(2, "fast"), hook, attribute(7, be32(1)), family=1)
    (found,) = wire.decode_flowtable(hardware, INET)
    assert (found.counter, found.offload) == (False, True)
    bare = nf(
        0xA16,
        string(1, "flowfast"),
        string(2, "fast"),
        nested(3, attribute(1, be32(0)), attribute(2, be32(-5))),
        family=1,
    )
    assert list(wire.decode_flowtable(bare, INET)) == [Flowtable("fast", frozenset(), -5, counter=False)]


def test_counters_of_one_table_and_no_other_objects() -> None:
    data = nested(4, attribute(1, be64(4000)), attribute(2, be64(3)))
    mine = nf(0xA12, string(1, "flowfast"), string(2, "out_a"), attribute(3, be32(1)), data, family=1)
    assert list(wire.decode_counter(mine, INET)) == [("out_a", CounterValue(packets=3, bytes=4000))]
    quota = nf(0xA12, string(1, "flowfast"), string(2, "out_a"), attribute(3, be32(2)), data, family=1)
    assert list(wire.decode_counter(quota, INET)) == []


# hooks


def test_a_flowtable_on_ingress_is_known_by_name_or_by_function() -> None:
    place, function = attribute(2, be32(0)), string(4, "nf_flow_offload_inet_hook")
    described = nested(1, string(1, "flowfast"), attribute(2, b"\1"), string(3, "fast"))
    named = nf(0xC00, place, function, string(5, "nf_flow_table_inet"), nested(6, described, attribute(2, be32(3))))
    (hook,) = wire.decode_on_ingress(named)
    assert hook == OnIngress("nf_flow_offload_inet_hook", 0, "flowfast", "fast")
    (nameless,) = wire.decode_on_ingress(nf(0xC00, place, function))
    ours = Flowtable("fast", frozenset({"lan0"}))
    assert wire.is_flowtable(hook, INET, ours)
    assert not wire.is_flowtable(hook, Table("inet", "his"), ours)
    assert wire.is_flowtable(nameless, INET, ours)
    assert not wire.is_flowtable(nameless, INET, Flowtable("fast", ours.devices, priority=1))
    (chain,) = wire.decode_on_ingress(nf(0xC00, place, string(4, "nft_do_chain_netdev")))
    assert not wire.is_flowtable(chain, INET, ours)
    bpf = nested(6, nested(1, attribute(1, be32(5))), attribute(2, be32(2)))
    (program,) = wire.decode_on_ingress(nf(0xC00, place, string(4, "nf_hook_run_bpf"), bpf))
    assert (program.table, program.name) == (None, None)


class _Refuses:
    """A Netlink whose kernel says no."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __call__(self, _family: int) -> "_Refuses":
        return self

    def __enter__(self) -> "_Refuses":
        return self

    def __exit__(self, *_: object) -> None: ...

    def dump(self, *_: object, **__: object) -> list[Any]:
        raise KernelError("no", self.code)


def test_hooks_of_no_device_and_of_no_such_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "Netlink", _Refuses(errno.ENODEV))
    assert wire.on_ingress("gone") == []
    monkeypatch.setattr(wire, "Netlink", _Refuses(errno.EINVAL))
    with pytest.raises(Unavailable, match="nfnetlink_hook"):
        wire.on_ingress("lan0")
    monkeypatch.setattr(wire, "Netlink", _Refuses(errno.EPERM))
    with pytest.raises(KernelError):
        wire.on_ingress("lan0")


# conntrack

# Of kernel 7.2 (debian14): UDP over IPv4, offloaded, counted: no timeout, no protoinfo.
_V4 = nested(1, nested(1, attribute(1, bytes((10, 1, 0, 2))), attribute(2, bytes((10, 2, 0, 2)))),
             nested(2, attribute(1, b"\x11"), attribute(2, b"\x03\xe8"), attribute(3, b"\x07\xd0")))  # fmt: skip
_V4_BACK = nested(2, nested(1, attribute(1, bytes((10, 2, 0, 2))), attribute(2, bytes((10, 1, 0, 2)))),
                  nested(2, attribute(1, b"\x11"), attribute(2, b"\x07\xd0"), attribute(3, b"\x03\xe8")))  # fmt: skip


def _counted(kind: int, packets: int, size: int) -> bytes:
    return nested(kind, attribute(1, be64(packets)), attribute(2, be64(size)))


def test_an_offloaded_flow_without_timeout() -> None:
    body = bytes(4) + _V4 + _V4_BACK + attribute(3, be32(1 << 14 | 0b1110)) + _counted(9, 3, 300) + _counted(10, 4, 400)
    flow, status = decode_flow(memoryview(body))
    assert status & 1 << 14
    assert flow == Flow(
        2, 17, "10.1.0.2", "10.2.0.2", 1000, 2000, "10.2.0.2", "10.1.0.2", 2000, 1000,
        offloaded=True, hardware=False, established=True, bytes=(300, 400), packets=(3, 4),
    )  # fmt: skip


def test_what_was_not_counted_is_absent_and_not_zero() -> None:
    flow, _ = decode_flow(memoryview(bytes(4) + _V4 + _V4_BACK + attribute(3, be32(1 << 15))))
    assert (flow.bytes, flow.packets) == (None, None)
    assert (flow.hardware, flow.offloaded, flow.established) == (True, False, False)


def test_tuples_of_another_shape() -> None:
    six = bytes(15) + b"\1", bytes(15) + b"\2"
    ports = nested(2, attribute(1, b"\x06"), attribute(2, b"\0\5"), attribute(3, b"\0\6"))
    forth = nested(1, nested(1, attribute(3, six[0]), attribute(4, six[1])), ports)
    back = nested(2, nested(1, attribute(3, six[1]), attribute(4, six[0])), ports)
    flow, _ = decode_flow(memoryview(bytes(4) + forth + back))
    assert (flow.family, flow.proto, flow.src, flow.reply_src, flow.sport) == (10, 6, "::1", "::2", 5)
    zone = attribute(3, b"\0\7")  # CTA_TUPLE_ZONE makes it longer
    mixed = nested(
        1, nested(2, attribute(1, b"\x01")), nested(1, attribute(2, b"\1\2\3\4"), attribute(1, b"\4\3\2\1")), zone
    )
    flow, _ = decode_flow(memoryview(bytes(4) + mixed + _V4_BACK))
    assert (flow.src, flow.dst, flow.proto, flow.sport) == ("4.3.2.1", "1.2.3.4", 1, 0)


def test_an_entry_without_tuples_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="tuples"):
        decode_flow(memoryview(bytes(4) + _V4))


# links


def _link(kind: int, index: int, name: str, family: int = 0) -> Message:
    return Message(kind, 0, 1, memoryview(pack("=BxHiII", family, 1, index, 1, 0) + string(3, name)))


def test_links_that_come_change_names_and_go() -> None:
    changes = Changes([(1, "lo"), (2, "lan0")])

    def told(message: Message) -> list[LinkChanged]:
        return list(changes.decode(message))

    assert told(_link(16, 2, "lan0")) == [LinkChanged("lan0")]
    assert told(_link(16, 2, "lan1")) == [LinkChanged("lan0", gone=True), LinkChanged("lan1")]
    assert told(_link(16, 3, "wan0")) == [LinkChanged("wan0")]
    address = Message(20, 0, 1, memoryview(pack("=BBBBI", 2, 24, 0, 0, 3) + attribute(1, b"\n\1\0\1")))
    assert told(address) == [LinkChanged("wan0")]
    assert told(_link(17, 2, "lan1", family=7)) == []  # left its bridge
    assert told(_link(17, 2, "lan1")) == [LinkChanged("lan1", gone=True)]
    unknown = Message(21, 0, 1, memoryview(pack("=BBBBI", 2, 24, 0, 0, 99)))
    assert told(unknown) == [LinkChanged(None)]


# sockets


class _Script:
    """A socket that answers what a test wants, one datagram a call."""

    def __init__(self, *answers: bytes, truncated: bool = False) -> None:
        self.answers, self.sent, self.truncated = list(answers), [], truncated

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recvmsg_into(self, buffers: list[memoryview]) -> tuple[int, list[Any], int, None]:
        data = self.answers.pop(0)
        buffers[0][: len(data)] = data
        return len(data), [], socket.MSG_TRUNC if self.truncated else 0, None

    def close(self) -> None: ...


def _netlink(*answers: bytes, truncated: bool = False) -> Netlink:
    netlink = Netlink.__new__(Netlink)
    netlink.__dict__.update(
        _socket=_Script(*answers, truncated=truncated), _sequence=0, _interrupted=False, _buffer=bytearray(1 << 16)
    )
    return netlink


def _number(message: Message) -> list[int]:
    return [int.from_bytes(message.body)]


def test_a_dump_skips_what_is_of_an_older_request() -> None:
    stale, item = message(5, b"\0\0\0\1", sequence=9), message(5, b"\0\0\0\2")
    netlink = _netlink(stale + item, message(3, bytes(4)))
    assert netlink.dump(4, b"", _number) == [2]


def test_an_interrupted_dump_is_done_again() -> None:
    first = message(5, b"\0\0\0\1", flags=0x10) + message(3, bytes(4))
    again = message(5, b"\0\0\0\2", sequence=2) + message(3, bytes(4), sequence=2)
    assert _netlink(first, again).dump(4, b"", _number) == [2]
    ends = [message(3, bytes(4), sequence=n, flags=0x10) for n in range(1, 21)]  # the flag on the end alone
    with pytest.raises(KernelError, match="changed 20 times") as gave_up:
        _netlink(*ends).dump(4, b"", _number)
    assert gave_up.value.code == errno.EINTR


def test_refusals_carry_the_kernels_own_words() -> None:
    capped = pack("=i", -errno.EINVAL) + bytes(16) + string(1, "no such thing")
    with pytest.raises(KernelError, match=r"^asked: Invalid argument: no such thing$") as refused:
        _netlink(message(2, capped, flags=0x300)).request(4, b"", what="asked")
    assert refused.value.code == errno.EINVAL
    with pytest.raises(KernelError, match=r"^asked: No such file or directory$"):
        _netlink(message(2, pack("=i", -errno.ENOENT) + bytes(16))).request(4, b"", what="asked")
    with pytest.raises(KernelError, match=r"^asked: Device or resource busy$"):
        _netlink(message(3, pack("=i", -errno.EBUSY))).dump(4, b"", _number, what="asked")


def test_a_cut_off_answer_is_never_taken_for_whole() -> None:
    with pytest.raises(DecodeError, match="more than 65536 bytes"):
        _netlink(message(5, b"\0\0\0\1"), truncated=True).dump(4, b"", _number)


def test_lost_events_come_as_what_stands_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def listen() -> list[int]:
        with GroupEvents(socket.NETLINK_ROUTE, (), _number, lost=-1) as events:
            loop = asyncio.get_running_loop()
            answers: list[Any] = [OSError(errno.ENOBUFS, "lost"), message(5, b"\0\0\0\1") + message(5, b"\0\0\0\2")]

            async def recv(_socket: object, _size: int) -> bytes:
                answer = answers.pop(0)
                if isinstance(answer, OSError):
                    raise answer
                return bytes(answer)

            monkeypatch.setattr(loop, "sock_recv", recv)
            return [await anext(events) for _ in range(3)]

    assert asyncio.run(listen()) == [-1, 1, 2]


def test_a_closed_group_is_closed() -> None:
    events = GroupEvents(socket.NETLINK_ROUTE, (1,), _number, lost=-1)
    events.close()
    events.close()
    with pytest.raises(OSError, match=r"Bad file descriptor|invalid"):
        asyncio.run(_first(events))


async def _first(events: GroupEvents[int]) -> int:
    return await anext(events)
