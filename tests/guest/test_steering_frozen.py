"""SAs by our own hand: a policy-based flow keeps the SA that it began on, unless flowfast steers."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.model.sa import Direction
from tests.guest.router import Router
from tests.guest.steered import Flows, add_sas_by_cpu, fallback_share, watching

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3, cpus=4), pytest.mark.long]

PLAIN = "devices: {lan: [lan0], wan: [wan0]}\n"
STEERED = PLAIN + "steering: {wan: xdp, lan: rps}\n"


@pytest.fixture
def topo() -> Iterator[TwoGateways]:
    with two_gateways("policy", families=(4,), finish_checksums=True) as made:
        manual_keys(made)
        assert made.ping(4)
        yield made


def test_without_steering_flows_stay_on_the_fallback_sa(topo: TwoGateways, tmp_path: Path) -> None:
    with Router(topo.gw1, PLAIN, tmp_path), Flows(topo) as flows:
        flows.send(5)
        add_sas_by_cpu(topo)
        time.sleep(2)
        assert fallback_share(topo, flows) > 0.99


def test_with_steering_they_are_learnt_anew_on_the_sa_of_their_cpu(topo: TwoGateways, tmp_path: Path) -> None:
    with Router(topo.gw1, STEERED, tmp_path) as router, Flows(topo) as flows:
        flows.send(5)
        add_sas_by_cpu(topo)
        deadline = time.monotonic() + 60
        while fallback_share(topo, flows) > 0.01:
            assert time.monotonic() < deadline, router.log.read_text()
        with watching(topo.gw1) as seen:
            assert flows.send(30) > 0.99
        assert seen.own_share(Direction.OUT) >= 0.99, seen
        assert seen.own_share(Direction.IN) >= 0.99, seen
