"""A connection that was fast in the clear, before there was a tunnel for it: from the policy on, nothing in the clear.

`flowfast run` with `offload: {plain: true}` and a one-shot `apply` alike: the kernel itself lets go of such a flow when
a policy is installed (rt_genid_bump), and flowfast takes all flows off as well.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowfast.lab.capture import Capture, capture
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.topology import BOTH, TwoGateways, two_gateways
from flowfast.lab.traffic import UdpFlow
from tests.guest.oneshot import FullPath, apply, meet, offloaded, running

pytestmark = [pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=3), pytest.mark.long]

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\noffload: {plain: true}\n"
PORTS = {4: 4104, 6: 4106}


@pytest.fixture
def topo() -> Iterator[TwoGateways]:
    with two_gateways("policy") as built:
        meet(built)
        yield built


@contextmanager
def flows(topo: TwoGateways) -> Iterator[list[UdpFlow]]:
    """A connection of each family from h1 to h2, both of them on gw1's flowtable."""
    four, six = (
        UdpFlow(topo.h1, topo.h2, topo.host_address(2, family), rate=100, source_port=PORTS[family]) for family in BOTH
    )
    with four, six:
        until_fast(topo)
        yield [four, six]


def until_fast(topo: TwoGateways) -> None:
    deadline = time.monotonic() + 20
    while sum(any(f"sport={port} " in line for line in offloaded(topo.gw1)) for port in PORTS.values()) < 2:
        assert time.monotonic() < deadline, topo.gw1.run(["conntrack", "-L"]).stdout
        time.sleep(0.2)


def through_the_wan(topo: TwoGateways, seconds: float) -> Capture:
    """What leaves in the clear on either end of the WAN."""
    with capture(*topo.wan) as seen:
        time.sleep(seconds)
    assert seen.total > 0
    return seen


def test_the_controller_follows_a_new_policy(topo: TwoGateways, tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(CONFIG)
    with running(topo.gw1, str(config), tmp_path / "log"), flows(topo) as connections:
        before = through_the_wan(topo, 1)
        assert len(before.within(*topo.protected)) > 100  # in the clear, and fast
        manual_keys(topo)
        after = through_the_wan(topo, 4)
        assert after.within(*topo.protected) == []
        until_fast(topo)
        with FullPath(topo.gw1) as seen:
            time.sleep(2)
        assert seen.packets < 8  # of some 800: fast again, in the tunnel
        for flow in connections:
            result = flow.stop()
            assert result.corrupt == result.duplicate == 0
            assert result.received > 300


def test_without_a_controller_the_kernel_lets_go_by_itself(topo: TwoGateways, tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(CONFIG)
    apply(topo.gw1, str(config))
    with flows(topo):
        assert len(through_the_wan(topo, 1).within(*topo.protected)) > 100
        manual_keys(topo)
        assert through_the_wan(topo, 3).within(*topo.protected) == []
