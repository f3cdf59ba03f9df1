"""One peer in another's connection: a spoke sends, through its own SA, what belongs into the other spoke's tunnel.

On the full path the kernel drops it (XfrmInTmplMismatch); a flowtable hit does not look. That the attack works is
shown with `trust_peers`; without it nothing arrives, be it because inbound keeps to the full path, or because each
peer's packets have a mark of their own.
"""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from flowfast.lab.hub import HubAndSpokes, hub_and_spokes
from flowfast.lab.inject import MARKER, Arrivals
from flowfast.lab.manual_keys import MARK, manual_keys
from flowfast.lab.topology import BOTH, settle
from flowfast.lab.traffic import UdpFlow, family_of
from tests.guest.oneshot import Applied, FullPath, apply, offloaded, to_and_fro

pytestmark = [pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=3), pytest.mark.long]

OURS, THEIRS = 4100, 7

AT_INGRESS = f"""
table netdev probe {{
  counter marked {{ }}
  counter others {{ }}
  chain wan {{ type filter hook ingress device wan0 priority -20;
    meta ipsec missing accept
    meta mark {MARK + 1:#x} counter name marked accept
    counter name others
  }}
}}
"""


@contextmanager
def one_bad_spoke(*, marks: bool) -> Iterator[HubAndSpokes]:
    """A hub with two spokes; the second one has the first one's addresses, and policies to send from them."""
    with hub_and_spokes(2) as topo:
        manual_keys(topo, marks=marks)
        lines = []
        for family, lan, all_lans in ((4, "10.101.0.0/16", "10.0.0.0/8"), (6, "fd00:101::/64", "fd00::/16")):
            stolen = topo.spoke_address(0, family)
            lines.append(f"addr add {stolen}/{32 if family == 4 else 128} dev lo")
            lines.append(
                f"xfrm policy add src {lan} dst {all_lans} dir out"
                " tmpl src 192.0.2.102 dst 192.0.2.1 proto esp reqid 2 mode tunnel"
            )
        topo.spokes[1].run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
        settle(*((spoke, topo.host_address(family)) for spoke in topo.spokes for family in BOTH))
        yield topo


@pytest.fixture(scope="module")
def topo(request: pytest.FixtureRequest) -> Iterator[HubAndSpokes]:
    with one_bad_spoke(marks=request.param) as built:
        yield built


unmarked = pytest.mark.parametrize("topo", [False], ids=["unmarked"], indirect=True)
marked = pytest.mark.parametrize("topo", [True], ids=["marked"], indirect=True)


def configured(topo: HubAndSpokes, folder: Path, more: str = "") -> Applied:
    config = folder / "site.yaml"
    config.write_text(f"devices: {{lan: [lan0], wan: [wan0]}}\n{more}")
    return apply(topo.hub, str(config))


def arrivals_of_an_attack(topo: HubAndSpokes) -> int:
    """What reaches h0 of what the bad spoke sends into h0's connections with the good one, which are fast."""
    with ExitStack() as stack:
        for family in BOTH:
            source, address = topo.host_address(family), topo.spoke_address(0, family)
            flow = UdpFlow(topo.h0, topo.spokes[0], address, rate=20, port=THEIRS, source=source, source_port=OURS)
            stack.enter_context(flow)
        deadline = time.monotonic() + 20
        while sum(f"sport={OURS} " in line for line in offloaded(topo.hub)) < 2:
            assert time.monotonic() < deadline, topo.hub.run(["conntrack", "-L"]).stdout
            time.sleep(0.2)
        before = decrypted(topo)
        with Arrivals(topo.h0, "e0") as arrived:
            for family in BOTH:
                send_as_the_other(topo, topo.spoke_address(0, family), topo.host_address(family))
        # They did come through the bad spoke's own SA: 2 times 50.
        assert decrypted(topo) - before >= 100
        assert arrived.seen > 10
    return arrived.count


def send_as_the_other(topo: HubAndSpokes, stolen: str, victim: str) -> None:
    with topo.spokes[1].socket(family_of(stolen), socket.SOCK_DGRAM) as out:
        out.bind((stolen, THEIRS))
        for _ in range(50):
            out.sendto(MARKER, (victim, OURS))
            time.sleep(0.01)


def decrypted(topo: HubAndSpokes) -> int:
    """Packets that the hub's SA from the bad spoke has let in."""
    listed = topo.hub.run(["ip", "-s", "xfrm", "state", "list", "src", "192.0.2.102", "dst", "192.0.2.1"]).stdout
    found = re.search(r"lifetime current:\s+\d+\(bytes\), (\d+)\(packets\)", listed)
    assert found, listed
    return int(found[1])


def share_of_own_traffic_on_the_full_path(topo: HubAndSpokes) -> float:
    with FullPath(topo.hub) as seen:
        for family in BOTH:
            to_and_fro(topo.h0, topo.spokes[0], topo.spoke_address(0, family), rounds=300)
    return seen.packets / 1200


@unmarked
def test_without_trust_or_marks_nothing_arrives(topo: HubAndSpokes, tmp_path: Path) -> None:
    applied = configured(topo, tmp_path)
    assert (applied.fast("tx"), applied.fast("rx")) == ({True}, {False})
    assert "PEERS_NOT_CONFINED" in applied.reasons
    assert arrivals_of_an_attack(topo) == 0
    # Half of it is outbound, and that is fast all the same.
    assert 0.5 <= share_of_own_traffic_on_the_full_path(topo) < 0.51


@unmarked
def test_a_trusted_peer_can_reach_into_anothers_connection(topo: HubAndSpokes, tmp_path: Path) -> None:
    """The attack is real, so that zero means something."""
    applied = configured(topo, tmp_path, "offload: {trust_peers: true}\n")
    assert applied.fast("tx") == applied.fast("rx") == {True}
    assert arrivals_of_an_attack(topo) > 50


@marked
def test_marks_confine_each_peer_and_both_directions_are_fast(topo: HubAndSpokes, tmp_path: Path) -> None:
    topo.hub.run(["nft", "-f", "-"], stdin=AT_INGRESS)
    applied = configured(topo, tmp_path)
    assert applied.fast("tx") == applied.fast("rx") == {True}
    assert share_of_own_traffic_on_the_full_path(topo) < 0.01
    listed = topo.hub.run(["nft", "list", "counters", "table", "netdev", "probe"]).stdout
    others, marked = (int(listed.split(f"counter {name} ")[1].split()[2]) for name in ("others", "marked"))
    # The mark is there where the guard looks, before the flowtable.
    assert marked >= 600, listed
    assert others == 0, listed
    assert arrivals_of_an_attack(topo) == 0
    drops = topo.hub.run(["nft", "list", "counter", "netdev", "flowfast", "guard_wan0"]).stdout
    assert int(drops.split("packets")[1].split()[0]) >= 100
