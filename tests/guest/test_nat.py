"""NAT beside a tunnel, into it and out of it: whole, translated, never in the clear; and fast where that is possible.

What is translated into a tunnel's selectors only after the forward chain (source NAT from outside of them, or the
answers of a destination NAT) is not known as IPsec where a flow is added: with `offload: {plain: true}` it would be
fast in the clear, if nothing kept it on the full path.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from flowfast.lab.capture import capture
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import Netns
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.lab.traffic import tcp_transfer
from tests.guest.oneshot import FullPath, apply, meet, to_and_fro

pytestmark = [pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=3), pytest.mark.long]

INTERNET, OUTSIDE = "203.0.113.1", "172.16.0.2"

NAT = f"""
table inet operator {{
  chain pre {{ type nat hook prerouting priority dstnat;
    meta ipsec exists ip daddr 10.1.0.99 dnat ip to 10.1.0.2
    meta ipsec exists ip daddr 10.1.0.98 dnat ip to {OUTSIDE}
    meta ipsec exists ip6 daddr fd00:1::99 dnat ip6 to fd00:1::2
  }}
  chain post {{ type nat hook postrouting priority srcnat;
    rt ipsec exists ip saddr 10.1.0.3 snat ip to 10.1.0.77
    rt ipsec exists ip6 saddr fd00:1::3 snat ip6 to fd00:1::77
    ip saddr {OUTSIDE} ip daddr 10.2.0.0/16 snat ip to 10.1.0.88
    oifname "wan0" rt ipsec missing masquerade
  }}
}}
"""

SEEN_BY_THE_PEER = f"""
table inet peer {{
  counter untranslated {{ }}
  counter translated {{ }}
  chain pre {{ type filter hook prerouting priority raw;
    ip saddr {{ 10.1.0.3, {OUTSIDE} }} counter name untranslated
    ip6 saddr fd00:1::3 counter name untranslated
    ip saddr 10.1.0.0/16 ip daddr {INTERNET} counter name untranslated
    udp sport 7 ip saddr 10.1.0.2 counter name untranslated
    udp sport 7 ip6 saddr fd00:1::2 counter name untranslated
    ip saddr {{ 10.1.0.77, 10.1.0.88, 10.1.0.98, 10.1.0.99 }} counter name translated
    ip6 saddr {{ fd00:1::77, fd00:1::99 }} counter name translated
    ip saddr 192.0.2.1 ip daddr {INTERNET} counter name translated
  }}
}}
"""


@pytest.fixture(scope="module")
def topo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoGateways]:
    with two_gateways("policy", hosts=2) as built:
        built.h1.run(["ip", "addr", "add", f"{OUTSIDE}/24", "dev", "e0"])
        built.gw1.run(["ip", "addr", "add", "172.16.0.1/24", "dev", "lan0"])
        built.gw1.run(["ip", "route", "add", "203.0.113.0/24", "via", "192.0.2.2"])
        built.gw2.run(["ip", "addr", "add", f"{INTERNET}/32", "dev", "lo"])
        built.gw1.run(["nft", "-f", "-"], stdin=NAT)
        manual_keys(built)
        meet(built)
        config = tmp_path_factory.mktemp("nat") / "site.yaml"
        config.write_text("devices: {lan: [lan0], wan: [wan0]}\noffload: {plain: true}\n")
        apply(built.gw1, str(config))
        yield built


class Case(NamedTuple):
    """A connection from `source` to `address`; `out`: from h1."""

    source: str
    address: str
    out: bool = True


FAST = {
    "masquerade beside the tunnel": Case("10.1.0.2", INTERNET),
    "source NAT into the tunnel": Case("10.1.0.3", "10.2.0.2"),
    "source NAT into the tunnel, IPv6": Case("fd00:1::3", "fd00:2::2"),
    "destination NAT from the tunnel": Case("10.2.0.2", "10.1.0.99", out=False),
    "destination NAT from the tunnel, IPv6": Case("fd00:2::2", "fd00:1::99", out=False),
}
FULL = {
    "source NAT from outside of the selectors": Case(OUTSIDE, "10.2.0.2"),
    "destination NAT to outside of the selectors": Case("10.2.0.2", "10.1.0.98", out=False),
}


class Outcome(NamedTuple):
    """Of 400 packets: those that the forward chain saw, those in the clear, and what the peer saw."""

    full_path: int
    clear: int
    untranslated: int
    translated: int


ROUNDS = 200
LISTENING = {"10.1.0.99": "10.1.0.2", "10.1.0.98": OUTSIDE, "fd00:1::99": "fd00:1::2"}


def exchange(topo: TwoGateways, case: Case) -> Outcome:
    """Packets there and back, one after the other: each arrives, and its answer."""
    client, server = (topo.h1, topo.h2) if case.out else (topo.h2, topo.h1)
    if case.address == INTERNET:
        server = topo.gw2
    topo.gw2.run(["nft", "-f", "-"], stdin=f"table inet peer\ndelete table inet peer\n{SEEN_BY_THE_PEER}")
    with capture(*topo.wan) as wan, FullPath(topo.gw1) as seen:
        at = LISTENING.get(case.address, "")
        to_and_fro(client, server, case.address, source=case.source, at=at, rounds=ROUNDS)
    assert wan.total >= 2 * ROUNDS
    clear = wan.within(*topo.protected, "172.16.0.0/24")
    return Outcome(seen.packets, len(clear), count(topo.gw2, "untranslated"), count(topo.gw2, "translated"))


def count(ns: Netns, name: str) -> int:
    return int(ns.run(["nft", "list", "counter", "inet", "peer", name]).stdout.split("packets")[1].split()[0])


@pytest.mark.parametrize("case", FAST.values(), ids=FAST)
def test_translated_connections_are_fast_and_whole(topo: TwoGateways, case: Case) -> None:
    outcome = exchange(topo, case)
    assert outcome.untranslated == 0, outcome
    assert outcome.translated >= ROUNDS, outcome
    assert outcome.clear == 0, outcome
    assert outcome.full_path < 10, outcome


@pytest.mark.parametrize("case", FULL.values(), ids=FULL)
def test_what_is_ipsec_only_once_translated_keeps_to_the_full_path(topo: TwoGateways, case: Case) -> None:
    outcome = exchange(topo, case)
    assert outcome == Outcome(outcome.full_path, 0, 0, outcome.translated)
    assert outcome.translated >= ROUNDS, outcome
    assert outcome.full_path >= 2 * ROUNDS, outcome


def test_a_tcp_transfer_with_source_nat_into_the_tunnel(topo: TwoGateways) -> None:
    with FullPath(topo.gw1) as seen:
        assert tcp_transfer(topo.h1, topo.h2, "10.2.0.2", 2_000_000, source="10.1.0.3").intact
    assert seen.packets < 20


@pytest.mark.parametrize("case", FULL.values(), ids=FULL)
def test_without_the_rule_they_would_leave_in_the_clear(topo: TwoGateways, case: Case) -> None:
    """Last of all: it takes the rules out that keep these connections on the full path."""
    listed = topo.gw1.run(["nft", "-s", "list", "chain", "inet", "flowfast", "to_flowtable"]).stdout
    assert "@protected4" in listed or case is not next(iter(FULL.values()))
    rules = [line for line in listed.splitlines() if "@protected" not in line]
    topo.gw1.run(["nft", "-f", "-"], stdin="flush chain inet flowfast to_flowtable\n" + "\n".join(rules))
    try:
        outcome = exchange(topo, case)
    except TimeoutError:
        return  # not even whole: the peer refuses what it should have had encrypted
    assert outcome.clear > ROUNDS / 2, outcome
