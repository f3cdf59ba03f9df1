"""No plaintext, whatever template: forged replies arrive nowhere, all through a crash, reloads, rekeys and applies.

The attack never stops: the controller is killed, started, told to read its config again, stopped and started with
another one, and the tunnels get new SAs. Where flowfast itself keeps forged packets out (and not the kernel), the test
ends with taking that out by hand: then they arrive, so that the count of zero before meant something.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from flowfast.lab.hub import hub_and_spokes
from flowfast.lab.inject import Arrivals, Tuple
from flowfast.lab.manual_keys import manual_keys, manual_rekey
from flowfast.lab.netns import Netns
from flowfast.lab.topology import BOTH, Kind, settle, two_gateways
from tests.guest import pool
from tests.guest.attack import Connection, Topology, connections, forging, replies, until_fast, wait_for
from tests.guest.oneshot import Controller, flowfast, meet

pytestmark = [pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=3), pytest.mark.long(seconds=150)]

LAN_WAN = {"lan": ["lan0"], "wan": ["wan0"]}


@dataclass
class Site:
    """A router under attack: `flows` are the victim's connections, `rekey` gives its tunnels new SAs."""

    topo: Topology
    victim: Netns
    router: Netns
    flows: list[Connection]
    rekey: Callable[[], None]


@contextmanager
def sites(kind: Kind) -> Iterator[Site]:
    """Two gateways whose hosts talk to each other in both families."""
    with two_gateways(kind) as topo:
        manual_keys(topo)
        meet(topo)
        flows: list[Connection] = [(topo.host_address(1, f), topo.h2, topo.host_address(2, f)) for f in BOTH]
        yield Site(topo, topo.h1, topo.gw1, flows, lambda: manual_rekey(topo))


@contextmanager
def hub() -> Iterator[Site]:
    """A hub's host that talks to two spokes."""
    with hub_and_spokes(2) as topo:
        manual_keys(topo)
        settle(*((spoke, topo.host_address(family)) for spoke in topo.spokes for family in BOTH))
        flows: list[Connection] = [
            (topo.host_address(f), spoke, topo.spoke_address(number, f))
            for number, spoke in enumerate(topo.spokes)
            for f in BOTH
        ]
        yield Site(topo, topo.h0, topo.hub, flows, lambda: manual_rekey(topo))


@contextmanager
def remote_access() -> Iterator[Site]:
    """A host that talks to two of five peers."""
    with two_gateways("policy") as topo:
        peers = range(1, 6)
        topo.gw1.run(["ip", "route", "add", pool.POOL, "via", "192.0.2.2"])
        pool.come(topo, peers)
        settle(*((topo.h1, pool.pooled(peer)) for peer in peers))
        flows: list[Connection] = [(topo.host_address(1, 4), topo.gw2, pool.pooled(peer)) for peer in (1, 5)]
        yield Site(topo, topo.h1, topo.gw1, flows, lambda: pool.rekey(topo, peers))


def config(template: str, settings: dict[str, object], more: str) -> str:
    return yaml.safe_dump({"use": [{"template": template, "set": settings}]}) + more


CHANGES = ("accounting: precise\n", "exclude: {ports: [5060]}\n", "offload: {mode: outbound-only}\n", "")
"""What an operator adds to the config, one after the other, and takes out again."""


@dataclass(frozen=True)
class Case:
    """A template, where it is tried, and the chain that keeps forged packets out (none: the kernel does by itself)."""

    template: str
    where: Callable[[], AbstractContextManager[Site]]
    settings: dict[str, object]
    chain: tuple[str, ...] = ()


GUARD = ("netdev", "flowfast", "guard_wan0")
FORWARD = ("inet", "flowfast", "forward")
CASES = (
    Case("site-to-site-policy", lambda: sites("policy"), {**LAN_WAN}, GUARD),
    Case("site-to-site-xfrm-interface", lambda: sites("xfrmi"), {**LAN_WAN}, FORWARD),
    Case("multi-sa-per-cpu", lambda: sites("xfrmi"), {**LAN_WAN}, FORWARD),
    Case("cross-netns", lambda: sites("cross-netns"), {"lan": ["lan0"], "netns": "underlay1"}),
    Case("hub-and-spokes", hub, {**LAN_WAN, "trust_peers": True}, GUARD),
    Case(
        "remote-access",
        remote_access,
        {**LAN_WAN, "pool": [pool.POOL], "networks": ["10.1.0.0/16"], "trust_peers": True},
        GUARD,
    ),
    Case("outbound-only", lambda: sites("policy"), {**LAN_WAN}),
    Case("packet-offload-nic", lambda: sites("policy"), {**LAN_WAN}),
    Case("plain-router", lambda: sites("policy"), {**LAN_WAN}, GUARD),
)
"""Every template but anima-acp, under which nothing is ever fast (test_templates.py)."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.template)
def test_not_one_forged_packet_arrives(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    with case.where() as site, ExitStack() as stack:
        file.write_text(config(case.template, case.settings, ""))
        controller = Controller(site.router, str(file), tmp_path / "log")
        stack.callback(flowfast, site.router, "apply", "--remove")
        stack.callback(controller.stop)
        controller.start()
        stack.enter_context(connections(site.victim, site.flows))
        until_fast(site.router, site.flows)
        forged = replies(site.flows)
        with forging(site.topo, site.victim, forged) as arrived:
            time.sleep(1)
            controller.stop(signal.SIGKILL)
            time.sleep(1)
            controller.start()
            for number, more in enumerate(CHANGES):
                file.write_text(config(case.template, case.settings, more))
                controller.hang_up()
                wait_for(lambda n=number: controller.said().count("read again") > n, controller.said)
                time.sleep(1)
            site.rekey()
            time.sleep(1)
            controller.stop()
            flowfast(site.router, "apply", str(file))
            controller.start()
            until_fast(site.router, site.flows)
            time.sleep(1)
        assert arrived.count == 0
        if case.chain:
            controller.stop()
            assert without(site, case.chain, forged).count > 20


def without(site: Site, chain: tuple[str, ...], forged: list[Tuple]) -> Arrivals:
    """What arrives once the chain is empty."""
    site.router.run(["nft", "flush", "chain", *chain])
    with forging(site.topo, site.victim, forged) as arrived:
        time.sleep(2)
    return arrived
