"""The other fakes, the probe's reasons, the machine: what needs no root to be tried."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flowfast.kernel import LinkChanged, probe, system
from flowfast.kernel.conntrack import FakeConntrack
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.links import FakeLinks, driver
from flowfast.kernel.probe import FEATURES, FakeProbe, RealProbe
from flowfast.kernel.real import real_kernel
from flowfast.kernel.scratch import TRIALS
from flowfast.kernel.system import FakeSystem, RealSystem
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.model.errors import KernelError, Unavailable
from flowfast.model.link import Link
from flowfast.model.state import Feature, Flow

LAN = Link(2, "lan0", None, True, 1500)


# devices


def test_fake_links_tell_what_becomes_of_them() -> None:
    async def use() -> list[LinkChanged]:
        links = FakeLinks([LAN])
        with links.changes() as changes:
            links.change("lan0", mtu=1400)
            links.set(Link(1, "lo", None, True, 65536))
            assert await links.links() == (Link(1, "lo", None, True, 65536), replace(LAN, mtu=1400))
            links.remove("lan0")
            links.lose_events()
            return [await anext(changes) for _ in range(4)]

    assert asyncio.run(use()) == [
        LinkChanged("lan0"),
        LinkChanged("lo"),
        LinkChanged("lan0", gone=True),
        LinkChanged(None),
    ]


def test_a_device_without_a_driver_has_none() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        assert driver(asker, "lo") is None
        assert driver(asker, "no-such-device-at-all") is None


# connections


def test_fake_conntrack_forgets_by_the_original_tuple() -> None:
    async def use() -> None:
        slow = Flow(2, 6, "10.1.0.2", "10.2.0.2", 1, 2, "10.2.0.2", "10.1.0.2", 2, 1, False, False, True)
        fast = replace(slow, sport=3, reply_dport=3, offloaded=True)
        conntrack = FakeConntrack([slow, fast])
        assert await conntrack.flows(offloaded=True) == [fast]
        assert await conntrack.delete(replace(fast, bytes=(1, 2)))
        assert not await conntrack.delete(fast)
        assert await conntrack.flows() == [slow]

    asyncio.run(use())


# the machine


def test_sysctls_by_the_names_that_sysctl_takes(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(system._path("net.ipv4.ip_forward")) == "/proc/sys/net/ipv4/ip_forward"
    assert str(system._path("net.ipv4.conf.eth0/100.rp_filter")) == "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"
    assert RealSystem().sysctl("kernel.osrelease") == os.uname().release == RealSystem().release()
    assert RealSystem().sysctl("net.no.such.thing") is None
    with pytest.raises(KernelError, match=r"^sysctl net\.no\.such=1: No such file or directory$") as missing:
        RealSystem().set_sysctl("net.no.such", "1")
    assert missing.value.code == errno.ENOENT


def test_modules_loaded_and_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/proc/modules": ["nf_tables 1 0 - Live 0x0"], "modules.builtin": ["kernel/net/8021q/vlan-8021q.ko"]}
    monkeypatch.setattr(system, "_lines", lambda path: files.get(str(path), files.get(path.name, [])))
    assert RealSystem().modules() == {"nf_tables", "vlan_8021q"}


def test_xfrm_statistics_are_whatever_the_kernel_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "xfrm_stat"
    monkeypatch.setattr(system, "_XFRM_STAT", file)
    assert RealSystem().xfrm_statistics() is None
    file.write_text("XfrmInError             \t0\nXfrmOutBrandNew\t18446744073709551615\nnonsense\nXfrmBad\t-1\n")
    assert RealSystem().xfrm_statistics() == {"XfrmInError": 0, "XfrmOutBrandNew": 2**64 - 1}
    assert RealSystem().xfrm_statistics("no-such-namespace") is None


@pytest.mark.parametrize(("effective", "may"), [("0000000000001000", True), ("000001ffffffefff", False)])
def test_privileged_is_cap_net_admin(monkeypatch: pytest.MonkeyPatch, effective: str, may: bool) -> None:
    monkeypatch.setattr(system, "_lines", lambda _path: ["Name:\tx", f"CapEff:\t{effective}"])
    assert RealSystem().privileged() is may


def test_no_modprobe_is_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert RealSystem().load_module("esp4") is False


def test_fake_system_is_what_it_was_made() -> None:
    fake = FakeSystem(sysctls={"net.ipv4.ip_forward": "0"}, loadable=["esp4"], privileged=False)
    fake.set_sysctl("net.ipv4.ip_forward", "1")
    assert fake.sysctl("net.ipv4.ip_forward") == "1"
    with pytest.raises(KernelError):
        fake.set_sysctl("net.no.such", "1")
    assert (fake.load_module("esp4"), fake.load_module("esp7"), fake.modules()) == (True, False, {"esp4"})
    assert not fake.privileged()


# the probe


def _probe(monkeypatch: pytest.MonkeyPatch, **failing: Exception) -> dict[str, Feature]:
    """The probe with trials that succeed, but for those that fail."""

    def trial(name: str) -> Callable[[], None]:
        def run() -> None:
            if name in failing:
                raise failing[name]

        return run

    monkeypatch.setattr(probe, "_unshare", lambda: None)
    monkeypatch.setattr(probe, "TRIALS", {name: trial(name) for name in TRIALS})
    return dict(asyncio.run(RealProbe().features()))


def test_every_feature_is_tried_after_those_that_it_needs() -> None:
    assert TRIALS.keys() == FEATURES.keys()
    order = [*TRIALS]
    assert all(order.index(known.needs) < order.index(name) for name, known in FEATURES.items() if known.needs)


def test_all_is_there_when_all_trials_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _probe(monkeypatch)
    assert all(feature.present and feature.reason is None for feature in found.values())


def test_what_is_missing_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _probe(monkeypatch, esp4=KernelError("xfrm: Protocol not supported", errno.EPROTONOSUPPORT))
    missing = {name: feature.reason for name, feature in found.items() if not feature.present}
    offload = {"crypto_offload", "packet_offload", "if_id_inbound_refused"}
    assert missing.keys() == {"esp4", "sa_dir", "sa_pcpu", "iptfs"} | offload
    esp4, pcpu = missing["esp4"], missing["sa_pcpu"]
    assert esp4 is not None and pcpu is not None
    assert str(esp4) == f"kernel: no ESP over IPv4: xfrm: Protocol not supported ({FEATURES['esp4'].remedy})"
    assert (esp4.code, pcpu.code) == ("NO_ESP4", "NO_SA_PCPU")
    assert "not without sa_dir" in pcpu.sentence
    assert pcpu.remedy == esp4.remedy  # not a newer kernel, which would not help


def test_a_missing_tool_is_not_blamed_on_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _probe(monkeypatch, nftables=Unavailable("libnftables: its Python binding is missing (apt install ...)"))
    for name in ("nftables", "flowtable", "flowtable_counter", "rt_ipsec"):
        reason = found[name].reason
        assert reason is not None
        assert (reason.code, "binding is missing" in reason.remedy) == ("NOT_PROBED", True)
    assert found["xfrm"].present


def test_without_a_namespace_to_try_in_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_unshare", lambda: "Operation not permitted")
    monkeypatch.setattr(probe, "TRIALS", {})
    found = asyncio.run(RealProbe().features())
    assert found.keys() == FEATURES.keys()
    assert {feature.reason.code for feature in found.values() if feature.reason} == {"NOT_PROBED"}
    assert all("run as root" in str(feature.reason) for feature in found.values())


def test_fake_probe_lacks_what_it_was_told() -> None:
    found = asyncio.run(FakeProbe(missing=["xfrm_interface"]).features())
    assert found.keys() == FEATURES.keys()
    assert [name for name, feature in found.items() if not feature.present] == ["xfrm_interface"]
    assert found["xfrm_interface"].reason is not None


# bundles


def test_fake_kernel_has_one_of_each_and_other_namespaces() -> None:
    async def use() -> None:
        underlay = FakeXfrm()
        kernel = FakeKernel(links=FakeLinks([LAN]), netns={"underlay": underlay})
        assert await kernel.links.links() == (LAN,)
        async with kernel.xfrm_in("underlay") as xfrm:
            assert xfrm is underlay
        with pytest.raises(Unavailable, match="'elsewhere'"):
            async with kernel.xfrm_in("elsewhere"):
                pass

    asyncio.run(use())


def test_the_real_kernel_is_made_without_asking_anything() -> None:
    async def make() -> None:
        kernel = real_kernel()
        assert kernel.system.release() == os.uname().release

    asyncio.run(make())
