"""SAs by our own hand: a policy-based flow keeps the SA that it began on, unless flowfast steers."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.topology import TwoGateways, two_gateways, wan_address
from flowfast.model.sa import Direction
from tests.guest.router import Router
from tests.guest.steered import Flows, watching

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3, cpus=4), pytest.mark.long]

PLAIN = "devices: {lan: [lan0], wan: [wan0]}\n"
STEERED = PLAIN + "steering: {wan: xdp, lan: rps}\n"
REQID = 1


@pytest.fixture
def topo() -> Iterator[TwoGateways]:
    with two_gateways("policy", families=(4,), finish_checksums=True) as made:
        manual_keys(made)
        assert made.ping(4)
        yield made


def add_sas_by_cpu(topo: TwoGateways) -> None:
    """A pair for each CPU, as two IKE daemons would agree on, both ends' CPUs alike."""
    near, far = wan_address(1, 4), wan_address(2, 4)
    lines: dict[str, list[str]] = {"gw1": [], "gw2": []}
    for cpu in range(4):
        for spi, source, target in ((0x5000 + cpu, near, far), (0x6000 + cpu, far, near)):
            key = secrets.token_hex(20)
            for name, address in (("gw1", near), ("gw2", far)):
                way, window = ("out", 0) if source == address else ("in", 1024)
                lines[name].append(
                    f"xfrm state add src {source} dst {target} proto esp spi {spi:#x} reqid {REQID} mode tunnel"
                    f" replay-window {window} flag esn af-unspec aead rfc4106(gcm(aes)) 0x{key} 128"
                    f" dir {way} pcpu-num {cpu}"
                )
    for ns in (topo.gw1, topo.gw2):
        ns.run(["ip", "-batch", "-"], stdin="\n".join(lines[ns.name]) + "\n")


def on_fallback(topo: TwoGateways, flows: Flows, rounds: int = 10) -> float:
    with watching(topo.gw1) as seen:
        assert flows.send(rounds) > 0.99
    return seen.fallback_share(Direction.OUT)


def test_without_steering_flows_stay_on_the_fallback_sa(topo: TwoGateways, tmp_path: Path) -> None:
    with Router(topo.gw1, PLAIN, tmp_path), Flows(topo) as flows:
        flows.send(5)
        add_sas_by_cpu(topo)
        time.sleep(2)
        assert on_fallback(topo, flows) > 0.99


def test_with_steering_they_are_learnt_anew_on_the_sa_of_their_cpu(topo: TwoGateways, tmp_path: Path) -> None:
    with Router(topo.gw1, STEERED, tmp_path) as router, Flows(topo) as flows:
        flows.send(5)
        add_sas_by_cpu(topo)
        deadline = time.monotonic() + 60
        while on_fallback(topo, flows) > 0.01:
            assert time.monotonic() < deadline, router.log.read_text()
        with watching(topo.gw1) as seen:
            assert flows.send(30) > 0.99
        assert seen.own_share(Direction.OUT) >= 0.99, seen
        assert seen.own_share(Direction.IN) >= 0.99, seen
