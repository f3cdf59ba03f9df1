"""The XFRM socket against real kernels: what is asked for is what is reported, told and refused."""

import asyncio
import errno
import itertools
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pyroute2 import netns

from flowfast.kernel.xfrm import (
    DEFAULT_GROUPS,
    Acquire,
    Aead,
    AeFlag,
    AsyncEvent,
    AsyncXfrmSocket,
    Auth,
    Crypt,
    DefaultAction,
    DefaultChanged,
    DefaultPolicy,
    ExtraFlag,
    Group,
    Migration,
    PoliciesFlushed,
    PolicyAdded,
    PolicyDeleted,
    PolicyExpired,
    PolicyFlag,
    PolicyUpdated,
    Resync,
    SaAdded,
    SAConfig,
    SaDeleted,
    SaExpired,
    SaFlushed,
    SaUpdated,
    StateFlag,
    Thresholds,
    encode,
    make_policy,
    uapi,
)
from flowfast.kernel.xfrm.fake import reported
from flowfast.kernel.xfrm.rules import refusal
from flowfast.kernel.xfrm.uapi import Msg
from flowfast.model.errors import KernelError
from flowfast.model.sa import (
    SA,
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
from tests.unit.kernel.xfrm.test_keys import Secret, leaks

pytestmark = pytest.mark.guest(images=["debian14", "debian13", "debian12"])

SRC, DST = "192.0.2.1", "192.0.2.2"
GCM = Aead("rfc4106(gcm(aes))", bytes(range(20)))
BASE = SAConfig(src=SRC, dst=DST, spi=0xC0000001, reqid=7, aead=GCM, esn=True, replay_window=128)

HZ = 250  # of Debian's kernels

DIRECTIONS = {"debian14", "debian13"}  # XFRMA_SA_DIR came with 6.10
PER_CPU = {"debian14", "debian13"}  # XFRMA_SA_PCPU with 6.13, and with Debian's 6.12.117
IPTFS = {"debian14"}  # with 6.14

Body = Callable[[AsyncXfrmSocket], Coroutine[Any, Any, None]]
_names = itertools.count()


@pytest.fixture
def ns() -> Iterator[str]:
    """A fresh network namespace, in which lo and a dummy device with addresses of both families are up."""
    name = f"xfrm{next(_names)}"
    netns.create(name)
    for line in (
        "link set lo up",
        "link add d0 type dummy",
        f"address add {SRC}/24 dev d0",
        "address add 2001:db8::1/64 dev d0 nodad",
        "link set d0 up",
    ):
        ip(name, line)
    yield name
    netns.remove(name)


def ip(ns: str, line: str) -> str:
    """What `ip` prints in a namespace."""
    command = ["ip", "-n", ns, *line.split()]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def run(ns: str, body: Body) -> None:
    """Runs a test's coroutine with a socket in the namespace."""

    async def main() -> None:
        async with AsyncXfrmSocket(ns) as xfrm:
            await asyncio.wait_for(body(xfrm), 120)

    asyncio.run(main())


async def refused(asked: Coroutine[Any, Any, object]) -> KernelError:
    """The error that a request must end in."""
    with pytest.raises(KernelError) as caught:
        await asked
    return caught.value


def expected(asked: SAConfig, image: str) -> SA:
    """What the fake says the kernel reports; a kernel that does not know an attribute takes the SA and ignores it."""
    sa = reported(asked)
    if image not in DIRECTIONS:
        sa = sa._replace(direction=None, nat_keepalive_seconds=None)
    return sa if image in PER_CPU else sa._replace(pcpu=None)


CBC = {"aead": None, "crypt": Crypt("cbc(aes)", bytes(range(16))), "auth": Auth("hmac(sha256)", bytes(range(32)), 128)}
SIX = {"src": "2001:db8::1", "dst": "2001:db8::2"}
HOSTS = Selector(2, "10.0.0.1/32", "10.0.0.2/32")
ROUND_TRIPS: dict[str, dict[str, object]] = {
    "tunnel": {},
    "transport": {"mode": Mode.TRANSPORT},
    "beet": {"mode": Mode.BEET, "selector": HOSTS},
    "ipv6": SIX,
    "ipv6 transport": {**SIX, "mode": Mode.TRANSPORT},
    "icv 96": {"aead": Aead(GCM.name, GCM.key, 96)},
    "aes 256": {"aead": Aead(GCM.name, bytes(36))},
    "cbc": {**CBC, "esn": False},
    "cbc with esn": CBC,
    "no encryption": {**CBC, "crypt": Crypt("ecb(cipher_null)", b""), "esn": False},
    "ah": {**CBC, "crypt": None, "proto": 51, "esn": False},
    "small window": {"esn": False, "replay_window": 32},
    "no window": {"esn": False, "replay_window": 0},
    "wide window": {"replay_window": 4096},
    "wide window without esn": {"esn": False, "replay_window": 512},
    "sequence numbers": {"replay": Replay(0, (3 << 32) + 9, 128, True)},
    "sequence numbers without esn": {"esn": False, "replay": Replay(5, 6, 32, False)},
    "encapsulation": {"encap": Encap(2, 4500, 4501)},
    "original address": {"encap": Encap(2, 4500, 4501, "198.51.100.1"), "mode": Mode.TRANSPORT},
    "mark": {"mark": Mark(0x12, 0xFF)},
    "if_id": {"if_id": 42},
    "output mark": {"output_mark": Mark(3, 0xF0F)},
    "flags": {"flags": StateFlag.NOECN | StateFlag.NOPMTUDISC | StateFlag.DECAP_DSCP | StateFlag.ICMP},
    "either family": {"flags": StateFlag.AF_UNSPEC, "selector": Selector(0, "0.0.0.0/0", "0.0.0.0/0")},
    "extra flags": {"extra_flags": 3},
    "tfc padding": {"tfc_pad": 1400},
    "limits": {"lifetime": Lifetime(1 << 40, 1 << 41, 3, 4, 5000, 6000, 7000, 8000)},
    "selector": {"selector": Selector(2, "10.1.0.0/16", "10.2.3.4/32", 17, 1000, 0xFFFF, 53, 0xFFFF, user=7)},
    "selector of another family": {"selector": Selector(10, "2001:db8:1::/48", "2001:db8:2::/48")},
    "mapping threshold": {"mapping_threshold_seconds": 60, "encap": Encap(2, 4500, 4501)},
    "inbound": {"direction": Direction.IN},
    "nat keepalive": {
        "direction": Direction.OUT,
        "encap": Encap(2, 4500, 4501),
        "nat_keepalive_seconds": 20,
        "replay_window": 0,
        "esn": False,
    },
    "for a cpu": {"direction": Direction.IN, "pcpu": 0},
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_an_sa_is_reported_as_it_was_asked_for(ns: str, image: str, name: str) -> None:
    asked = replace(BASE, **ROUND_TRIPS[name])  # type: ignore[arg-type]

    async def body(xfrm: AsyncXfrmSocket) -> None:
        await xfrm.add_sa(asked)
        (sa,) = await xfrm.sas()
        want = expected(asked, image)
        assert sa._replace(counters=want.counters) == want
        assert sa.counters[:2] == (0, 0)
        assert abs(sa.counters.add_time - want.counters.add_time) < 60
        assert sa.counters.use_time is None
        assert await xfrm.get_sa(asked.dst, asked.spi, asked.proto, mark=asked.mark) == sa
        assert await xfrm.sas(proto=asked.proto) == [sa]
        assert await xfrm.sas(proto=108) == []
        assert await xfrm.sas(dst=asked.dst) == [sa]
        assert await xfrm.sas(src=asked.dst) == []

    run(ns, body)


def test_an_outbound_sa_with_esn_needs_no_window_where_there_are_directions(ns: str, image: str) -> None:
    asked = replace(BASE, direction=Direction.OUT, replay_window=0)

    async def body(xfrm: AsyncXfrmSocket) -> None:
        if image in DIRECTIONS:
            await xfrm.add_sa(asked)
            (sa,) = await xfrm.sas()
            assert (sa.direction, sa.replay) == (Direction.OUT, Replay(0, 0, 0, True))
        else:
            assert (await refused(xfrm.add_sa(asked))).code == errno.EINVAL
            assert await xfrm.sas() == []

    run(ns, body)


@pytest.mark.parametrize(
    "asked",
    [
        Iptfs(drop_time=1_000_000, reorder_window=3),
        Iptfs(dont_frag=True, init_delay=5000, max_queue_size=1 << 20, packet_size=1400),
    ],
)
def test_iptfs(ns: str, image: str, asked: Iptfs) -> None:
    module = subprocess.run(["modprobe", "xfrm_iptfs"], check=False, capture_output=True).returncode == 0
    inbound = asked.drop_time is not None
    config = replace(
        BASE,
        mode=Mode.IPTFS,
        direction=Direction.IN if inbound else Direction.OUT,
        replay_window=128 if inbound else 0,
        iptfs=asked,
    )

    async def body(xfrm: AsyncXfrmSocket) -> None:
        if image in IPTFS:
            await xfrm.add_sa(config)
            (sa,) = await xfrm.sas()
            # Without its module the kernel takes an SA of this mode, which can carry nothing, and says no more of it.
            assert (sa.mode, sa.iptfs) == (Mode.IPTFS, asked if module else None)
        else:
            assert (await refused(xfrm.add_sa(config))).code == errno.EINVAL

    run(ns, body)


def test_iproute2_knows_the_flags_and_modes_by_the_same_numbers(ns: str) -> None:
    """Flags and modes are macros, which no kernel carries: iproute2 was compiled with them."""
    flags = StateFlag.NOECN | StateFlag.DECAP_DSCP | StateFlag.NOPMTUDISC | StateFlag.ICMP | StateFlag.ALIGN4
    flags |= StateFlag.AF_UNSPEC | StateFlag.WILDRECV
    names = "noecn decap-dscp nopmtudisc wildrecv icmp af-unspec align4 esn"
    modes = {Mode.TRANSPORT: "transport", Mode.TUNNEL: "tunnel", Mode.BEET: "beet"}

    async def body(xfrm: AsyncXfrmSocket) -> None:
        for mode in modes:
            await xfrm.add_sa(replace(BASE, spi=0x100 + mode, mode=mode, selector=HOSTS))
        await xfrm.add_sa(replace(BASE, spi=0x200, flags=flags, extra_flags=ExtraFlag.OSEQ_MAY_WRAP))
        await xfrm.add_sa(replace(BASE, spi=0x201, extra_flags=ExtraFlag.DONT_ENCAP_DSCP))

    run(ns, body)
    text = " ".join(ip(ns, "-d xfrm state").split())
    for mode, name in modes.items():
        assert f"spi {0x100 + mode:#010x} reqid 7 mode {name} " in text
    assert f"flag {names}" in text
    text = ip(ns, "-s -d xfrm state")
    assert "extra_flag oseq-may-wrap" in text
    assert "extra_flag dont-encap-dscp" in text


def test_iproute2_sees_the_same(ns: str, image: str) -> None:
    asked = replace(
        BASE,
        encap=Encap(2, 4500, 4501),
        mark=Mark(0x12, 0xFF),
        if_id=42,
        output_mark=Mark(3, 0xF),
        flags=StateFlag.NOECN | StateFlag.DECAP_DSCP,
    )

    async def body(xfrm: AsyncXfrmSocket) -> None:
        await xfrm.add_sa(asked)
        await xfrm.add_sa(replace(BASE, spi=0xC0000002, mode=Mode.BEET, selector=HOSTS))
        await xfrm.add_policy(make_policy(if_id=5, priority=77, flags=PolicyFlag.ICMP | PolicyFlag.LOCALOK))

    run(ns, body)
    text = " ".join(ip(ns, "-d xfrm state").split())
    for part in (
        "proto esp spi 0xc0000001 reqid 7 mode tunnel",
        "flag noecn decap-dscp",
        "mark 0x12/0xff",
        "output-mark 0x3/0xf",
        "aead rfc4106(gcm(aes)) 0x000102",
        "encap type espinudp sport 4500 dport 4501",
        "replay_window 128, bitmap-length 4",
        "if_id 0x2a",
        "mode beet",
        "sel src 10.0.0.1/32 dst 10.0.0.2/32",
    ):
        assert part in text
    text = " ".join(ip(ns, "-d xfrm policy").split())
    for part in ("dir out", "priority 77", "localok", "icmp", "if_id 0x5", f"tmpl src {SRC} dst {DST}", "reqid 1"):
        assert part in text


BAD: dict[str, dict[str, object]] = {
    "no algorithm": {"aead": None},
    "too many algorithms": {"crypt": Crypt("cbc(aes)", bytes(16))},
    "ah without auth": {"proto": 51, "esn": False},
    "compression without algorithm": {"proto": 108, "aead": None, "esn": False, "spi": 0x100},
    "protocol": {"proto": 17, "esn": False},
    "tfc padding in transport mode": {"tfc_pad": 1, "mode": Mode.TRANSPORT},
    "esn without a window": {"replay_window": 0},
    "window on the way out": {"direction": Direction.OUT},
    "flags on the way out": {"direction": Direction.OUT, "replay_window": 0, "flags": StateFlag.DECAP_DSCP},
    "flags on the way in": {"direction": Direction.IN, "flags": StateFlag.NOPMTUDISC},
    "extra flags on the way in": {"direction": Direction.IN, "extra_flags": 1},
    "cpu without a direction": {"pcpu": 0},
    "cpu that cannot be": {"pcpu": 100_000, "direction": Direction.IN},
    "iptfs without a direction": {"mode": Mode.IPTFS},
}


@pytest.mark.parametrize("name", BAD)
def test_the_fake_refuses_what_the_kernel_refuses(ns: str, image: str, name: str) -> None:
    asked = replace(BASE, **BAD[name])  # type: ignore[arg-type]
    want = refusal(asked, 1)
    assert want is not None
    later = (asked.direction is not None and image not in DIRECTIONS) or (
        asked.pcpu is not None and image not in PER_CPU
    )

    async def body(xfrm: AsyncXfrmSocket) -> None:
        if later:  # what this kernel does not know, it cannot refuse
            return
        error = await refused(xfrm.add_sa(asked))
        assert error.code == want.code
        assert str(error).startswith(f"xfrm: add {asked}: ")
        if image == "debian14":
            assert str(error).removeprefix(f"xfrm: add {asked}: ") == (want.text or "Invalid argument")

    run(ns, body)


def test_a_later_kernels_attribute_is_ignored_by_an_older_one(ns: str, image: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        await xfrm.add_sa(replace(BASE, direction=Direction.IN, pcpu=0))
        (sa,) = await xfrm.sas()
        assert (sa.direction is not None, sa.pcpu is not None) == (image in DIRECTIONS, image in PER_CPU)

    run(ns, body)


def test_errors_say_what_the_kernel_said(ns: str, image: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        name = "SA spi 0xc0000001 dst 192.0.2.2"
        await xfrm.add_sa(BASE)
        assert str(await refused(xfrm.add_sa(BASE))) == f"xfrm: add {name}: File exists"
        bad = replace(BASE, spi=5, aead=Aead("rfc4106(gcm(none))", bytes(20)))
        text = str(await refused(xfrm.add_sa(bad)))
        assert text.startswith("xfrm: add SA spi 0x00000005 dst 192.0.2.2: ")
        assert text.endswith("Requested AEAD algorithm not found" if image != "debian12" else text[-5:])
        await xfrm.delete_sa(DST, BASE.spi)
        for asked, verb in ((xfrm.get_sa, "get"), (xfrm.delete_sa, "delete")):
            assert str(await refused(asked(DST, BASE.spi))) == f"xfrm: {verb} {name}: No such process"
        assert (await refused(xfrm.update_sa(BASE))).code == errno.ESRCH
        selector = Selector(2, "10.1.0.0/16", "10.2.0.0/16")
        line = "xfrm: delete policy out 10.1.0.0/16 -> 10.2.0.0/16: No such file or directory"
        assert str(await refused(xfrm.delete_policy(selector, Direction.OUT))) == line

    run(ns, body)


def test_offload_is_refused_by_a_device_that_has_none(ns: str, image: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        asked = replace(BASE, offload=Offload(1, uapi.OffloadFlag.PACKET | uapi.OffloadFlag.INBOUND))
        assert (await refused(xfrm.add_sa(asked))).code == errno.EINVAL
        assert (await refused(xfrm.add_sa(replace(BASE, offload=Offload(1, 0x80))))).code == errno.EINVAL
        await xfrm.add_sa(replace(BASE, offload=Offload(1, 0)))  # crypto offload falls back to software
        assert (await xfrm.sas())[0].offload is None
        policy = make_policy(offload=Offload(1, uapi.OffloadFlag.PACKET))
        if image == "debian12":  # packet offload of policies came with 6.2
            await xfrm.add_policy(policy)
        else:
            assert (await refused(xfrm.add_policy(policy))).code in (errno.EINVAL, errno.EOPNOTSUPP)

    run(ns, body)


POLICIES: dict[str, Policy] = {
    "out": make_policy(),
    "in": make_policy(direction=Direction.IN, priority=0),
    "forward": make_policy(direction=Direction.FORWARD, optional=True, priority=0xFFFFFFFF),
    "ipv6": make_policy("2001:db8:1::/48", "2001:db8:2::/48", tunnel=("2001:db8::1", "2001:db8::2")),
    "ipv4 in ipv6": make_policy(tunnel=("2001:db8::1", "2001:db8::2")),
    "block": make_policy(tunnel=None, action=1),
    "if_id and mark": make_policy(if_id=9, mark=Mark(1, 0xF)),
    "flags": make_policy(flags=PolicyFlag.LOCALOK | PolicyFlag.ICMP | PolicyFlag.CPU_ACQUIRE),
    "two templates": make_policy(direction=Direction.IN)._replace(
        templates=(
            Template(2, SRC, DST, 108, 0, 3, Mode.TUNNEL, True),
            Template(2, DST, SRC, 50, 0x100, 4, Mode.TRANSPORT, False, 3, 1, 2, 4),
        )
    ),
    "ports": make_policy()._replace(
        selector=Selector(2, "10.1.2.3/32", "0.0.0.0/0", 17, 1000, 0xFFFF, 53, 0xFFFE, 1, 7),
        lifetime=Lifetime(1, 2, 3, 4, 5000, 6000, 7000, 8000),
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_reported_as_it_was_asked_for(ns: str, name: str) -> None:
    asked = POLICIES[name]

    async def body(xfrm: AsyncXfrmSocket) -> None:
        key = {"if_id": asked.if_id, "mark": asked.mark}
        await xfrm.add_policy(asked)
        (policy,) = await xfrm.policies()
        assert policy.policy_index != 0
        assert policy._replace(policy_index=0, counters=asked.counters) == asked
        assert await xfrm.get_policy(asked.selector, asked.direction, **key) == policy
        index = policy.policy_index
        assert await xfrm.get_policy(asked.selector, asked.direction, policy_index=index, **key) == policy
        assert (await refused(xfrm.add_policy(asked))).code == errno.EEXIST
        await xfrm.update_policy(asked._replace(priority=5))
        (policy,) = await xfrm.policies()
        assert (policy.priority, policy.policy_index) == (5, index)
        await xfrm.delete_policy(asked.selector, asked.direction, **key)
        assert await xfrm.policies() == []
        assert (await refused(xfrm.get_policy(asked.selector, asked.direction, **key))).code == errno.ENOENT

    run(ns, body)


def test_policies_of_sockets_are_told_apart(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        sock = netns_socket(ns)
        allow = bytearray(encode.userpolicy_info(make_policy("0.0.0.0/0", "0.0.0.0/0", tunnel=None)))
        sock.setsockopt(socket.IPPROTO_IP, 17, bytes(allow))  # IP_XFRM_POLICY, as an IKE daemon does
        await xfrm.add_policy(make_policy())
        assert {(each.socket, each.direction) for each in await xfrm.policies()} == {
            (True, Direction.OUT),
            (False, Direction.OUT),
        }
        await xfrm.flush_policies()
        assert [each.socket for each in await xfrm.policies()] == [True]
        assert (await xfrm.spd_info()).socket_outbound == 1
        sock.close()

    run(ns, body)


def netns_socket(ns: str, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM, proto: int = 0) -> socket.socket:
    return netns.create_socket(ns, family, kind, proto, flags=0)


def test_allocated_spi(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        async with xfrm.events() as events:
            larval = await xfrm.alloc_spi(SRC, DST, low=0x1000, high=0x1000, reqid=7, mark=Mark(1, 1), if_id=3)
            assert (larval.spi, larval.larval, larval.reqid, larval.if_id) == (0x1000, True, 7, 3)
            assert (larval.src, larval.dst, larval.mark) == (SRC, DST, Mark(1, 1))
            assert await xfrm.sas() == [larval]
            taken = await refused(xfrm.alloc_spi(SRC, DST, low=0x1000, high=0x1000, reqid=8, mark=Mark(1, 1), if_id=3))
            assert taken.code == errno.ENOENT
            assert "allocate an SPI from 0x1000 to 0x1000 dst 192.0.2.2" in str(taken)
            await xfrm.update_sa(replace(BASE, spi=larval.spi, mark=Mark(1, 1), if_id=3))
            (sa,) = [each for each in await xfrm.sas() if each.spi]  # the failed allocation left one without an SPI
            assert (sa.larval, sa.algorithm) == (False, GCM.name)
            assert await anext(events) == SaUpdated(sa)

    run(ns, body)


def test_updating_an_sa_in_use(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        await xfrm.add_sa(BASE)
        await xfrm.update_sa(replace(BASE, reqid=99, lifetime=Lifetime(hard_bytes=7)))
        (sa,) = await xfrm.sas()
        assert (sa.reqid, sa.lifetime) == (7, Lifetime(hard_bytes=7))

    run(ns, body)


def test_expiry_by_hand_and_by_time(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        async with xfrm.events() as events:
            await xfrm.add_sa(BASE)
            await anext(events)
            await xfrm.expire(DST, BASE.spi)
            soft = await anext(events)
            assert isinstance(soft, SaExpired)
            assert (soft.hard, soft.sa.key, soft.sa.reqid) == (False, (DST, BASE.spi, 50), 7)
            await xfrm.expire(DST, BASE.spi, hard=True)
            hard = await anext(events)
            assert isinstance(hard, SaExpired)
            assert hard.hard
            assert await xfrm.sas() == []
            assert (await refused(xfrm.expire(DST, BASE.spi))).code == errno.ENOENT
            await xfrm.add_policy(make_policy()._replace(lifetime=Lifetime(hard_add_seconds=1)))
            added = await anext(events)
            assert isinstance(added, PolicyAdded)
            assert await anext(events) == PolicyExpired(added.policy, True)

    run(ns, body)


def test_databases_thresholds_and_defaults(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        await xfrm.add_sa(BASE)
        for direction in Direction:
            await xfrm.add_policy(make_policy(direction=direction))
        await xfrm.add_policy(make_policy(if_id=5))
        sad, spd = await xfrm.sad_info(), await xfrm.spd_info()
        assert sad.sas == 1
        assert 0 < sad.buckets <= sad.max_buckets
        assert (spd.inbound, spd.outbound, spd.forward, spd.socket_inbound) == (1, 2, 1, 0)
        assert (spd.ipv4, spd.ipv6) == (Thresholds(32, 32), Thresholds(128, 128))
        await xfrm.set_spd_thresholds(ipv4=Thresholds(24, 16), ipv6=Thresholds(64, 48))
        await xfrm.set_spd_thresholds(ipv6=Thresholds(56, 48))
        spd = await xfrm.spd_info()
        assert (spd.ipv4, spd.ipv6) == (Thresholds(24, 16), Thresholds(56, 48))
        assert (await refused(xfrm.set_spd_thresholds(ipv4=Thresholds(33, 0)))).code == errno.EINVAL
        accept, block = DefaultAction.ACCEPT, DefaultAction.BLOCK
        assert await xfrm.get_default() == DefaultPolicy(accept, accept, accept)
        async with xfrm.events() as events:
            await xfrm.set_default(DefaultPolicy(inbound=block))
            changed = DefaultPolicy(block, accept, accept)
            assert await anext(events) == DefaultChanged(changed)
            assert await xfrm.get_default() == changed

    run(ns, body)


def ping(ns: str, count: int, size: int = 100) -> None:
    """Sends pings that no one answers."""
    command = ["ip", "netns", "exec", ns, "ping", "-q", "-c", str(count), "-i", "0.02", "-W", "0.1", "-s", str(size)]
    subprocess.run([*command, "10.2.0.1"], check=False, capture_output=True)


async def outbound(xfrm: AsyncXfrmSocket, ns: str, **change: Any) -> SAConfig:
    """Lets pings to 10.2.0.1 leave by an SA."""
    ip(ns, "address add 10.1.0.1/32 dev lo")
    ip(ns, f"route add 10.2.0.0/24 via {DST} src 10.1.0.1")
    ip(ns, f"neighbour add {DST} lladdr 02:00:00:00:00:02 dev d0")
    await xfrm.add_policy(make_policy("10.1.0.0/24", "10.2.0.0/24", tunnel=(SRC, DST), reqid=7))
    asked = replace(BASE, **change)
    await xfrm.add_sa(asked)
    return asked


def test_events_and_the_last_counters_of_an_sa(ns: str, image: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        async with xfrm.events() as events:
            await outbound(xfrm, ns)
            assert isinstance(await anext(events), PolicyAdded)
            added = await anext(events)
            assert isinstance(added, SaAdded)
            assert added.sa.counters.packets == 0
            await asyncio.to_thread(ping, ns, 5)
            (last,) = await xfrm.sas()
            assert last.counters.packets == 5
            assert last.counters.bytes == 5 * (20 + 8 + 100)  # the inner packets
            assert last.replay.oseq == 5
            assert last.counters.use_time is not None
            assert (last.last_used is not None) == (image in DIRECTIONS)  # 6.1 gives it for Mobile IPv6 only
            await xfrm.delete_sa(DST, BASE.spi)
            assert await anext(events) == SaDeleted(last)
            await xfrm.update_policy(make_policy(priority=9))
            await xfrm.delete_policy(make_policy().selector, Direction.OUT)
            kinds = [type(await anext(events)) for _ in range(2)]
            assert kinds == [PolicyUpdated, PolicyDeleted]
            for spi in (1, 2):
                await xfrm.add_sa(replace(BASE, spi=0x100 + spi))
            await xfrm.add_policy(make_policy())
            await xfrm.flush_sas()
            await xfrm.flush_policies()
            kinds = [type(await anext(events)) for _ in range(3)]
            assert kinds == [SaAdded, SaAdded, PolicyAdded]
            assert [await anext(events) for _ in range(2)] == [SaFlushed(0), PoliciesFlushed(0)]

    run(ns, body)


def test_acquire(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        async with xfrm.events([Group.ACQUIRE]) as events:
            await outbound(xfrm, ns)
            await xfrm.delete_sa(DST, BASE.spi)
            await asyncio.to_thread(ping, ns, 1)
            event = await anext(events)
            assert isinstance(event, Acquire)
            assert (event.src, event.dst, event.proto, event.spi) == (SRC, DST, 50, 0)
            assert (event.selector.src, event.selector.dst) == ("10.1.0.1/32", "10.2.0.1/32")
            assert (event.templates[0].reqid, event.pcpu) == (7, None)
            (larval,) = await xfrm.sas()
            assert (larval.larval, larval.acquire_sequence) == (True, event.sequence)

    run(ns, body)


def test_acquire_for_a_cpu(ns: str, image: str) -> None:
    """With CPU_ACQUIRE and a fallback SA, the kernel asks for an SA for the CPU that sent, and sends on the fallback.

    Only the packet that asks: those behind it are dropped (XfrmOutNoStates) until the SA comes (7.2.12).
    """

    async def body(xfrm: AsyncXfrmSocket) -> None:
        direction = {"direction": Direction.OUT, "replay_window": 0} if image in DIRECTIONS else {}
        async with xfrm.events([Group.ACQUIRE]) as events:
            await outbound(xfrm, ns, **direction)
            policy = make_policy("10.1.0.0/24", "10.2.0.0/24", tunnel=(SRC, DST), reqid=7)
            await xfrm.update_policy(policy._replace(flags=PolicyFlag.CPU_ACQUIRE))
            sock = netns_socket(ns)
            sock.sendto(b"one packet, since a ping would ask for a route first", ("10.2.0.1", 9))
            sock.close()
            fallback = await xfrm.get_sa(DST, BASE.spi)
            assert fallback.counters.packets == 1
            if image not in PER_CPU:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(events), 0.2)
                return
            event = await anext(events)
            assert isinstance(event, Acquire)
            assert (event.pcpu, event.dst) == (0, DST)

    run(ns, body)


def test_state_of_an_sa(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        await outbound(xfrm, ns)
        async with xfrm.events([Group.AEVENTS]) as events:
            state = Replay((1 << 32) + 5, (2 << 32) + 6, 128, True)
            await xfrm.new_ae(DST, BASE.spi, replay=state, replay_threshold=3, timer_jiffies=600)
            told = await anext(events)
            assert isinstance(told, AsyncEvent)
            assert told.flags & AeFlag.CU
            assert told.replay == state
            got = await xfrm.get_ae(DST, BASE.spi)
            assert (got.replay, got.replay_threshold, got.reqid) == (state, 3, 7)
            assert got.timer_threshold == 600 * 10 // HZ
            assert got.counters is not None
            assert got.counters.packets == 0
            assert (await xfrm.get_sa(DST, BASE.spi)).replay == state
            await asyncio.to_thread(ping, ns, 4)
            pushed = await anext(events)
            assert isinstance(pushed, AsyncEvent)
            assert pushed.flags & AeFlag.CR
            assert pushed.replay is not None
            assert pushed.replay.oseq > state.oseq
            wrong = state._replace(window=64)
            assert (await refused(xfrm.new_ae(DST, BASE.spi, replay=wrong))).code == errno.EINVAL
            assert (await refused(xfrm.new_ae(DST, 5, replay=state))).code == errno.ESRCH

    run(ns, body)


def test_migration(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        await outbound(xfrm, ns)
        move = Migration(SRC, DST, SRC, "192.0.2.9", 50, Mode.TUNNEL, 7)
        await xfrm.migrate(make_policy("10.1.0.0/24", "10.2.0.0/24").selector, Direction.OUT, [move])
        ((policy,), (sa,)) = await xfrm.policies(), await xfrm.sas()
        assert (policy.templates[0].dst, sa.dst, sa.spi) == ("192.0.2.9", "192.0.2.9", BASE.spi)

    run(ns, body)


LARVAL = 20_000


def allocate_many(ns: str, count: int) -> None:
    """Larval SAs, a hundred to a datagram: one at a time would take minutes here."""
    sock = netns_socket(ns, socket.AF_NETLINK, socket.SOCK_RAW, uapi.NETLINK_XFRM)
    sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 23)
    buffer = bytearray(1 << 16)
    body = bytearray(encode.pack(uapi.USERSPI_INFO, encode.usersa_info(BASE, 0), 0x100, 0xFFFFFFF0))
    head = uapi.NLMSGHDR.pack(16 + len(body), Msg.ALLOCSPI, uapi.NLM_F_REQUEST, 1, 0)
    for start in range(0, count, 100):
        batch = bytearray()
        for number in range(start, start + 100):
            struct.pack_into("=I", body, 56 + 24 + 16 + 64 + 32 + 12 + 4, number + 1)  # reqid
            struct.pack_into(">I", body, 56, 0x0A000000 + number // 8)
            batch += head + body
        sock.send(batch)
        for _ in range(100):
            sock.recv_into(buffer)
    sock.close()


def test_a_large_dump_is_whole(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        await asyncio.to_thread(allocate_many, ns, LARVAL)
        sas = await xfrm.sas()
        assert {sa.reqid for sa in sas} == set(range(1, LARVAL + 1))
        assert len({sa.key for sa in sas}) == len(sas) == LARVAL == (await xfrm.sad_info()).sas

    # They would begin to expire while they are still being made.
    command = ["ip", "netns", "exec", ns, "sysctl", "-q", "-w", "net.core.xfrm_acq_expires=1000"]
    subprocess.run(command, check=True)
    run(ns, body)


def test_lost_notifications_are_told(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        async with xfrm.events([Group.SA], rcvbuf=4096) as events:
            for number in range(60):
                await xfrm.add_sa(replace(BASE, spi=0x1000 + number))
            got = []
            while not got or not isinstance(got[-1], Resync):
                got.append(await anext(events))
            assert 0 < len(got) < 60
            assert got[-1] == Resync("notifications came faster than they were read (ENOBUFS)")
            assert [event.sa.spi for event in got[:-1]] == list(range(0x1000, 0x1000 + len(got) - 1))
            await xfrm.delete_sa(DST, 0x1000)
            event = await anext(events)
            assert isinstance(event, SaDeleted)
            assert event.sa.spi == 0x1000

    run(ns, body)


def test_groups_are_heard_by_themselves(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        async with xfrm.events([Group.POLICY]) as policies, xfrm.events(DEFAULT_GROUPS) as everything:
            await xfrm.add_sa(BASE)
            await xfrm.add_policy(make_policy())
            assert isinstance(await anext(policies), PolicyAdded)
            assert [type(await anext(everything)) for _ in range(2)] == [SaAdded, PolicyAdded]

    run(ns, body)


def test_namespaces_are_apart(ns: str) -> None:
    async def body(xfrm: AsyncXfrmSocket) -> None:
        await xfrm.add_sa(BASE)
        async with AsyncXfrmSocket() as outside:
            assert await outside.sas() == []

    run(ns, body)


def test_no_key_of_the_kernel_is_left_in_this_process(ns: str) -> None:
    secret = Secret(20)

    async def body(xfrm: AsyncXfrmSocket) -> None:
        async with xfrm.events() as events:
            key = secret.key()
            await xfrm.add_sa(replace(BASE, aead=Aead(GCM.name, key)))
            key[:] = bytes(len(key))
            kept = [await xfrm.sas(), await xfrm.get_sa(DST, BASE.spi), await anext(events)]
            await xfrm.delete_sa(DST, BASE.spi)
            kept.append(await anext(events))
            assert leaks(secret) == [], kept

    run(ns, body)


def test_without_privileges_the_remedy_is_named() -> None:
    script = """
import asyncio, os
from flowfast.kernel.xfrm import AsyncXfrmSocket
from flowfast.model.errors import KernelError
os.setgid(65534)
os.setuid(65534)
async def main():
    async with AsyncXfrmSocket() as xfrm:
        await xfrm.sas()
try:
    asyncio.run(main())
except KernelError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/src")
    text = "xfrm: dump SAs: Operation not permitted (needs CAP_NET_ADMIN in this network namespace: run as root)"
    assert done.stdout.strip() == text
