"""Tunnels that are not fast, for a NIC and the SPD do not go together: each on espsim, with its traffic."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from flowfast.kernel.xfrm import AsyncXfrmSocket
from flowfast.lab.netns import Netns
from flowfast.lab.plaintext import plaintext
from flowfast.lab.topology import TwoGateways
from flowfast.model.sa import Direction, Mode, Policy, Selector, Template
from tests.guest import devices
from tests.guest.devices import PEER, US, back, offloaded, offloading, policies, rows, sa, secure, there, with_xfrm
from tests.guest.oneshot import Applied, apply, meet

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3), pytest.mark.long]

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\nnic_offload: packet\n"


@pytest.fixture(scope="module")
def module() -> Iterator[TwoGateways]:
    with offloading((4, 6)) as topo:
        meet(topo)
        yield topo


@pytest.fixture
def topo(module: TwoGateways) -> Iterator[TwoGateways]:
    yield module
    for ns in (module.gw1, module.gw2):
        for what in ("state", "policy"):
            ns.run(["ip", "xfrm", what, "flush"])


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "site.yaml").write_text(CONFIG)
    return str(tmp_path / "site.yaml")


def is_held_back(said: Applied, code: str) -> bool:
    """Whether the tunnel keeps to the full path both ways, for this reason and no other of its kind."""
    kinds = {"POLICY_MISSING", "SA_MISSING", "POLICY_NOT_FIRST", "FAMILIES_DIFFER"}
    return said.reasons & kinds == {code} and said.fast("tx") == said.fast("rx") == {False}


def test_ipv6_in_ipv4_does_not_leave(topo: TwoGateways, config: str) -> None:
    secure(topo)
    device = devices.index_of(topo.gw1, "wan0")
    four, six = (offloaded(policies(topo, family), device, *devices.IN_AND_OUT) for family in topo.families)

    async def install(xfrm: AsyncXfrmSocket) -> None:
        for inner, outer in zip(six, four, strict=True):
            await xfrm.add_policy(inner._replace(templates=outer.templates))

    with_xfrm(topo.gw1, install)
    assert not topo.ping(6)
    assert is_held_back(apply(topo.gw1, config), "FAMILIES_DIFFER")


@contextmanager
def nothing_in_the_clear(topo: TwoGateways) -> Iterator[None]:
    """While its context lasts. (Before there were policies, the hosts met in the clear.)"""
    before = plaintext(topo.gw2)
    yield
    assert plaintext(topo.gw2) == before


def test_policies_in_the_nic_and_sas_of_the_cpu(topo: TwoGateways, config: str) -> None:
    """The kernel looks for an SA in the same device, and there is none: nothing leaves."""
    secure(topo, sas=())
    with nothing_in_the_clear(topo):
        assert not topo.ping(4)
    assert is_held_back(apply(topo.gw1, config), "SA_MISSING")


def test_sas_in_the_nic_and_policies_of_the_cpu(topo: TwoGateways, config: str) -> None:
    """And the other way round."""
    secure(topo, spd=())
    with nothing_in_the_clear(topo):
        assert not topo.ping(4)
    assert is_held_back(apply(topo.gw1, config), "POLICY_MISSING")


def test_a_policy_of_the_cpus_that_should_come_first_does_not(topo: TwoGateways, config: str) -> None:
    """The operator lets one host bypass IPsec, by a policy that the NIC does not know: it is encrypted all the same."""
    secure(topo)
    ours, theirs = topo.host_address(1, 4), topo.host_address(2, 4)
    bypass = Policy(Selector(2, f"{ours}/32", f"{theirs}/32"), Direction.OUT, 0, 500, 0, ())

    async def install(xfrm: AsyncXfrmSocket) -> None:
        await xfrm.add_policy(bypass)

    with_xfrm(topo.gw1, install)
    with nothing_in_the_clear(topo):  # it does not come first: else the reason were wrong
        there(topo, rounds=20)
    said = apply(topo.gw1, config)
    assert is_held_back(said, "POLICY_NOT_FIRST")
    (reason,) = [reason for reason in said.said["reasons"] if reason["code"] == "POLICY_NOT_FIRST"]
    assert "(priority 1000)" in reason["sentence"]
    assert f"{ours}/32 -> {theirs}/32 (priority 500)" in reason["sentence"]
    assert "priority = 499" in reason["remedy"]

    # What the remedy says: with the other order the tunnel is fast.
    async def reorder(xfrm: AsyncXfrmSocket) -> None:
        await xfrm.delete_policy(bypass.selector, bypass.direction)
        await xfrm.add_policy(bypass._replace(priority=1500))

    with_xfrm(topo.gw1, reorder)
    said = apply(topo.gw1, config)
    assert said.fast("tx") == said.fast("rx") == {True}
    back(topo, rounds=20)


def test_flows_in_nics_and_packet_offload_exclude_each_other(topo: TwoGateways, config: str) -> None:
    secure(topo)
    Path(config).write_text(CONFIG + "offload: {plain: true, hardware: true}\n")
    assert "HARDWARE_AND_PACKET" in apply(topo.gw1, config).reasons
    assert "flags offload" not in topo.gw1.run(["nft", "list", "flowtables"]).stdout


def test_a_nic_that_decrypts_is_no_lan_device(topo: TwoGateways, config: str) -> None:
    """Packets that it decrypted have lost their secpath: none of them may make a connection fast."""
    secure(topo)
    Path(config).write_text("devices: {lan: [lan0, wan0], wan: ['wan9*']}\nnic_offload: packet\n")
    said = apply(topo.gw1, config)
    assert "PACKET_OFFLOAD_LAN" in said.reasons
    assert "wan0" not in topo.gw1.run(["nft", "list", "flowtables"]).stdout
    with nothing_in_the_clear(topo):
        there(topo, rounds=20)


def test_an_sa_on_a_device_that_offloads_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("devices: {lan: ['lan*'], wan: ['wan9*']}\nnic_offload: packet\n")
    with Netns("plain") as ns:
        ns.run(["ip", "link", "add", "wan9", "type", "dummy"])
        ns.run(["ip", "addr", "add", f"{US}/24", "dev", "wan9"])
        ns.run(["ip", "link", "set", "wan9", "up"])
        template = Template(2, US, PEER, 50, 0, 1, Mode.TUNNEL)
        policy = Policy(Selector(2, "10.1.0.0/16", "10.2.0.0/16"), Direction.OUT, 0, 1000, 0, (template,))

        async def install(xfrm: AsyncXfrmSocket) -> None:
            await xfrm.add_sa(replace(sa(Direction.OUT, bytes(20)), replay_window=0))
            await xfrm.add_policy(policy)

        with_xfrm(ns, install)
        (row,) = rows(ns, "offload", str(tmp_path / "c.yaml"))
        assert (row["why"], row["device"]) == (["NO_ESP_DEVICE"], None)
