"""Packet offload, on espsim: real packets through a device that does all of ESP, and the dangers of it.

gw1's wan0 encrypts and decrypts, gw2 does so in software. What leaves gw1 unencrypted is counted where it arrives.
"""

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from flowfast.kernel.xfrm import Aead, AsyncXfrmSocket
from flowfast.lab.espsim import MODULE, setting
from flowfast.lab.inject import Arrivals, Injection, Tuple
from flowfast.lab.netns import LabError
from flowfast.lab.plaintext import plaintext
from flowfast.lab.topology import TwoGateways
from flowfast.lab.traffic import tcp_transfer
from flowfast.model.errors import KernelError
from flowfast.model.sa import Direction, Encap, Mode, Offload, Selector
from tests.guest import devices
from tests.guest.devices import (
    CRYPTO,
    PACKET,
    back,
    offloaded,
    offloading,
    policies,
    rows,
    sa,
    secure,
    there,
    with_xfrm,
)
from tests.guest.oneshot import FullPath, apply, flowfast, meet, metrics, running

pytestmark = pytest.mark.guest(images=["debian14"], nics=3)

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\nnic_offload: packet\n"
NAIVE = """
table inet naive {
  flowtable f { hook ingress priority 0; devices = { lan0, wan0 }; }
  chain forward { type filter hook forward priority 0; ct state established meta l4proto { tcp, udp } flow add @f; }
}
"""
"""What most firewalls have: whichever packet comes first adds the flow."""


@pytest.fixture
def topo() -> Iterator[TwoGateways]:
    with offloading() as topo:
        yield topo


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "site.yaml").write_text(CONFIG)
    return str(tmp_path / "site.yaml")


def test_it_loads_only_where_it_is_asked_for_by_name() -> None:
    refused = subprocess.run(["insmod", str(MODULE)], capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "Operation not permitted" in refused.stderr


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a short ICV": ({"aead": Aead("rfc4106(gcm(aes))", bytes(20), 96)}, "AEAD ICV length other than 128bit"),
    "BEET": ({"mode": Mode.BEET, "selector": Selector(2, "192.0.2.1/32", "192.0.2.2/32")}, "Only tunnel"),
    "IP-TFS": ({"mode": Mode.IPTFS}, "Only tunnel xfrm states may be offloaded"),
    "UDP encapsulation": ({"encap": Encap(2, 4500, 4500)}, "Encapsulation is not supported"),
    "AES-192": ({"aead": Aead("rfc4106(gcm(aes))", bytes(28))}, "AEAD key length other than 128/256 bit"),
    "no reqid": ({"reqid": 0}, "Cannot offload without reqid"),
    "TFC": ({"tfc_pad": 64}, "TFC padding can't be offloaded"),
}


@pytest.fixture
def both() -> Iterator[TwoGateways]:
    with offloading((4, 6)) as topo:
        yield topo


@pytest.mark.long
def test_sas_and_policies_are_in_the_device_and_packets_cross_it(both: TwoGateways, config: str) -> None:
    topo = both
    device = devices.index_of(topo.gw1, "wan0")

    async def refuse(xfrm: AsyncXfrmSocket) -> None:
        for more, words in REFUSED.values():
            wanted = replace(sa(Direction.OUT, bytes(20)), offload=Offload(device, PACKET), **more)
            with pytest.raises(KernelError, match=re.escape(words)):
                await xfrm.add_sa(wanted)
        (forward, *_) = offloaded(policies(topo)[2:3], device, Direction.FORWARD)
        with pytest.raises(KernelError, match="Cannot offload forward policy"):
            await xfrm.add_policy(forward)

    with_xfrm(topo.gw1, refuse)
    for family in topo.families:
        secure(topo, family=family)
    meet(topo)
    assert tcp_transfer(topo.h1, topo.h2, topo.host_address(2, 4), 200_000).intact
    for family in topo.families:
        there(topo, family)
        back(topo, family)
    sas = rows(topo.gw1, "offload", config)
    assert [(row["offload"], row["device"], row["why"], row["cpu_sequence"]) for row in sas] == [
        ("packet", "wan0", [], 0)
    ] * 4
    assert all(row["packets"] > 200 for row in sas)
    (nic,) = [row for row in rows(topo.gw1, "nics", config) if row["device"] == "wan0"]
    assert (nic["driver"], nic["packet_sas"], nic["policies"]) == ("espsim", 4, 4)
    assert plaintext(topo.gw2) == 0

    # On the flowtable: both directions, both families; and the SAs count on. Each family is another peer to it.
    Path(config).write_text(CONFIG + "offload: {trust_peers: true}\n")
    said = apply(topo.gw1, config)
    assert said.fast("tx") == said.fast("rx") == {True}
    assert not said.reasons
    for family in topo.families:
        there(topo, family, rounds=5)
        with FullPath(topo.gw1) as seen:
            there(topo, family, rounds=200)
            back(topo, family, rounds=200)
        assert seen.packets < 20
    assert tcp_transfer(topo.h2, topo.h1, topo.host_address(1, 4), 200_000).intact
    assert all(
        now["packets"] > was["packets"] + 400 for was, now in zip(sas, rows(topo.gw1, "offload", config), strict=True)
    )
    assert plaintext(topo.gw2) == setting("tx_missed") == setting("tx_secpath") == 0


@pytest.mark.long
def test_what_neither_the_device_nor_the_kernel_do_is_told(topo: TwoGateways, config: str) -> None:
    """An AES-192 key; crypto offload, which the device has none of; IPv6 in IPv4."""
    secure(topo, sas=(), spd=())

    async def other_key(xfrm: AsyncXfrmSocket) -> None:
        out = sa(Direction.OUT, bytes(28))
        await xfrm.delete_sa(out.dst, out.spi)
        await xfrm.add_sa(out)

    with_xfrm(topo.gw1, other_key)
    out, inward = rows(topo.gw1, "offload", config)
    assert (out["why"], inward["why"]) == (["KEY_SIZE"], ["NOT_OFFLOADED"])
    Path(config).write_text(CONFIG.replace("packet", "crypto"))
    device = devices.index_of(topo.gw1, "wan0")

    async def crypto(xfrm: AsyncXfrmSocket) -> None:
        one = replace(sa(Direction.OUT, bytes(20)), spi=0x99, offload=Offload(device, CRYPTO))
        await xfrm.add_sa(one)  # accepted, and done in software
        assert (await xfrm.get_sa(one.dst, one.spi)).offload is None

    with_xfrm(topo.gw1, crypto)
    assert [row["why"] for row in rows(topo.gw1, "offload", config) if row["spi"] == 0x99] == [["TYPE_UNSUPPORTED"]]


@pytest.mark.long
def test_what_comes_in_by_the_full_path_is_counted(topo: TwoGateways, config: str) -> None:
    """The policy check takes away what tells that it was encrypted."""
    secure(topo)
    meet(topo)
    (Path(config)).write_text(CONFIG + "offload: {mode: outbound-only}\n")
    apply(topo.gw1, config)
    before = counter(topo, "in_reqid-1")
    there(topo, rounds=50)
    assert counter(topo, "in_reqid-1") - before >= 50


def counter(topo: TwoGateways, name: str) -> int:
    return int(topo.gw1.run(["nft", "list", "counter", "inet", "flowfast", name]).stdout.split("packets")[1].split()[0])


# --- the hazards ------------------------------------------------------------------------------------------------------


def talk(topo: TwoGateways) -> None:
    """Both ways, as far as it goes: where plaintext leaves, the peer drops it."""
    for way in (there, back):
        try:
            way(topo, rounds=30, patience=2)
        except TimeoutError:
            continue


def leaks(topo: TwoGateways) -> bool:
    """Whether plaintext arrives while the hosts talk."""
    before, deadline = plaintext(topo.gw2), time.monotonic() + 60
    while plaintext(topo.gw2) == before and time.monotonic() < deadline:
        talk(topo)
    return plaintext(topo.gw2) > before


def without_mechanism(topo: TwoGateways) -> None:
    """flowfast's own table without what lets only packets from the LAN, and only towards IPsec, add a flow."""
    listed = topo.gw1.run(["nft", "-s", "list", "table", "inet", "flowfast"]).stdout
    kept = [line for line in listed.splitlines() if not re.search(r"iifname != .* return", line)]
    weak = re.sub(r"rt ipsec exists .*flow add @fast", "flow add @fast", "\n".join(kept))
    assert weak != listed
    assert "iifname !=" not in weak
    topo.gw1.run(["nft", "-f", "-"], stdin=f"delete table inet flowfast\n{weak}\n")


def test_what_lost_its_secpath_adds_no_plain_flow(topo: TwoGateways, config: str) -> None:
    """In by the device, out by the CPU: the answer of a packet without secpath would be cached without encryption."""
    secure(topo, sas=(Direction.IN,), spd=(Direction.IN,))
    meet(topo)
    apply(topo.gw1, config)
    there(topo, rounds=50)
    back(topo, rounds=50)
    assert plaintext(topo.gw2) == 0
    without_mechanism(topo)
    assert leaks(topo), "the test proves nothing: even without the mechanism nothing leaked"
    flowfast(topo.gw1, "apply", "--remove")
    topo.gw1.run(["nft", "-f", "-"], stdin=NAIVE)
    assert leaks(topo)


@pytest.mark.long
def test_a_policy_that_leaves_the_device_does_not_leak(topo: TwoGateways, config: str) -> None:
    """A connection that is fast, and then its policy is taken out of the NIC: what the kernel would not send does not
    leave in the clear. The device would send it: nothing of it matches."""
    secure(topo)
    meet(topo)
    apply(topo.gw1, config)
    there(topo, rounds=50)

    async def take_out(xfrm: AsyncXfrmSocket) -> None:
        for policy in policies(topo):
            if policy.direction is Direction.OUT:
                await xfrm.update_policy(policy)

    async def put_back(xfrm: AsyncXfrmSocket) -> None:
        for policy in offloaded(policies(topo), devices.index_of(topo.gw1, "wan0"), Direction.OUT):
            if policy.direction is Direction.OUT:
                await xfrm.update_policy(policy)

    with_xfrm(topo.gw1, take_out)
    talk(topo)
    assert plaintext(topo.gw2) == 0
    said = apply(topo.gw1, config)
    assert "POLICY_MISSING" in said.reasons
    assert said.fast("tx") == said.fast("rx") == {False}
    talk(topo)
    assert plaintext(topo.gw2) == 0

    # What most firewalls have: the flow is added by what comes in, and plain; while the policy is in the NIC, that
    # encrypts it all the same.
    with_xfrm(topo.gw1, put_back)
    flowfast(topo.gw1, "apply", "--remove")
    topo.gw1.run(["nft", "-f", "-"], stdin=NAIVE)
    there(topo, rounds=50)
    assert plaintext(topo.gw2) == 0
    with Stream(topo) as stream:
        stream.until(20)
        with_xfrm(topo.gw1, take_out)
        time.sleep(3)
    assert plaintext(topo.gw2) > 0, "the test proves nothing: even without the mechanism nothing leaked"


class Stream:
    """UDP from h2 that h1 answers, whatever arrives: a connection that goes on while everything changes."""

    def __init__(self, topo: TwoGateways) -> None:
        self._topo = topo
        self.address = topo.host_address(1, 4)

    def __enter__(self) -> Self:
        self._answering = self._topo.h1.start(_answer, self.address)
        self._asking = self._topo.h2.start(_ask, self.address)
        return self

    def until(self, seconds: float) -> None:
        """Waits until the connection is established, or so long."""
        deadline = time.monotonic() + seconds
        while "OFFLOAD" not in self._topo.gw1.run(["conntrack", "-L", "-p", "udp", "--dport", "9"]).stdout:
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self._asking.stop()
        self._answering.stop()


def _answer(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as answering:
        answering.bind((address, 9))
        while True:
            data, sender = answering.recvfrom(2048)
            answering.sendto(data, sender)


def _ask(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        while True:
            asking.sendto(b"?" * 100, (address, 9))
            time.sleep(0.05)


@pytest.mark.long
def test_plaintext_from_the_wan_meets_the_guard(topo: TwoGateways, config: str) -> None:
    """What the device decrypted passes it, for it has a secpath there; what was never encrypted does not."""
    secure(topo)
    meet(topo)
    apply(topo.gw1, config)
    port = there(topo, rounds=50)
    forged = Tuple(topo.host_address(2, 4), topo.host_address(1, 4), 7, port)
    mac = topo.gw1.read("/sys/class/net/wan0/address")
    with Arrivals(topo.h1, "e0") as arrived, Injection(topo.gw2, "wan0", mac, [forged]) as attack:
        time.sleep(2)
    assert attack.sent > 10
    assert arrived.count == 0
    there(topo, rounds=50)


@pytest.mark.long
def test_a_lan_device_that_offloads_too_destroys_what_is_fast(config: str) -> None:
    """mlx5 takes any packet with an offload in its secpath for one to encrypt; the flowtable leaves it on."""
    with offloading(lan=True) as topo:
        secure(topo)
        meet(topo)
        said = apply(topo.gw1, config)
        assert "SECPATH_TO_NIC" in said.reasons
        assert (said.fast("tx"), said.fast("rx")) == ({True}, {False})
        there(topo, rounds=100)
        back(topo, rounds=100)
        assert setting("tx_secpath") == 0
        flowfast(topo.gw1, "apply", "--remove")
        topo.gw1.run(["nft", "-f", "-"], stdin=NAIVE)
        talk(topo)
        assert setting("tx_secpath") > 0, "the test proves nothing: even with the WAN in the flowtable all arrived"


# --- what fell back ---------------------------------------------------------------------------------------------------


def until(topo: TwoGateways, line: str, *, gone: bool = False, seconds: float = 60) -> None:
    """Waits until the exporter has a series, or has it no more, while packets go to and fro."""
    deadline = time.monotonic() + seconds
    while True:
        there(topo, rounds=150)
        page = topo.gw1.call(metrics)
        if (line in page) is not gone:
            return
        assert time.monotonic() < deadline, page


@pytest.mark.long
def test_what_falls_back_to_the_cpu_and_counters_that_stand_still_are_told(
    topo: TwoGateways, config: str, tmp_path: Path
) -> None:
    secure(topo)
    meet(topo)
    log = tmp_path / "log"
    (Path(config)).write_text(CONFIG + "offload: {mode: outbound-only}\n")  # so that the forward chain counts
    with running(topo.gw1, config, log):
        there(topo)
        assert "FELL_BACK" not in topo.gw1.call(metrics)
        setting("deaf", 1)
        until(topo, 'flowfast_reason{code="FELL_BACK",object="reqid-1",severity="error"} 1')
        assert 'flowfast_nic_fallback_sas{device="wan0",direction="in"} 1' in topo.gw1.call(metrics)
        assert "its in SA is in wan0, but the CPU decrypted packets of it" in log.read_text()
        (row,) = [row for row in rows(topo.gw1, "offload", config) if row["direction"] == "in"]
        assert row["cpu_sequence"] > 0
        setting("deaf", 0)
        until(topo, "FELL_BACK", gone=True)
        setting("still", 1)
        until(topo, 'flowfast_reason{code="COUNTERS_STILL",object="reqid-1",severity="warning"} 1')
        setting("still", 0)
        until(topo, "COUNTERS_STILL", gone=True)


@pytest.mark.long
def test_a_device_that_is_full_says_so(topo: TwoGateways) -> None:
    setting("capacity", 2)
    try:
        secure(topo)
        with pytest.raises((KernelError, LabError), match="No space for SA"):
            device = devices.index_of(topo.gw1, "wan0")

            async def one_more(xfrm: AsyncXfrmSocket) -> None:
                await xfrm.add_sa(replace(sa(Direction.OUT, bytes(20)), spi=0x99, offload=Offload(device, PACKET)))

            with_xfrm(topo.gw1, one_more)
    finally:
        setting("capacity", 64)
