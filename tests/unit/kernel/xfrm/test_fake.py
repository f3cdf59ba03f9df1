"""FakeXfrm behaves as the kernel does where its callers can tell."""

import asyncio
import errno
from dataclasses import replace

import pytest

from flowfast.kernel.xfrm import (
    Aead,
    Auth,
    Crypt,
    DefaultAction,
    DefaultChanged,
    DefaultPolicy,
    FakeXfrm,
    Group,
    Migrated,
    Migration,
    PoliciesFlushed,
    PolicyAdded,
    PolicyDeleted,
    PolicyUpdated,
    Resync,
    SaAdded,
    SaDeleted,
    SaExpired,
    SaFlushed,
    SaUpdated,
    Thresholds,
    make_policy,
    make_sa,
)
from flowfast.model.errors import KernelError
from flowfast.model.sa import Counters, Direction, Lifetime, Mark, Mode, Replay
from tests.unit.kernel.xfrm.dumps import config

INBOUND = config(1)
OUTBOUND = replace(config(2), direction=Direction.OUT, replay_window=0)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 5))


def refused(coroutine, code: int, text: str = "") -> None:
    with pytest.raises(KernelError) as caught:
        run(coroutine)
    assert caught.value.code == code
    assert text in str(caught.value)


def test_an_sa_lives_and_dies_with_its_last_counters() -> None:
    async def body() -> None:
        xfrm = FakeXfrm()
        async with xfrm.events() as events:
            await xfrm.add_sa(INBOUND)
            (sa,) = await xfrm.sas()
            assert (sa.algorithm, sa.key_bits, sa.replay) == ("rfc4106(gcm(aes))", 160, Replay(0, 0, 128, True))
            assert await xfrm.get_sa(*sa.key[:2]) == sa
            counted = xfrm.count(sa.dst, sa.spi, 1000, 10)
            assert (counted.counters.bytes, counted.counters.packets, counted.replay.seq) == (1000, 10, 10)
            await xfrm.delete_sa(sa.dst, sa.spi)
            assert await anext(events) == SaAdded(sa)
            assert await anext(events) == SaDeleted(counted)
            assert await xfrm.sas() == []

    run(body())


def test_what_exists_and_what_is_missing() -> None:
    xfrm = FakeXfrm([make_sa()], [make_policy()])
    sa, policy = make_sa(), make_policy()
    same = replace(INBOUND, src=sa.src, dst=sa.dst, spi=sa.spi)
    refused(xfrm.add_sa(same), errno.EEXIST, "xfrm: add SA spi 0xc0000001 dst 192.0.2.2: File exists")
    refused(xfrm.update_sa(INBOUND), errno.ESRCH)
    refused(xfrm.get_sa(sa.dst, 1), errno.ESRCH)
    refused(xfrm.get_sa(sa.dst, sa.spi, 51), errno.ESRCH)
    refused(xfrm.delete_sa(sa.dst, 1), errno.ESRCH)
    refused(xfrm.expire(sa.dst, 1), errno.ENOENT)
    refused(xfrm.add_policy(policy), errno.EEXIST)
    refused(xfrm.get_policy(policy.selector, Direction.IN), errno.ENOENT)
    refused(xfrm.delete_policy(policy.selector, policy.direction, if_id=1), errno.ENOENT)


def test_a_mark_is_compared_under_the_mask_of_the_sa() -> None:
    marked = make_sa(mark=Mark(1, 0xF))
    xfrm = FakeXfrm([marked, make_sa(mark=Mark(2, 0xF))])
    assert run(xfrm.get_sa(marked.dst, marked.spi, mark=Mark(0x31, 0xFF))) == marked
    refused(xfrm.get_sa(marked.dst, marked.spi), errno.ESRCH)


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"direction": None, "pcpu": 0}, errno.EINVAL, "SA_PCPU only supported with SA_DIR"),
        ({"pcpu": 8}, errno.ERANGE, "pCPU number too big"),
        ({"direction": Direction.OUT}, errno.EINVAL, "Replay window should be 0 for output SA"),
        ({"replay_window": 0}, errno.EINVAL, "ESN replay window must be > 0"),
        ({"aead": None}, errno.EINVAL, "Missing required attribute for ESP"),
        ({"crypt": Crypt("cbc(aes)", b"")}, errno.EINVAL, "ESP"),
        ({"mode": Mode.TRANSPORT, "tfc_pad": 1}, errno.EINVAL, "TFC padding can only be used in tunnel mode"),
        ({"mode": Mode.IPTFS, "direction": None}, errno.EINVAL, ""),
        ({"proto": 51}, errno.EINVAL, "AH"),
        ({"proto": 108}, errno.EINVAL, "COMP"),
        ({"proto": 17}, errno.EINVAL, "protocol"),
    ],
)
def test_what_does_not_go_together(change: dict[str, object], code: int, text: str) -> None:
    refused(FakeXfrm(cpus=8).add_sa(replace(INBOUND, **change)), code, text)


def test_an_outbound_sa_for_a_cpu() -> None:
    xfrm = FakeXfrm(cpus=2)
    run(xfrm.add_sa(replace(OUTBOUND, pcpu=1)))
    (sa,) = run(xfrm.sas())
    assert (sa.pcpu, sa.replay.window, xfrm.count(sa.dst, sa.spi, 5, 1).replay.oseq) == (1, 0, 1)


def test_an_allocated_spi_becomes_an_sa() -> None:
    async def body() -> None:
        xfrm = FakeXfrm([make_sa(spi=0x100)])
        async with xfrm.events() as events:
            larval = await xfrm.alloc_spi("192.0.2.1", "192.0.2.2", low=0x100, high=0x101, reqid=4)
            assert (larval.larval, larval.spi, larval.lifetime) == (True, 0x101, Lifetime(hard_add_seconds=30))
            with pytest.raises(KernelError) as caught:
                await xfrm.alloc_spi("192.0.2.1", "192.0.2.2", low=0x100, high=0x101)
            assert caught.value.code == errno.ENOENT
            with pytest.raises(KernelError) as caught:
                await xfrm.expire(larval.dst, larval.spi)
            assert caught.value.code == errno.EINVAL
            await xfrm.update_sa(replace(INBOUND, dst=larval.dst, spi=larval.spi))
            (_, sa) = await xfrm.sas()
            assert not sa.larval
            assert await anext(events) == SaUpdated(sa)  # and nothing for the allocation

    run(body())


def test_updating_an_sa_in_use_changes_no_more_than_its_limits() -> None:
    xfrm = FakeXfrm([make_sa(dst=INBOUND.dst, spi=INBOUND.spi, size=5, direction=Direction.IN)])
    run(xfrm.update_sa(replace(INBOUND, reqid=99, lifetime=Lifetime(hard_bytes=7))))
    (sa,) = run(xfrm.sas())
    assert (sa.reqid, sa.lifetime, sa.counters.bytes) == (1, Lifetime(hard_bytes=7), 5)


def test_expiry_and_flush() -> None:
    async def body() -> None:
        first, second, third = make_sa(spi=1), make_sa(spi=2), make_sa(spi=3, proto=51)
        xfrm = FakeXfrm([first, second, third])
        events = xfrm.events()
        await xfrm.expire(first.dst, 1)
        await xfrm.expire(first.dst, 1, hard=True)
        await xfrm.flush_sas(50)
        await xfrm.flush_sas(50)
        assert [await anext(events) for _ in range(3)] == [
            SaExpired(first, False),
            SaExpired(first, True),
            SaFlushed(50),
        ]
        assert await xfrm.sas() == [third]
        assert (await xfrm.sad_info()).sas == 1
        xfrm.close()
        assert [event async for event in events] == []

    run(body())


def test_filtered_dumps() -> None:
    xfrm = FakeXfrm([make_sa(), make_sa(src="10.9.0.1", spi=2, proto=51)])
    assert len(run(xfrm.sas(proto=51))) == 1
    assert len(run(xfrm.sas(src="192.0.2.0/24"))) == 1
    assert len(run(xfrm.sas(dst="192.0.2.2"))) == 2


def test_policies() -> None:
    async def body() -> None:
        xfrm = FakeXfrm()
        asked = make_policy()
        async with xfrm.events([Group.POLICY]) as events:
            await xfrm.add_policy(asked)
            await xfrm.add_policy(make_policy(if_id=5))
            await xfrm.add_policy(make_policy(direction=Direction.FORWARD))
            indexes = [policy.policy_index for policy in await xfrm.policies()]
            assert [index & 7 for index in indexes] == [1, 1, 2]
            assert len(set(indexes)) == 3
            stored = await xfrm.get_policy(asked.selector, Direction.OUT)
            assert await xfrm.get_policy(asked.selector, Direction.OUT, policy_index=stored.policy_index) == stored
            await xfrm.update_policy(make_policy(priority=5))
            updated = await xfrm.get_policy(asked.selector, Direction.OUT)
            assert (updated.priority, updated.policy_index) == (5, stored.policy_index)
            await xfrm.delete_policy(asked.selector, Direction.OUT, if_id=5)
            info = await xfrm.spd_info()
            assert (info.inbound, info.outbound, info.forward) == (0, 1, 1)
            xfrm.put(make_policy(socket=True))
            await xfrm.flush_policies()
            await xfrm.flush_policies()
            assert [policy.socket for policy in await xfrm.policies()] == [True]
            kinds = [type(await anext(events)) for _ in range(6)]
        assert kinds == [PolicyAdded, PolicyAdded, PolicyAdded, PolicyUpdated, PolicyDeleted, PoliciesFlushed]

    run(body())


def test_defaults_and_thresholds() -> None:
    async def body() -> None:
        xfrm = FakeXfrm()
        events = xfrm.events()
        await xfrm.set_default(DefaultPolicy(forward=DefaultAction.BLOCK))
        blocked = DefaultPolicy(DefaultAction.ACCEPT, DefaultAction.BLOCK, DefaultAction.ACCEPT)
        assert await xfrm.get_default() == blocked
        assert await anext(events) == DefaultChanged(blocked)
        await xfrm.set_spd_thresholds(ipv6=Thresholds(56, 48))
        info = await xfrm.spd_info()
        assert (info.ipv4, info.ipv6) == (Thresholds(32, 32), Thresholds(56, 48))
        with pytest.raises(KernelError):
            await xfrm.set_spd_thresholds(ipv4=Thresholds(33, 0))

    run(body())


def test_state_of_an_sa() -> None:
    async def body() -> None:
        sa = make_sa(direction=Direction.IN)
        xfrm = FakeXfrm([sa])
        events = xfrm.events([Group.AEVENTS])
        state = Replay(0, 1 << 40, 128, True)
        await xfrm.new_ae(sa.dst, sa.spi, replay=state, counters=Counters(1, 2, 3, 4))
        assert (await xfrm.get_ae(sa.dst, sa.spi)).replay == state
        assert (await anext(events)).counters == Counters(1, 2, 3, 4)
        for wrong in ({}, {"replay": state._replace(window=64)}):
            with pytest.raises(KernelError):
                await xfrm.new_ae(sa.dst, sa.spi, **wrong)

    run(body())


def test_migration_moves_policy_and_sas() -> None:
    async def body() -> None:
        xfrm = FakeXfrm([make_sa()], [make_policy()])
        events = xfrm.events()
        move = Migration("192.0.2.1", "192.0.2.2", "198.51.100.1", "198.51.100.2", 50, Mode.TUNNEL, 1)
        await xfrm.migrate(make_policy().selector, Direction.OUT, [move])
        ((sa,), (policy,)) = await xfrm.sas(), await xfrm.policies()
        assert (sa.src, sa.dst) == (policy.templates[0].src, policy.templates[0].dst) == (move.new_src, move.new_dst)
        assert await anext(events) == Migrated(policy.selector, Direction.OUT, (move,))

    run(body())


def test_a_listener_hears_its_groups_and_every_resync() -> None:
    async def body() -> None:
        xfrm = FakeXfrm()
        events = xfrm.events([Group.POLICY])
        await xfrm.add_sa(replace(INBOUND, aead=None, auth=Auth("hmac(sha256)", b""), crypt=Crypt("cbc(aes)", b"")))
        xfrm.emit(Resync("lost"))
        waiting = asyncio.create_task(anext(events))
        assert await waiting == Resync("lost")
        later = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        await xfrm.add_policy(make_policy())
        assert isinstance(await later, PolicyAdded)

    run(body())


def test_builders_say_what_was_left_out() -> None:
    assert make_sa().replay.window == 0
    assert make_sa(direction=Direction.IN).replay.window == 128
    assert make_sa(dst="2001:db8::2").family == 10
    assert make_sa(algorithm=None).larval
    assert make_policy().protects
    assert not make_policy(tunnel=None).protects
    assert Aead("a", b"k").icv_bits == 128
