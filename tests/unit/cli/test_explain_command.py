"""What `flowfast explain` prints and how it exits."""

import json
from dataclasses import replace

import pytest

from flowfast.cli import explain as module
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.probe import FakeProbe
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.errors import FlowfastError
from tests.unit.cli.looking import HTTPS, OUT, Flowfast, applied
from tests.unit.plan.router import PEER, US


def test_a_fast_connection(look: Flowfast, router: FakeKernel, site: str) -> None:
    applied(router, site)
    shown = look("explain", "10.1.0.5", "10.2.0.9", "tcp", "443", "--config", site)
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines() == [
        "10.1.0.5:50000 -> 10.2.0.9:443 tcp: fast",
        "  conntrack  OFFLOAD, answered, ASSURED, 90 packets, 91,000 bytes",
        "  tunnel     berlin (policy: 192.0.2.1 - 192.0.2.2, reqid 1)",
        "  tx         flowtable (bundle cached), SA 0xc0000001 (any CPU)",
        "  rx         flowtable (behind guard), SA 0xc0000002 (any CPU)",
        "             packets of more than 1446 bytes take the full path one by one",
        "             so do fragments, IP options, IPv6 extension headers, and packets whose TTL ends here",
    ]


def test_a_slow_one_says_why_and_exits_3(look: Flowfast, router: FakeKernel, site: str) -> None:
    applied(router, site)
    shown = look("explain", "10.2.0.9", "10.1.0.5", "tcp", "21", "--config", site)
    assert shown.exit_code == 3
    assert "  why        the conntrack helper ftp reads along, and must see every packet [HELPER]\n" in shown.output
    assert "  remedy     take the helper away, if nothing needs it\n" in shown.output
    assert "no OFFLOAD, ESTABLISHED, answered, ASSURED, helper ftp" in shown.output


def test_of_several_the_slow_ones_come_first(look: Flowfast, router: FakeKernel, site: str) -> None:
    applied(router, site)
    router.conntrack.held.reverse()
    shown = look("explain", "10.1.0.5", "10.2.0.9", "--config", site)
    assert shown.exit_code == 3
    assert shown.output.index(":21 tcp: not fast") < shown.output.index(":443 tcp: fast")
    one = look("explain", "10.1.0.5", "10.2.0.9", "--config", site, "--limit", "1")
    assert "and 1 more, 1 of them fast" in one.output
    assert ":443" not in one.output


def test_one_that_is_not_tracked(look: Flowfast, router: FakeKernel, site: str) -> None:
    applied(router, site)
    shown = look("explain", "10.1.0.5", "10.2.0.9", "udp", "4000", "--config", site)
    assert shown.exit_code == 3
    assert "10.1.0.5 -> 10.2.0.9:4000 udp: not tracked" in shown.output
    assert "shows no such connection; one would take:" in shown.output
    assert "tx         flowtable (bundle cached)" in shown.output
    assert "[NOT_TRACKED]" in shown.output
    never = look("explain", "10.1.0.5", "10.2.0.9", "icmp", "--config", site)
    assert "[PROTOCOL]" in never.output


def test_as_json(look: Flowfast, router: FakeKernel, site: str) -> None:
    applied(router, site)
    said = json.loads(look("explain", "10.1.0.5", "10.2.0.9", "tcp", "--config", site, "--json").output)
    assert (said["fast"], said["config"], said["matching"]) == (False, True, 2)
    slow, fast = said["connections"]
    assert (slow["reason"]["code"], fast["reason"]) == ("HELPER", None)
    assert (slow["tx"]["path"], fast["tx"]["path"]) == ("l3", "flowtable")
    assert fast["conntrack"]["offload"] == "software"
    assert fast["conntrack"]["packets"] == [20, 70]
    assert fast["conntrack"]["mark"] is None
    assert fast["tx"]["sa"] == {"spi": 0xC0000001, "pcpu": None}
    assert (fast["tunnel"], fast["mtu"]) == ("berlin", 1446)


def test_without_a_config_it_says_so(look: Flowfast, router: FakeKernel, site: str) -> None:
    applied(router, site)
    shown = look("explain", "10.1.0.5", "10.2.0.9", "tcp", "443")
    assert shown.exit_code == 0, shown.output
    assert "tunnel     reqid-1" in shown.output
    assert "no config: roles of devices" in shown.output


def test_before_anything_is_applied(look: Flowfast, router: FakeKernel, site: str) -> None:
    router.conntrack.held = [replace(HTTPS, offloaded=False)]
    shown = look("explain", "10.1.0.5", "10.2.0.9", "--config", site)
    assert shown.exit_code == 3
    assert "[NOT_APPLIED]" in shown.output


def test_where_conntrack_cannot_be_read(look: Flowfast, router: FakeKernel, site: str) -> None:
    applied(router, site)
    router.probe = FakeProbe(missing=["conntrack"])
    shown = look("explain", "10.1.0.5", "10.2.0.9", "tcp", "443", "--config", site)
    assert shown.exit_code == 3
    assert "[NO_CONNTRACK]" in shown.output
    assert "tx         flowtable (bundle cached)" in shown.output


def test_a_packet_too_large(look: Flowfast, router: FakeKernel, site: str) -> None:
    applied(router, site)
    shown = look("explain", "10.1.0.5", "10.2.0.9", "tcp", "443", "--size", "1447", "--config", site)
    assert shown.exit_code == 3
    assert "the tunnel carries 1446 bytes at most" in shown.output
    assert look("explain", "10.1.0.5", "10.2.0.9", "tcp", "443", "--size", "1446", "--config", site).exit_code == 0


def test_of_several_sas_the_one_that_carries_packets_is_found(
    look: Flowfast, router: FakeKernel, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.xfrm.put(*(make_sa(US, PEER, 0xC1000000 + cpu, pcpu=cpu) for cpu in range(2)))
    applied(router, site)
    asked = ("explain", "10.1.0.5", "10.2.0.9", "tcp", "443", "--config", site)
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    assert "one of 3 SAs, by the CPU that it is on: 0xc0000001 (any CPU), 0xc1000000 (CPU 0)," in look(*asked).output
    dumped = router.xfrm.sas
    spi = 0xC1000001

    async def busy() -> list[object]:
        router.xfrm.count(PEER, spi, 1400, 10)
        return await dumped()

    monkeypatch.setattr(router.xfrm, "sas", busy)
    assert "tx         flowtable (bundle cached), SA 0xc1000001 (CPU 1)" in look(*asked).output
    born = make_sa(US, PEER, 0xC1000009, pcpu=9, packets=1000)
    newborn = [born]

    async def one_more() -> list[object]:
        """Of an SA that comes meanwhile it is not known how much it carried while it was watched."""
        await busy()
        return [*await dumped(), *(() if newborn and newborn.pop() else (born,))]

    monkeypatch.setattr(router.xfrm, "sas", one_more)
    assert "SA 0xc1000001 (CPU 1)" in look(*asked).output
    monkeypatch.setattr(router.xfrm, "sas", busy)
    spi = OUT.spi
    pinned = look(*asked)
    assert pinned.exit_code == 0
    assert "goes out on the fallback SA 0xc0000001, though 2 SAs have a CPU of their own" in pinned.output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["10.1.0.5", "10.2.0.9", "--set", "lan=eth0"],
            "--set lan: there is no config that it could be a parameter of",
        ),
        (["10.1.0", "10.2.0.9"], "10.1.0: is not an IP address (explain takes two of them)"),
        (["10.1.0.5", "fd00::1"], "10.1.0.5 and fd00::1: one is IPv4, the other IPv6; a connection has one family"),
        (["10.1.0.5", "10.2.0.9", "tpc"], "tpc: no such protocol (tcp, udp, icmp, gre, ..., or a number"),
        (["10.1.0.5", "10.2.0.9", "443"], "443: no such protocol"),
        (["fe80::1%eth0", "fd00::1"], "fe80::1%eth0: an address with a scope stays on its link"),
    ],
)
def test_bad_input_is_one_line(look: Flowfast, arguments: list[str], line: str) -> None:
    result = look("explain", *arguments)
    assert isinstance(result.exception, FlowfastError)
    assert result.exception.exit_code == 2
    (said,) = str(result.exception).splitlines()
    assert said.startswith(line)


def test_not_root_and_no_such_config(look: Flowfast, router: FakeKernel, tmp_path: object) -> None:
    router.system.is_privileged = False
    assert "sudo" in str(look("explain", "10.1.0.5", "10.2.0.9").exception)
    missing = look("explain", "10.1.0.5", "10.2.0.9", "--config", f"{tmp_path}/nothing.yaml")
    assert "no such file" in str(missing.exception)
