"""Segments of TCP that fit a tunnel: larger packets would leave the flowtable, and nobody would notice.

SYNs that go into the tunnel are clamped, and those that come out of it, to the tunnel's real MTU: each side of h1's and
h2's connections is looked at by what its SYN says when it arrives.
"""

import re
import subprocess
import time
from pathlib import Path

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import Netns
from flowfast.lab.topology import BOTH, Family, TwoGateways, two_gateways
from flowfast.lab.traffic import tcp_transfer
from tests.guest.oneshot import FullPath, apply, meet

pytestmark = [pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=3), pytest.mark.long]

ROOM = 1446
"""Bytes that AES-GCM-128 over IPv4 carries on a WAN of 1500."""
HEADERS: dict[Family, int] = {4: 40, 6: 60}


class SynSeen:
    """What the SYNs say that arrive at a host, read by tcpdump: `with SynSeen(h2) as seen: ...; seen.largest`."""

    def __init__(self, ns: Netns) -> None:
        self.ns = ns
        self.largest: list[int] = []

    def __enter__(self) -> "SynSeen":
        # tcp[] does not reach behind an IPv6 header: byte 40 is where TCP begins, 53 its flags.
        syn = "(tcp[tcpflags] & tcp-syn != 0) or (ip6 and ip6[6] == 6 and ip6[53] & 2 != 0)"
        command = ["tcpdump", "-n", "-v", "-l", "-i", "e0", "-Q", "in", syn]
        self.process = self.ns.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        assert b"listening" in self.process.stderr.readline()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(1)
        self.process.terminate()
        said, _ = self.process.communicate(timeout=30)
        self.largest = [int(size) for size in re.findall(rb"\bmss (\d+)", said)]


def forget_sizes(topo: TwoGateways) -> None:
    """Hosts remember too small an MTU of a path."""
    for host in (topo.h1, topo.h2):
        for family in ("-4", "-6"):
            host.run(["ip", family, "route", "flush", "cache"])


def sizes(topo: TwoGateways, family: Family) -> tuple[list[int], int]:
    """What every SYN of a connection each way said where it arrived, and the packets on gw1's full path."""
    forget_sizes(topo)
    with SynSeen(topo.h1) as one, SynSeen(topo.h2) as other, FullPath(topo.gw1) as seen:
        for client, server, side in ((topo.h1, topo.h2, 2), (topo.h2, topo.h1, 1)):
            assert tcp_transfer(client, server, topo.host_address(side, family), 1_000_000).intact
    assert len(one.largest) >= 2, "a SYN and a SYN/ACK came out of the tunnel"
    assert len(other.largest) >= 2, "and as many went into it"
    return one.largest + other.largest, seen.packets


def test_segments_fit_a_policy_based_tunnel_both_ways(tmp_path: Path) -> None:
    """Hosts with an MTU of 1500. The other gateway has no flowfast: what comes from it is as h2 would have it."""
    config = tmp_path / "site.yaml"
    with two_gateways("policy") as topo:
        manual_keys(topo)
        meet(topo)
        for clamp in ("true", "false"):
            config.write_text(f"devices: {{lan: [lan0], wan: [wan0]}}\noffload: {{clamp_mss: {clamp}}}\n")
            apply(topo.gw1, str(config))
            for family in BOTH:
                said, full_path = sizes(topo, family)
                if clamp == "true":
                    assert set(said) == {ROOM - HEADERS[family]}
                    assert full_path < 40
                else:
                    # Not all of them: 6.1 goes by what a host remembers of the path, flushed or not.
                    assert 1500 - HEADERS[family] in said


def test_segments_fit_an_interface_whose_mtu_promises_too_much(tmp_path: Path) -> None:
    """ipsec0 has 1480 bytes by its own word, its SAs have room for 1446."""
    config = tmp_path / "site.yaml"
    config.write_text("devices: {lan: [lan0], wan: [wan0]}\n")
    with two_gateways("xfrmi") as topo:
        manual_keys(topo)
        topo.gw1.run(["ip", "link", "set", "ipsec0", "mtu", "1480"])
        topo.gw2.run(["ip", "link", "set", "ipsec0", "mtu", "1480"])
        meet(topo)
        apply(topo.gw1, str(config))
        for family in BOTH:
            said, full_path = sizes(topo, family)
            assert set(said) == {ROOM - HEADERS[family]}
            assert full_path < 40
