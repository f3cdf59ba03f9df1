"""The kernel's edge against real kernels, of 6.1, 6.12 and 7.2: and FakeNft, that it refuses as they do."""

import asyncio
import ctypes
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from flowfast.kernel import LinkChanged, NewGeneration
from flowfast.kernel.conntrack import RealConntrack, create
from flowfast.kernel.links import RealLinks
from flowfast.kernel.nft import FakeNft, RealNft
from flowfast.kernel.probe import FEATURES, RealProbe
from flowfast.kernel.system import RealSystem
from flowfast.model.errors import KernelError
from flowfast.model.nftables import Flowtable, Hook, Set, TableState
from flowfast.model.state import CounterValue, Feature, Flow
from flowfast.model.transaction import (
    AddChain,
    AddCounter,
    AddFlowtable,
    AddRule,
    AddSet,
    AddTable,
    Command,
    DeleteTable,
)
from tests.nft_cases import DEVICES, FAST, INET, NETDEV, Case, cases

pytestmark = pytest.mark.guest(images=["debian14", "debian13", "debian12"])

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
WAIT = 60.0


def sh(command: str) -> None:
    subprocess.run(command, shell=True, check=True)  # noqa: S602 - a test's own words


@pytest.fixture(autouse=True)
def own_netns() -> Iterator[None]:
    """Every test in a network namespace of its own, with the devices of DEVICES."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert LIBC.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    try:
        sh("ip link set lo up; ip link add v0 type veth peer name v1; ip link add eth0.5 type dummy")
        sh("for dev in v0 v1 eth0.5; do ip link set $dev up; done")
        yield
    finally:
        LIBC.setns(home, CLONE_NEWNET)
        os.close(home)


@pytest.fixture(scope="session")
def features() -> dict[str, Feature]:
    return dict(asyncio.run(RealProbe().features()))


async def _next(events: Any, wanted: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(WAIT):
        async for event in events:
            if wanted(event):
                return event
    raise AssertionError("the events ended")


# nftables


def _outcome(commit: Callable[[tuple[Command, ...]], None], case: Case) -> tuple[int, str]:
    try:
        commit(case.commands)
    except KernelError as refused:
        return refused.code, str(refused)
    return 0, ""


def test_fake_and_kernel_agree(features: dict[str, Feature]) -> None:
    """Case by case: both do it, or both refuse it for the same reason, and hold the same afterwards."""
    name_binding = features["flowtable_name_binding"].present
    real, fake = RealNft(), FakeNft(devices=DEVICES, name_binding=name_binding)
    for case in cases(name_binding=name_binding):
        for which, (code, said) in (("kernel", _outcome(real.commit, case)), ("fake", _outcome(fake.commit, case))):
            ended = f"{case.what}: {which}: {errno.errorcode.get(code, 'done')} {said}"
            assert code in (case.codes or {0}), ended
            assert "\n" not in said
        held, imagined = real.read((INET, NETDEV)).tables, fake.read((INET, NETDEV)).tables
        assert held.keys() == imagined.keys(), case.what
        for table, state in held.items():
            for part in fields(TableState):
                assert getattr(state, part.name) == getattr(imagined[table], part.name), (case.what, table)


def test_check_asks_and_changes_nothing() -> None:
    nft = RealNft()
    nft.commit([AddTable(INET)])
    before = nft.read([INET]), nft.generation()
    nft.check([AddCounter(INET, "c")])
    with pytest.raises(KernelError) as refused:
        nft.check([AddRule(INET, "nowhere", "accept")])
    assert refused.value.code == errno.ENOENT
    assert (nft.read([INET]), nft.generation()) == before


def test_rules_of_others_show_as_such() -> None:
    nft = RealNft()
    sh("nft 'table inet flowfast { chain c { accept; accept comment \"mine\"; }; }'")
    nft.commit([AddRule(INET, "c", "drop")])
    assert [rule[:3] for rule in nft.read([INET]).tables[INET].chains["c"].rules] == ["?", "?", "ff:"]


def test_no_table_is_no_table() -> None:
    assert RealNft().read((INET, NETDEV)).tables == {}


def test_counters_by_name() -> None:
    nft = RealNft()
    assert nft.counters(INET) == {}
    nft.commit([AddTable(INET), AddCounter(INET, "a"), AddTable(NETDEV), AddCounter(NETDEV, "b")])
    sh(
        "nft add chain inet flowfast o '{ type filter hook output priority 0; }'; "
        "nft add rule inet flowfast o meta l4proto icmp counter name a"
    )
    sh("ping -q -c 3 -i 0.01 -s 100 127.0.0.1 >/dev/null")
    assert nft.counters(INET) == {"a": CounterValue(packets=6, bytes=6 * 128)}
    assert nft.counters(NETDEV) == {"b": CounterValue(0, 0)}


def test_foreign_tables_without_ours_and_without_counts() -> None:
    nft = RealNft()
    assert nft.foreign() == ""
    sh("nft 'table ip his { chain o { type filter hook output priority 0; counter accept; }; }; table ip flowfast { }'")
    before = nft.foreign()
    assert "table ip his" in before
    assert "table ip flowfast" in before  # not of our families: somebody else's
    nft.commit([AddTable(INET), AddTable(NETDEV), AddCounter(INET, "c")])
    sh("ping -q -c 1 127.0.0.1 >/dev/null")
    assert nft.foreign() == before
    sh("nft add rule ip his o drop")
    assert nft.foreign() != before


def test_two_thousand_pairs() -> None:
    nft = RealNft()
    pairs = {(f"10.{i >> 8}.{i & 255}.0/24", f"172.16.{i & 255}.{i >> 8}"): "" for i in range(2000)}
    nft.commit([AddTable(NETDEV), AddSet(NETDEV, Set("many", "ipv4_addr . ipv4_addr", interval=True, elements=pairs))])
    assert nft.read([NETDEV]).tables[NETDEV].sets["many"].elements == pairs


# hooks


def test_hooked_is_where_the_flowtable_stands() -> None:
    nft = RealNft()
    both = Flowtable("fast", frozenset({"v0", "eth0.5"}))
    nft.commit([AddTable(INET), AddFlowtable(INET, both)])
    assert nft.hooked(INET, both) == {"v0", "eth0.5"}
    assert nft.hooked(INET, Flowtable("fast", frozenset({"v0", "v1"}))) == {"v0"}
    sh("ip link del eth0.5")
    assert nft.hooked(INET, both) == {"v0"}
    nft.commit([DeleteTable(INET)])
    assert nft.hooked(INET, both) == frozenset()


def test_a_device_that_comes_back_is_hooked_by_name(features: dict[str, Feature]) -> None:
    nft = RealNft()
    flowtable = Flowtable("fast", frozenset({"eth0.5"}))
    nft.commit([AddTable(INET), AddFlowtable(INET, flowtable)])
    sh("ip link del eth0.5")
    left = nft.read([INET]).tables[INET].flowtables["fast"].devices
    sh("ip link add eth0.5 type dummy")
    if features["flowtable_name_binding"].present:
        assert (left, nft.hooked(INET, flowtable)) == (flowtable.devices, flowtable.devices)
    else:
        assert (left, nft.hooked(INET, flowtable)) == (frozenset(), frozenset())


def test_a_foreign_flowtable_is_not_taken_for_ours(features: dict[str, Feature]) -> None:
    sh("nft 'table inet his { flowtable fast { hook ingress priority 7; devices = { v0 }; }; }'")
    assert RealNft().hooked(INET, FAST) == frozenset()


# generations


def test_tells_of_own_and_foreign_transactions() -> None:
    async def listen() -> list[NewGeneration]:
        nft = RealNft()
        with nft.changes() as changes:
            nft.commit([AddTable(INET)])  # before anything waits for it
            own = await _next(changes, lambda event: True)
            await asyncio.to_thread(nft.commit, [AddCounter(INET, "c")])
            other_thread = await _next(changes, lambda event: True)
            sh("nft add table ip his")
            foreign = await _next(changes, lambda event: True)
            assert nft.generation() == foreign.generation
        return [own, other_thread, foreign]

    own, other_thread, foreign = asyncio.run(listen())
    assert (own.own, other_thread.own, foreign.own) == (True, True, False)
    assert own.pid == os.getpid()
    assert foreign.process == "nft"
    assert own.generation is not None
    assert [other_thread.generation, foreign.generation] == [own.generation + 1, own.generation + 2]


def test_lost_events_are_told() -> None:
    async def listen() -> NewGeneration:
        nft = RealNft()
        with nft.changes() as changes:
            changes._socket.setsockopt(1, 33, 2048)  # SO_RCVBUFFORCE: one event at most
            nft.commit([AddTable(INET)])
            for number in range(20):
                nft.commit([AddCounter(INET, f"c{number}")])
            event: NewGeneration = await _next(changes, lambda event: event.generation is None)
            return event

    assert asyncio.run(listen()) == NewGeneration(None, None, None)


# links


def test_links_with_what_the_plan_needs() -> None:
    sh("ip link add br0 type bridge; ip link set v1 master br0; ip addr add 10.1.0.1/24 dev v0")
    sh(
        "ip link set v0 mtu 1400 address 02:00:00:00:00:01; ip link set eth0.5 down; "
        "ip addr add fd00::1/64 dev v0 nodad"
    )
    links = {link.name: link for link in asyncio.run(RealLinks().links())}
    v0, v1 = links["v0"], links["v1"]
    assert (v0.kind, v0.up, v0.mtu, v0.mac, v0.driver) == ("veth", True, 1400, "02:00:00:00:00:01", "veth")
    assert {"10.1.0.1/24", "fd00::1/64"} <= set(v0.addresses)
    assert v1.master == links["br0"].ifindex
    assert v0.underlay_ifindex == v1.ifindex
    assert (v0.num_rx_queues or 0) >= 1
    assert not links["eth0.5"].up
    assert links["lo"].kind is None


def test_xfrm_interface_whose_underlay_is_in_another_namespace() -> None:
    sh("ip link add x7 type xfrm dev v0 if_id 7; ip link add x8 type xfrm if_id 8")
    pid = subprocess.Popen(["unshare", "-n", "sleep", "60"])
    try:
        sh(f"while [ $(readlink /proc/{pid.pid}/ns/net) = $(readlink /proc/self/ns/net) ]; do sleep 0.05; done")
        sh(f"ip link add x9 type xfrm dev v0 if_id 9; ip link set x9 netns {pid.pid}")
        links = {link.name: link for link in asyncio.run(RealLinks().links())}
        x7, x8 = links["x7"], links["x8"]
        assert (x7.is_xfrm, x7.xfrm_if_id, x7.underlay_ifindex) == (True, 7, links["v0"].ifindex)
        assert (x8.xfrm_if_id, x8.underlay_ifindex) == (8, None)
        assert "x9" not in links
        here, there = (os.open(f"/proc/{who}/ns/net", os.O_RDONLY) for who in ("self", pid.pid))
        assert LIBC.setns(there, CLONE_NEWNET) == 0  # `here`, and with it v0, lives on by its descriptor
        x9 = next(link for link in asyncio.run(RealLinks().links()) if link.name == "x9")
        assert (x9.xfrm_if_id, x9.underlay_ifindex) == (9, links["v0"].ifindex)
        assert x9.underlay_netns is not None
        os.close(there)
        os.close(here)
    finally:
        pid.kill()
        pid.wait()


def test_tells_of_devices_that_come_change_and_go() -> None:
    async def listen() -> None:
        with RealLinks().changes() as changes:
            for command, wanted in (
                ("ip link add late type dummy", LinkChanged("late")),
                ("ip addr add 10.9.0.1/24 dev late", LinkChanged("late")),
                ("ip link set v0 mtu 1300", LinkChanged("v0")),
                ("ip link set late name later", LinkChanged("late", gone=True)),
                ("true", LinkChanged("later")),
                ("ip link del later", LinkChanged("later", gone=True)),
            ):
                sh(command)
                await _next(changes, lambda event, wanted=wanted: event == wanted)

    asyncio.run(listen())


# conntrack


def _udp(number: int, *, established: bool = True) -> Flow:
    here, there = f"10.0.{number >> 8}.{number & 255}", "192.0.2.1"
    return Flow(2, 17, here, there, 1000, 2000, there, here, 2000, 1000, False, False, established)


def test_flows_are_dumped_and_deleted() -> None:
    async def use() -> None:
        conntrack = RealConntrack()
        mine = [_udp(1), _udp(2, established=False)]
        six = Flow(10, 17, "fd00::1", "fd00::2", 5, 6, "fd00::2", "fd00::1", 6, 5, False, False, True)
        for flow in (*mine, six):
            create(flow, seconds=100)
        assert set(await conntrack.flows()) == {*mine, six}
        assert await conntrack.flows(offloaded=True) == []
        assert await conntrack.delete(mine[0])
        assert not await conntrack.delete(mine[0])
        assert await conntrack.delete(six)
        assert await conntrack.flows() == [mine[1]]

    asyncio.run(use())


def test_real_traffic_is_counted_where_accounting_is_on() -> None:
    sh("nft 'table ip t { chain o { type filter hook output priority 0; ct state new accept; }; }'")
    RealSystem().set_sysctl("net.netfilter.nf_conntrack_acct", "1")
    sh("ping -q -c 2 -i 0.01 -s 100 127.0.0.1 >/dev/null")
    ping = next(flow for flow in asyncio.run(RealConntrack().flows()) if flow.proto == 1)
    assert (ping.src, ping.dst, ping.sport, ping.dport) == ("127.0.0.1", "127.0.0.1", 0, 0)
    assert ping.established
    assert (ping.packets, ping.bytes) == ((2, 2), (256, 256))


ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.8.0.2", 7))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(100)
    s.sendto(data, peer)
"""
ASK = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(60)
s.bind(("10.7.0.2", 5555))
s.connect(("10.8.0.2", 7))
for _ in range(9):
    s.send(bytes(72))
    s.recv(100)
"""


@pytest.fixture
def two_hosts() -> Iterator[None]:
    """This namespace forwards between hosts `ffa` (10.7.0.2) and `ffb` (10.8.0.2), which answers UDP on port 7."""
    try:
        for host, net, device in (("ffa", "10.7.0", "r0"), ("ffb", "10.8.0", "r1")):
            sh(
                f"ip netns add {host}; ip link add {device} type veth peer name e0 netns {host}; "
                f"ip addr add {net}.1/24 dev {device}; ip link set {device} up; "
                f"ip -n {host} addr add {net}.2/24 dev e0; ip -n {host} link set e0 up; "
                f"ip -n {host} route add default via {net}.1"
            )
        RealSystem().set_sysctl("net.ipv4.ip_forward", "1")
        echo = ["ip", "netns", "exec", "ffb", "python3", "-c", ECHO]
        with subprocess.Popen(echo, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield
            server.kill()
    finally:
        sh("ip netns del ffa; ip netns del ffb")


def test_offloaded_flows_are_told_apart_counted_and_taken_off(two_hosts: None) -> None:
    assert RealSystem().load_module("nf_conntrack")
    RealSystem().set_sysctl("net.netfilter.nf_conntrack_acct", "1")
    nft, conntrack = RealNft(), RealConntrack()
    flowtable = Flowtable("fast", frozenset({"r0", "r1"}))
    nft.commit([AddTable(INET), AddFlowtable(INET, flowtable), AddChain(INET, "c", Hook("filter", "forward", 0))])
    nft.commit([AddCounter(INET, "slow"), AddRule(INET, "c", "meta l4proto udp counter name slow flow add @fast")])
    create(_udp(1), seconds=100)  # one that is not offloaded
    ask = ["ip", "netns", "exec", "ffa", "python3", "-c", ASK]
    subprocess.run(ask, check=True)

    (flow,) = asyncio.run(conntrack.flows(offloaded=True))
    assert flow == Flow(
        *(2, 17, "10.7.0.2", "10.8.0.2", 5555, 7, "10.8.0.2", "10.7.0.2", 7, 5555),
        offloaded=True,
        hardware=False,
        established=True,
        bytes=(900, 900),
        packets=(9, 9),
    )
    assert len(asyncio.run(conntrack.flows())) == 2
    slow = nft.counters(INET)["slow"].packets
    assert slow < 18  # the rest took the flowtable

    assert asyncio.run(conntrack.delete(flow))
    assert asyncio.run(conntrack.flows(offloaded=True)) == []
    subprocess.run(ask, check=True)
    assert nft.counters(INET)["slow"].packets > slow  # and begins anew, on the full path


# the machine


def test_sysctls_of_this_namespace() -> None:
    system = RealSystem()
    assert system.sysctl("net.ipv4.no_such_thing") is None
    system.set_sysctl("net.ipv4.conf.eth0/5.forwarding", "1")
    assert system.sysctl("net.ipv4.conf.eth0/5.forwarding") == "1"
    with pytest.raises(KernelError, match=r"sysctl net\.ipv4\.ip_forward=many: Invalid argument"):
        system.set_sysctl("net.ipv4.ip_forward", "many")
    assert system.privileged()
    assert system.release() == os.uname().release


def test_xfrm_statistics_here_and_in_another_namespace() -> None:
    system = RealSystem()
    here = system.xfrm_statistics()
    assert here is not None
    assert {"XfrmInError", "XfrmInNoStates", "XfrmOutPolBlock"} <= here.keys()
    subprocess.run(["ip", "netns", "add", "elsewhere"], check=True)
    there = system.xfrm_statistics("elsewhere")
    subprocess.run(["ip", "netns", "del", "elsewhere"], check=True)
    assert there is not None
    assert there.keys() == here.keys()
    assert set(there.values()) == {0}
    assert system.xfrm_statistics("elsewhere") is None


def test_modules_are_loaded_and_listed() -> None:
    system = RealSystem()
    assert system.load_module("nft_flow_offload")
    assert {"nft_flow_offload", "nf_tables"} <= system.modules()
    assert not system.load_module("no_such_module")


# what it can do

MISSING = {
    "debian14": {"early_ingress"},
    # per-CPU SAs came to 6.12 by backport
    "debian13": {"early_ingress", "flowtable_name_binding", "iptfs", "if_id_inbound_refused"},
    "debian12": {"early_ingress", "flowtable_name_binding", "sa_dir", "sa_pcpu", "iptfs", "hook_dump"}
    | {"packet_offload", "if_id_inbound_refused"},
}


def test_probe_knows_the_kernel(image: str, features: dict[str, Feature]) -> None:
    assert features.keys() == FEATURES.keys()
    missing = {name: feature for name, feature in features.items() if not feature.present}
    assert missing.keys() == MISSING[image], missing
    assert all(feature.reason and feature.reason.remedy for feature in missing.values())


def test_probe_leaves_nothing_behind() -> None:
    def seen() -> tuple[str, ...]:
        look = ("nft list ruleset", "ip -br link", "ip xfrm state count", "lsns -t net -n -o NS")
        return tuple(subprocess.run(c, shell=True, check=True, capture_output=True, text=True).stdout for c in look)  # noqa: S602

    here, before = Path("/proc/thread-self/ns/net").readlink(), seen()
    asyncio.run(RealProbe().features())
    assert Path("/proc/thread-self/ns/net").readlink() == here
    assert seen() == before
