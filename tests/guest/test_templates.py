"""Every template of rules/, applied to a router that it is for: the paths are what it says, and all arrives whole.

Where the WAN is on the flowtable, forged plaintext arrives nowhere.
"""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flowfast.config.library import names
from flowfast.lab.hub import hub_and_spokes
from flowfast.lab.inject import TCP, UDP, Tuple
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import Netns
from flowfast.lab.topology import BOTH, IF_ID, TwoGateways, settle, two_gateways
from flowfast.lab.traffic import UdpFlow, tcp_transfer
from tests.guest.attack import (
    OURS,
    THEIRS,
    Connection,
    Topology,
    all_fast,
    connections,
    forging,
    replies,
    until_fast,
)
from tests.guest.oneshot import FullPath, apply, meet, offloaded, to_and_fro
from tests.guest.pool import POOL, come, go, outer, pooled

pytestmark = [pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=3), pytest.mark.long]

ROUNDS = 300
TCP_BYTES = 1_000_000
POLICY_TEMPLATES = ("site-to-site-policy", "outbound-only", "packet-offload-nic")


def test_every_template_is_tried_here() -> None:
    tried = {*POLICY_TEMPLATES, "site-to-site-xfrm-interface", "cross-netns", "hub-and-spokes", "remote-access"}
    assert {*names()} == tried | {"multi-sa-per-cpu", "plain-router", "anima-acp"}


@contextmanager
def hosts(kind: str, *, keys: bool = True) -> Iterator[TwoGateways]:
    """Two gateways that know their neighbours, with or without SAs."""
    with two_gateways(kind) as topo:
        if keys:
            manual_keys(topo)
        meet(topo)
        yield topo


def nearly_all_fast(topo: TwoGateways) -> None:
    """UDP opened from either side in both families, TCP both ways: gw1's forward chains see less than 1 % of it."""
    ways = ((topo.h1, topo.h2, 2), (topo.h2, topo.h1, 1))
    for client, server, side in ways:
        for family in BOTH:
            with FullPath(topo.gw1) as seen:
                to_and_fro(client, server, topo.host_address(side, family), rounds=ROUNDS)
            assert seen.packets < 2 * ROUNDS / 100, f"UDP to h{side}, IPv{family}"
        for family in BOTH:
            with FullPath(topo.gw1) as seen:
                assert tcp_transfer(client, server, topo.host_address(side, family), TCP_BYTES).intact
            assert seen.packets < 60, f"TCP to h{side}, IPv{family}"


def attack(topo: Topology, victim: Netns, flows: list[Connection], router: Netns) -> None:
    """Keeps UDP and TCP connections fast and forges their replies on the WAN: none may arrive."""
    with connections(victim, flows):
        until_fast(router, flows)
        forge(topo, victim, replies(flows))
        assert all_fast(router, flows)


def forge(topo: Topology, victim: Netns, what: list[Tuple]) -> None:
    """Sends plaintext to the WAN of the router, while its connections go on: none of it may reach the victim."""
    with forging(topo, victim, what) as arrived:
        time.sleep(2)
    assert arrived.count == 0


def attacked_hosts(topo: TwoGateways) -> None:
    attack(topo, topo.h1, [(topo.host_address(1, f), topo.h2, topo.host_address(2, f)) for f in BOTH], topo.gw1)


def test_site_to_site_policy() -> None:
    with hosts("policy") as topo:
        applied = apply(topo.gw1, "site-to-site-policy", lan="lan0", wan="wan0")
        assert applied.fast("tx") == applied.fast("rx") == {True}
        nearly_all_fast(topo)
        attacked_hosts(topo)


def test_site_to_site_xfrm_interface() -> None:
    with hosts("xfrmi") as topo:
        applied = apply(topo.gw1, "site-to-site-xfrm-interface", lan="lan0", wan="wan0")
        assert applied.fast("tx") == applied.fast("rx") == {True}
        nearly_all_fast(topo)
        attacked_hosts(topo)
        # The kernel itself lets such packets in: no policy without an if_id speaks of them.
        drops = topo.gw1.run(["nft", "list", "counter", "inet", "flowfast", "guard_wan0"]).stdout
        assert int(drops.split("packets")[1].split()[0]) > 100


def another_pair(topo: TwoGateways, number: int, *, pcpu: bool = False) -> None:
    """A pair of SAs more for the tunnel, beside those that it has; with `pcpu` what gw1 sends with it is CPU 0's.

    The kernel has an SA of a CPU say its direction, too, and one that sends have no replay window.
    """
    key = secrets.token_hex(20)
    ends = (("192.0.2.1", "192.0.2.2", 0x3000), ("192.0.2.2", "192.0.2.1", 0x4000))
    for ns, own in ((topo.gw1, "192.0.2.1"), (topo.gw2, "192.0.2.2")):
        lines = []
        for source, destination, spi in ends:
            way = " dir out pcpu-num 0" if pcpu and ns is topo.gw1 and source == own else " replay-window 32"
            lines.append(
                f"xfrm state add src {source} dst {destination} proto esp spi {spi + number:#x} reqid 1 mode tunnel"
                f" flag af-unspec aead rfc4106(gcm(aes)) 0x{key} 128 if_id {IF_ID}{way}"
            )
        ns.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")


def carried(topo: TwoGateways, source: str) -> dict[int, int]:
    """Packets by SPI that gw1's SAs from an address have counted."""
    listed = topo.gw1.run(["ip", "-s", "xfrm", "state", "list", "src", source]).stdout
    found = re.findall(
        r"proto esp spi 0x([0-9a-f]+).*?lifetime current:\s+\d+\(bytes\), (\d+)\(packets\)", listed, re.S
    )
    return {int(spi, 16): int(packets) for spi, packets in found}


def test_multi_sa_per_cpu(image: str) -> None:
    """Three SAs each way at once. Where kernel (6.13) and iproute2 have SAs by CPU, one is that of the only CPU."""
    with hosts("xfrmi") as topo:
        applied = apply(topo.gw1, "multi-sa-per-cpu", lan="lan0", wan="wan0")
        assert applied.fast("tx") == applied.fast("rx") == {True}
        another_pair(topo, 1, pcpu=image == "debian14")
        nearly_all_fast(topo)
        second = carried(topo, "192.0.2.1")
        another_pair(topo, 2)
        nearly_all_fast(topo)
        attacked_hosts(topo)
        third = carried(topo, "192.0.2.1")
        assert set(third) == {0x1001, 0x3001, 0x3002}
        assert sum(third.values()) - sum(second.values()) > 4 * ROUNDS
        if image == "debian14":
            # The guest's only CPU has an SA of its own: neither the fallback SA nor a younger one carries anything.
            assert second[0x3001] > 4 * ROUNDS
            assert third[0x3001] - second[0x3001] == sum(third.values()) - sum(second.values())


def test_cross_netns() -> None:
    with hosts("cross-netns") as topo:
        applied = apply(topo.gw1, "cross-netns", lan="lan0", netns="underlay1")
        assert applied.fast("tx") == applied.fast("rx") == {True}
        nearly_all_fast(topo)
        attacked_hosts(topo)


@pytest.mark.parametrize("template", ["outbound-only", "packet-offload-nic"])
def test_outbound_only(template: str) -> None:
    """Also on an ordinary NIC by the template for one that does all of ESP."""
    with hosts("policy") as topo:
        applied = apply(topo.gw1, template, lan="lan0", wan="wan0")
        assert applied.fast("tx") == {True}
        assert applied.fast("rx") == {False}
        assert "OUTBOUND_ONLY" in applied.reasons
        assert "netdev flowfast" not in topo.gw1.run(["nft", "list", "tables"]).stdout
        with FullPath(topo.gw1) as seen:
            to_and_fro(topo.h1, topo.h2, topo.host_address(2, 4), rounds=ROUNDS)
        # The answers, all of them; of what they answer next to nothing.
        assert ROUNDS <= seen.packets < ROUNDS + 5
        attacked_hosts(topo)


def test_hub_and_spokes() -> None:
    with hub_and_spokes(2) as topo:
        manual_keys(topo)
        spokes = list(enumerate(topo.spokes))
        settle(*((spoke, topo.host_address(family)) for spoke in topo.spokes for family in BOTH))
        careful = apply(topo.hub, "hub-and-spokes", lan="lan0", wan="wan0")
        assert (careful.fast("tx"), careful.fast("rx")) == ({True}, {False})
        assert "PEERS_NOT_CONFINED" in careful.reasons
        applied = apply(topo.hub, "hub-and-spokes", lan="lan0", wan="wan0", trust_peers="true")
        assert applied.fast("tx") == applied.fast("rx") == {True}
        with FullPath(topo.hub) as seen:
            for number, spoke in spokes:
                for family in BOTH:
                    to_and_fro(topo.h0, spoke, topo.spoke_address(number, family), rounds=ROUNDS)
        assert seen.packets < 8 * ROUNDS / 100
        with FullPath(topo.hub) as seen:
            assert tcp_transfer(topo.h0, topo.spokes[0], topo.spoke_address(0, 4), TCP_BYTES).intact
        assert seen.packets < 20
        # From spoke to spoke nothing is fast, and everything arrives.
        with FullPath(topo.hub) as seen:
            source, address = topo.spoke_address(0, 4), topo.spoke_address(1, 4)
            to_and_fro(topo.spokes[0], topo.spokes[1], address, source=source, rounds=50)
        assert seen.packets >= 100
        attack(
            topo,
            topo.h0,
            [(topo.host_address(f), spoke, topo.spoke_address(n, f)) for n, spoke in spokes for f in BOTH],
            topo.hub,
        )


# --- remote access: gw2 plays all the peers ---

PEERS = 20


def test_remote_access() -> None:
    with hosts("policy", keys=False) as topo:
        topo.gw1.run(["ip", "route", "add", POOL, "via", "192.0.2.2"])
        come(topo, range(1, PEERS))
        settings = {"lan": "lan0", "wan": "wan0", "pool": POOL, "networks": "10.1.0.0/16"}
        careful = apply(topo.gw1, "remote-access", **settings)
        assert (careful.fast("tx"), careful.fast("rx")) == ({True}, {False})
        with FullPath(topo.gw1) as seen:
            to_and_fro(topo.h1, topo.gw2, pooled(3), rounds=ROUNDS)
        assert ROUNDS <= seen.packets < ROUNDS + 5

        # One goes, one comes; all are trusted.
        go(topo, 5)
        come(topo, [PEERS])
        applied = apply(topo.gw1, "remote-access", **settings, trust_peers="true")
        assert applied.fast("tx") == applied.fast("rx") == {True}
        names_now = {path["tunnel"] for path in applied.said["paths"]}
        assert names_now == {f"access-{outer(peer)}" for peer in range(1, PEERS + 1) if peer != 5}
        with FullPath(topo.gw1) as seen:
            for peer in (1, 2, PEERS):
                to_and_fro(topo.h1, topo.gw2, pooled(peer), rounds=ROUNDS)
        assert seen.packets < 6 * ROUNDS / 100
        attack(topo, topo.h1, [(topo.host_address(1, 4), topo.gw2, pooled(peer)) for peer in (1, PEERS)], topo.gw1)


# --- without a tunnel, without a fast path ---


def test_plain_router() -> None:
    with hosts("policy", keys=False) as topo:
        apply(topo.gw1, "plain-router", lan="lan0", wan="wan0")
        nearly_all_fast(topo)


def test_plain_router_with_a_tunnel_beside() -> None:
    """What no tunnel protects may come in the clear; what one does may not, fast as both are."""
    with hosts("policy") as topo:
        applied = apply(topo.gw1, "plain-router", lan="lan0", wan="wan0")
        assert applied.fast("tx") == applied.fast("rx") == {True}
        nearly_all_fast(topo)
        attacked_hosts(topo)


def test_anima_acp_is_off_and_says_so() -> None:
    """In a VRF, as the template has it: what comes in on the WAN finds no way to the ACP, forged or not."""
    with hosts("xfrmi") as topo:
        vrf = ["link add acp type vrf table 100", "link set acp up"]
        vrf += [f"link set {device} master acp" for device in ("lan0", "ipsec0")]
        # A device that gets a master loses the routes through it, and its IPv6 addresses.
        vrf += ["addr replace fd00:1::1/64 dev lan0 nodad"]
        vrf += ["route add 10.2.0.0/16 dev ipsec0 table 100", "route add fd00:2::/64 dev ipsec0 table 100"]
        topo.gw1.run(["ip", "-batch", "-"], stdin="\n".join(vrf) + "\n")
        meet(topo)
        applied = apply(topo.gw1, "anima-acp", lan="lan0", wan="wan0")
        assert applied.fast("tx") == applied.fast("rx") == {False}
        assert "OFF" in applied.reasons
        with FullPath(topo.gw1) as seen:
            to_and_fro(topo.h1, topo.h2, topo.host_address(2, 6), rounds=ROUNDS)
        assert seen.packets >= 2 * ROUNDS
        assert not offloaded(topo.gw1)
        ends = [(topo.host_address(2, family), topo.host_address(1, family)) for family in BOTH]
        with UdpFlow(topo.h1, topo.h2, topo.host_address(2, 4), rate=20, port=THEIRS, source_port=OURS):
            forge(topo, topo.h1, [Tuple(*pair, THEIRS, OURS, protocol) for pair in ends for protocol in (UDP, TCP)])
