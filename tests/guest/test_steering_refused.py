"""NICs that were thought to be able to, and refuse: `auto` goes on to what they take, and every command knows it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.sims import Sims
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.lab.wires import End, Veth
from flowfast.model.sa import Direction
from tests.guest.router import Router
from tests.guest.steered import Flows, add_sas_by_cpu, fallback_share, knobs, listening, watching

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3, cpus=4), pytest.mark.long(seconds=120)]

CONFIG = "devices: {{lan: [lan0], wan: [wan0]}}\nsteering: {{wan: {}, lan: rps}}\n"
IN, OUT = Direction.IN, Direction.OUT


class Vlans:
    """Wires of veth pairs with a VLAN on them."""

    def join(self, one: End, other: End) -> None:
        under = End(one.ns, "under0"), End(other.ns, "under0")
        Veth(finish_checksums=True).join(*under)
        for below, above in zip(under, (one, other), strict=True):
            below.ns.run(["ip", "link", "set", below.name, "up"])
            below.ns.run(["ip", "link", "add", above.name, "link", below.name, "type", "vlan", "id", "5"])

    def close(self) -> None:
        """They go with their namespaces."""


@pytest.fixture
def topo() -> Iterator[TwoGateways]:
    """A WAN of queuesims, whose table has room for 16 rules."""
    sims = Sims("queuesim")
    try:
        with two_gateways("policy", wire="veth", families=(4,), wan=sims, finish_checksums=True) as made:
            manual_keys(made)
            with listening(made.gw1, made.gw2):
                assert made.ping(4)
                yield made
    finally:
        sims.close()


@contextmanager
def steered(topo: TwoGateways, wan: str, folder: Path, *, ports: bool = False) -> Iterator[Router]:
    """A gateway with SAs by CPU that are steered so, and each on its CPU; in the end every knob is as it was."""
    before = knobs(topo.gw1)
    with Router(topo.gw1, CONFIG.format(wan), folder) as router, Flows(topo) as flows:
        add_sas_by_cpu(topo, ports=ports)
        deadline = time.monotonic() + 120
        while fallback_share(topo, flows) > 0.01 or _due(router):
            assert time.monotonic() < deadline, f"{_due(router)}\n{router.log.read_text()}"
        with watching(topo.gw1) as seen:
            assert flows.send(30) > 0.99
        assert seen.working(OUT) == 4, seen
        assert min(seen.own_share(OUT), seen.own_share(IN)) >= 0.99, seen
        yield router
    assert knobs(topo.gw1) == before
    assert not list(Path("/run/flowfast").glob("denied-*"))


def _due(router: Router) -> str:
    """The plan, where there is anything left to do."""
    planned = router.flowfast("plan", str(router.config), "--detailed-exitcode", check=False)
    return planned.stdout if planned.returncode else ""


def plan(router: Router) -> str:
    return router.flowfast("plan", str(router.config)).stdout


def test_a_table_that_is_full_leads_to_the_next_backend(topo: TwoGateways, tmp_path: Path) -> None:
    for location in range(14):  # the operator's
        rule = f"udp4 dst-port {5000 + location} action 1 loc {location}".split()
        topo.gw1.run(["ethtool", "-N", "wan0", "flow-type", *rule])
    topo.gw1.run(["ethtool", "-N", "wan0", "rx-flow-hash", "esp4", "sd"])  # and no SPI in the hash
    with steered(topo, "auto", tmp_path) as router:
        said = plan(router)
        assert "wan0 by rss" in said, said
        assert "no steering by ntuple, which the kernel refused" in said, said
        assert "BACKEND_REFUSED" in router.metrics()
        hashed = topo.gw1.run(["ethtool", "-n", "wan0", "rx-flow-hash", "esp4"]).stdout
        assert "L4 bytes" in hashed, hashed
        held = knobs(topo.gw1)
        router.stop()
        router.start()
        assert knobs(topo.gw1) == held
    assert topo.gw1.run(["ethtool", "-n", "wan0"]).stdout.count("Filter:") == 14


def test_apply_finds_it_out_at_once(topo: TwoGateways, tmp_path: Path) -> None:
    for location in range(16):
        rule = f"udp4 dst-port {5000 + location} action 1 loc {location}".split()
        topo.gw1.run(["ethtool", "-N", "wan0", "flow-type", *rule])
    add_sas_by_cpu(topo)
    before, router = knobs(topo.gw1), Router(topo.gw1, CONFIG.format("auto"), tmp_path)
    applied = router.flowfast("apply", str(router.config), "--yes").stdout
    assert "rss does it instead" in applied, applied
    again = router.flowfast("plan", str(router.config), "--detailed-exitcode", check=False)
    assert again.returncode == 0, again.stdout
    router.flowfast("apply", "--remove")
    assert knobs(topo.gw1) == before


def test_a_vlan_has_the_program_behind_it(tmp_path: Path) -> None:
    with two_gateways("policy", wire="veth", families=(4,), wan=Vlans(), finish_checksums=True) as topo:
        manual_keys(topo)
        assert topo.ping(4)
        with steered(topo, "auto", tmp_path) as router:
            assert "wan0 by xdp" in plan(router)


def test_rules_know_sas_in_udp_by_their_port(topo: TwoGateways, tmp_path: Path) -> None:
    with steered(topo, "ntuple", tmp_path, ports=True):
        rules = topo.gw1.run(["ethtool", "-n", "wan0"]).stdout
        assert [f"Src port: {4501 + cpu}" in rules for cpu in range(4)] == [True] * 4, rules
