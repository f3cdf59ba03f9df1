"""Requests and their replies: what is sent, what comes back, and what becomes of a reply that is not as it should."""

import asyncio
import errno
import gc
import os
import struct
from socket import AF_UNIX, SOCK_DGRAM, socketpair

import pytest

from flowfast.kernel.xfrm import AsyncXfrmSocket, Monitor, Resync, SaAdded, encode, receive, uapi
from flowfast.kernel.xfrm.session import ATTEMPTS, XfrmSession
from flowfast.kernel.xfrm.uapi import Msg
from flowfast.model.errors import DecodeError, KernelError, Unavailable
from flowfast.model.sa import Direction, Selector
from tests.unit.kernel.xfrm.dumps import ack, config, datagrams, done, dumped, message, recorded
from tests.unit.kernel.xfrm.scripted_kernel import scripted

SELECTOR = Selector(2, "10.1.0.0/16", "10.2.0.0/16")


def run(coroutine):
    """Runs it in a loop of its own, not longer than ten seconds."""
    return asyncio.run(asyncio.wait_for(coroutine, 10))


def dump(count: int, size: int = 4096) -> list[bytearray]:
    """The datagrams that answer a dump of so many SAs."""
    return datagrams([*(dumped(config(number)) for number in range(1, count + 1)), done()], size)


def test_a_dump_in_many_datagrams() -> None:
    async def body() -> None:
        async with scripted(dump(500)) as (xfrm, kernel):
            sas = await xfrm.sas()
        assert [sa.reqid for sa in sas] == list(range(1, 501))
        (asked,) = kernel.asked
        # Not a byte of payload: the kernel would log "bytes leftover after parsing attributes".
        assert (asked.length, asked.type) == (16, Msg.GETSA)
        assert asked.flags == uapi.NLM_F_REQUEST | uapi.NLM_F_DUMP

    run(body())


def test_an_empty_dump_and_a_dump_of_policies() -> None:
    async def body() -> None:
        async with scripted([done()], [bytearray(recorded("policies"))]) as (xfrm, _):
            assert await xfrm.sas() == []
            assert len(await xfrm.policies()) == 5

    run(body())


def test_filters_are_attributes() -> None:
    async def body() -> None:
        async with scripted([done()], [done()]) as (xfrm, kernel):
            await xfrm.sas(proto=50)
            await xfrm.sas(dst="192.0.2.0/24")
            assert [asked.length for asked in kernel.asked] == [16 + 8, 16 + 4 + 36]

    run(body())


def test_an_interrupted_dump_is_repeated() -> None:
    async def body() -> None:
        broken = dump(20)
        struct.pack_into("=H", broken[1], 6, uapi.NLM_F_MULTI | uapi.NLM_F_DUMP_INTR)
        async with scripted(broken, dump(21)) as (xfrm, kernel):
            assert len(await xfrm.sas()) == 21
            assert len(kernel.asked) == 2

    run(body())


def test_a_dump_that_is_always_interrupted_ends_in_an_error() -> None:
    async def body() -> None:
        end = [[done(flags=uapi.NLM_F_MULTI | uapi.NLM_F_DUMP_INTR)] for _ in range(ATTEMPTS + 1)]
        async with scripted(*end) as (xfrm, kernel):
            with pytest.raises(KernelError, match="xfrm: dump SAs: changed or was cut off 5 times") as caught:
                await xfrm.sas()
            assert caught.value.code == errno.EINTR
            assert len(kernel.asked) == ATTEMPTS

    run(body())


def test_a_datagram_that_is_cut_off_makes_the_buffer_grow() -> None:
    async def body() -> None:
        async with scripted(dump(200, 30000), dump(200, 30000), buffer_size=4096) as (xfrm, kernel):
            assert len(await xfrm.sas()) == 200
            assert len(kernel.asked) == 2

    run(body())


def test_a_dump_that_fails_half_way() -> None:
    async def body() -> None:
        answer = [*dump(3)[:-1], dumped(config()), done(code=-errno.ENOMEM)]
        async with scripted(answer) as (xfrm, _):
            with pytest.raises(KernelError, match=r"^xfrm: dump SAs: Cannot allocate memory$"):
                await xfrm.sas()

    run(body())


def test_a_corrupt_dump_raises_and_the_socket_lives_on() -> None:
    async def body() -> None:
        bad = dumped(config())
        bad[16 + 224 : 16 + 226] = b"\1\0"
        async with scripted([bad], dump(2)) as (xfrm, _):
            with pytest.raises(DecodeError, match="corrupt netlink message"):
                await xfrm.sas()
            assert len(await xfrm.sas()) == 2

    run(body())


def test_the_rest_of_an_abandoned_dump_is_waited_for() -> None:
    async def body() -> None:
        async with scripted([], [ack(errno.EBUSY)], dump(2)) as (xfrm, kernel):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(xfrm.sas(), 0.05)
            assert len(await xfrm.sas()) == 2
            assert [asked.type for asked in kernel.asked] == [Msg.GETSA] * 3

    run(body())


def test_the_collector_rests_during_a_dump_and_runs_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    take = receive.Reply.take
    monkeypatch.setattr(receive.Reply, "take", lambda self, view: (seen.append(gc.isenabled()), take(self, view))[1])

    async def body() -> None:
        async with scripted(dump(2), [ack(errno.ENOMEM)], [ack()]) as (xfrm, _):
            await xfrm.sas()
            assert gc.isenabled()
            with pytest.raises(KernelError):
                await xfrm.policies()
            assert gc.isenabled()
            await xfrm.flush_sas()

    run(body())
    assert seen == [False, False, True]


def test_one_dump_at_a_time() -> None:
    async def body() -> None:
        async with scripted(dump(50), [bytearray(recorded("policies"))], dump(3)) as (xfrm, _):
            first, policies, second = await asyncio.gather(xfrm.sas(), xfrm.policies(), xfrm.sas())
            assert (len(first), len(policies), len(second)) == (50, 5, 3)

    run(body())


def test_an_answer_to_nobody_is_dropped() -> None:
    async def body() -> None:
        async with scripted([ack()]) as (xfrm, kernel):
            kernel._end.send(dumped(config(), sequence=12345))
            kernel._end.send(b"short")
            await xfrm.flush_sas()

    run(body())


def test_get_and_the_acknowledgement_behind_it() -> None:
    async def body() -> None:
        async with scripted([dumped(config(7)), ack()]) as (xfrm, kernel):
            sa = await xfrm.get_sa("10.0.0.7", 0xC0000007)
            assert (sa.reqid, kernel.asked[0].length) == (7, 16 + 24)

    run(body())


@pytest.mark.parametrize(
    ("code", "text", "line"),
    [
        (errno.ESRCH, "", "No such process"),
        (errno.EINVAL, "SA_PCPU only supported with SA_DIR", "SA_PCPU only supported with SA_DIR"),
        (
            errno.EPERM,
            "",
            "Operation not permitted (needs CAP_NET_ADMIN in this network namespace: run as root)",
        ),
    ],
)
def test_errors_name_the_object_and_say_what_the_kernel_said(code: int, text: str, line: str) -> None:
    async def body() -> None:
        async with scripted(*[[ack(code, text)] for _ in range(4)]) as (xfrm, _):
            with pytest.raises(KernelError) as caught:
                await xfrm.add_sa(config())
            assert str(caught.value) == f"xfrm: add SA spi 0xc0000001 dst 10.0.0.1: {line}"
            assert caught.value.code == code
            with pytest.raises(KernelError) as caught:
                await xfrm.delete_sa("10.0.0.1", 0x10, 51)
            assert str(caught.value) == f"xfrm: delete SA spi 0x00000010 dst 10.0.0.1 proto 51: {line}"
            with pytest.raises(KernelError) as caught:
                await xfrm.get_policy(SELECTOR, Direction.FORWARD)
            assert str(caught.value) == f"xfrm: get policy fwd 10.1.0.0/16 -> 10.2.0.0/16: {line}"
            with pytest.raises(KernelError) as caught:
                await xfrm.policies()
            assert str(caught.value) == f"xfrm: dump policies: {line}"

    run(body())


def test_an_error_that_quotes_the_request() -> None:
    """As a kernel without NETLINK_CAP_ACK sends it: the extended ack stands behind the whole request."""

    async def body() -> None:
        quoted = message(Msg.NEWSA, encode.sa(config()))
        data = bytearray(struct.pack("=i", -errno.EINVAL)) + quoted
        encode.add(data, uapi.NLMSGERR_ATTR_MSG, b"because\0")
        answer = message(uapi.NLMSG_ERROR, data, flags=uapi.NLM_F_ACK_TLVS)
        async with scripted([answer]) as (xfrm, _):
            with pytest.raises(KernelError, match=r": because$"):
                await xfrm.add_sa(config())

    run(body())


def test_a_reply_of_the_wrong_type_raises() -> None:
    async def body() -> None:
        async with scripted([message(Msg.NEWPOLICY, bytes(168)), ack()]) as (xfrm, _):
            with pytest.raises(DecodeError, match="type 19 in answer to a request for type 16"):
                await xfrm.get_sa("10.0.0.1", 1)

    run(body())


def test_closing_ends_what_waits() -> None:
    async def body() -> None:
        async with scripted() as (xfrm, _):
            waiting = asyncio.create_task(xfrm.flush_sas())
            await asyncio.sleep(0.01)
            xfrm.close()
            with pytest.raises(KernelError) as caught:
                await waiting
            assert caught.value.code == errno.ECONNRESET

    run(body())


def test_a_namespace_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # No child is forked for it: the signal that ends one can reach our event loop.
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))

    async def body() -> None:
        async with AsyncXfrmSocket(netns="flowfast-none") as xfrm:
            with pytest.raises(Unavailable, match="xfrm: network namespace 'flowfast-none'"):
                await xfrm.sas()

    run(body())


class FailingSocket:
    """A socket whose recvmsg_into() first fails, and then says that there is nothing."""

    def __init__(self, sock, code: int) -> None:
        self._sock = sock
        self._codes = [code]

    def __getattr__(self, name: str):
        return getattr(self._sock, name)

    def recvmsg_into(self, *args: object):
        if self._codes:
            raise OSError(self._codes.pop(), "as asked")
        return self._sock.recvmsg_into(*args)

    def bind(self, address: object) -> None:
        self.bound = address


def monitored(code: int, *sent: bytes | bytearray, buffer_size: int = 1 << 16) -> list[object]:
    """The events of a monitor whose first read fails with `code`, with datagrams waiting behind it."""

    async def body() -> list[object]:
        ours, theirs = socketpair(AF_UNIX, SOCK_DGRAM)
        failing = FailingSocket(ours, code)
        if not code:
            failing._codes.clear()
        for datagram in sent:
            theirs.send(datagram)
        async with Monitor(XfrmSession(use_socket=failing), 0b110, buffer_size) as monitor:
            assert failing.bound == (0, 0b110)
            got = [await anext(monitor) for _ in sent]
            with pytest.raises(TimeoutError):
                got.append(await asyncio.wait_for(anext(monitor), 0.02))
                got.append(await asyncio.wait_for(anext(monitor), 0.02))
        theirs.close()
        ours.close()
        return got

    return run(body())


def added(number: int) -> bytearray:
    return message(Msg.NEWSA, encode.sa(config(number)), flags=0)


def test_lost_notifications_end_in_a_resync_behind_what_was_queued() -> None:
    first, second, resync = monitored(errno.ENOBUFS, added(1), added(2))
    assert [event.sa.reqid for event in (first, second)] == [1, 2]
    assert resync == Resync("notifications came faster than they were read (ENOBUFS)")


def test_a_notification_that_cannot_be_read_is_a_resync() -> None:
    bad = added(1)
    bad[16 + 212] = 7
    event, resync = monitored(0, bad, added(2))
    assert (event.sa.reqid, type(resync)) == (2, Resync)
    assert resync.reason.startswith("xfrm: corrupt netlink message")


def test_a_notification_that_is_cut_off_is_a_resync() -> None:
    event, resync = monitored(0, added(1), added(2), buffer_size=300)
    assert isinstance(event, SaAdded)
    assert event.sa.reqid == 2
    assert resync == Resync("a notification was longer than the receive buffer")


def test_another_error_of_a_monitor_is_raised() -> None:
    with pytest.raises(OSError, match="as asked"):
        monitored(errno.EIO, added(1))


def test_closing_a_monitor_ends_the_loop_that_waits() -> None:
    async def body() -> None:
        ours, theirs = socketpair(AF_UNIX, SOCK_DGRAM)
        monitor = Monitor(XfrmSession(use_socket=FailingSocket(ours, errno.EAGAIN)), 1)
        waiting = asyncio.create_task(anext(monitor))
        await asyncio.sleep(0.01)
        monitor.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        theirs.close()
        ours.close()

    run(body())
