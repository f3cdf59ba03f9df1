"""A site of two gateways with strongSwan's per_cpu_sas, one of which is steered: what its tests share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flowfast.lab.ike import Daemon, two_daemons
from flowfast.lab.sims import Sims
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.lab.wires import Wires
from flowfast.model.sa import Direction
from tests.guest.router import Router
from tests.guest.steered import Flows, Seen, cpus_with_sas, knobs, sas_of, watching

CPUS = {0, 1, 2, 3}
IN, OUT = Direction.IN, Direction.OUT
CONFIG = """
devices: {{lan: [lan0], wan: [wan0]}}
steering: {{wan: {wan}, lan: {lan}}}
"""
KINDS = {
    "nic xdp rps": ("nic", "xdp", "rps", "yes"),
    "nic xdp xdp": ("nic", "xdp", "xdp", "yes"),
    "nic xdp encap": ("nic", "xdp", "rps", "encap"),
    "nic rps rps": ("nic", "rps", "rps", "yes"),
    "veth xdp rps": ("veth", "xdp", "rps", "yes"),
    "veth rps rps": ("veth", "rps", "rps", "yes"),
    "veth xdp xdp": ("veth", "xdp", "xdp", "yes"),
    "queues ntuple rps": ("queues", "ntuple", "rps", "yes"),
    "queues rss rps": ("queues", "rss", "rps", "yes"),
}
"""By name: wire, steering.wan and steering.lan on gw1, strongSwan's per_cpu_sas on both ends.

"queues": a WAN of queuesims (flowfast/lab/module), which choose queues by SPI. With XDP on the LAN, veths hand over
unfinished checksums, as they do by themselves.
"""


@dataclass
class Site:
    topo: TwoGateways
    ike: Daemon
    router: Router
    flows: Flows
    before: dict[str, str]
    wan: str

    def steady(self, seconds: float = 120) -> None:
        """Waits until every CPU has its SAs, flowfast has followed, and no flow is on a fallback SA any more."""
        deadline = time.monotonic() + seconds
        while True:
            self.flows.send(3)
            if self.wan == "rss" and "STEER_COLLISION" in self.plan():
                self.rekey()  # SPIs are drawn at random: now and then two of them share a slot
            if cpus_with_sas(self.topo.gw1, OUT) == CPUS and self._settled(self.look(5)):
                return
            assert time.monotonic() < deadline, self.said()

    def _settled(self, seen: Seen) -> bool:
        """A new SA's rule is there a round later than the SA."""
        if seen.fallback_share(OUT) >= 0.01 or not seen.working(IN):
            return False
        return self.wan == "rps" or seen.own_share(IN, least=1) >= 0.99

    def plan(self) -> str:
        return self.router.flowfast("plan", str(self.router.config)).stdout

    def rekey(self) -> None:
        """All SAs anew; returns when none of the old ones is left."""
        before = {sa.spi for sa in sas_of(self.topo.gw1)}
        for name in {sa.name for sa in self.ike.list_sas()}:
            self.ike.rekey(name)
        deadline = time.monotonic() + 60
        while before & {sa.spi for sa in sas_of(self.topo.gw1)}:
            assert time.monotonic() < deadline, self.said()
            self.flows.send(1)

    def look(self, rounds: int = 30) -> Seen:
        with watching(self.topo.gw1) as seen:
            self.share = self.flows.send(rounds)
        return seen

    def said(self) -> str:
        return f"{self.router.log.read_text()}\n{self.look(3)}"

    def holds(self) -> None:
        """The heart of it: each SA's packets on its own CPU, both directions, and next to none on the fallback SA."""
        seen = self.look()
        assert self.share > 0.99, self.share
        assert seen.working(OUT) == 4, seen
        assert seen.own_share(OUT) >= 0.99, seen
        if self.wan == "rps":  # a hash has each SA on one CPU, but on which nobody can say
            assert seen.one_cpu_share(IN) >= 0.99, seen
        else:
            assert seen.own_share(IN) >= 0.99, seen
        assert seen.fallback_share(OUT) < 0.01, seen
        assert seen.fallback_share(IN) < 0.01, seen


@contextmanager
def wan_of(wire: str) -> Iterator[Wires | None]:
    """The wires of the WAN, where they are not as the others."""
    if wire != "queues":
        yield None
        return
    sims = Sims("queuesim")
    try:
        yield sims
    finally:
        sims.close()


def steered(kind: str, folder: Path) -> Iterator[Site]:
    wire, wan, lan, per_cpu_sas = KINDS[kind]
    finish = wire != "nic" and lan != "xdp"
    options = {"start_action": "trap", "per_cpu_sas": per_cpu_sas, "encap": per_cpu_sas == "encap"}
    with (
        wan_of(wire) as own,
        two_gateways("policy", wire="veth" if own else wire, families=(4,), wan=own, finish_checksums=finish) as topo,
        two_daemons(topo, initiate=False, **options) as (ike, _),
        Flows(topo) as flows,
    ):
        topo.ping(4, 3)
        before = knobs(topo.gw1)
        with Router(topo.gw1, CONFIG.format(wan=wan, lan=lan), folder) as router:
            site = Site(topo, ike, router, flows, before, wan)
            site.steady()
            yield site
        assert knobs(topo.gw1) == before
