"""Comparisons where no controller runs, in every topology; and what is left of one that is killed.

What is killed runs in a fork of the test's process. test_compare.py has the same with a controller.
"""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.topology import Kind, TwoGateways, two_gateways
from flowfast.lab.traffic import UdpFlow
from tests.guest.oneshot import apply, invoke

pytestmark = pytest.mark.guest(images=["debian14"], nics=3)

PORT = 4610
TEMPLATES = {
    "policy": ("site-to-site-policy", {"lan": "lan0", "wan": "wan0"}),
    "xfrmi": ("site-to-site-xfrm-interface", {"lan": "lan0", "wan": "wan0"}),
    "cross-netns": ("cross-netns", {"lan": "lan0", "netns": "underlay1"}),
}


class Site:
    """A gateway with a ruleset of flowfast's, and one connection through its tunnel."""

    def __init__(self, topo: TwoGateways, template: str, settings: dict[str, str]) -> None:
        self.gw1 = topo.gw1
        self.config = [template, *(word for pair in settings.items() for word in ("--set", "=".join(pair)))]
        self.flow = UdpFlow(
            topo.h1, topo.h2, topo.host_address(2, 4), rate=100, size=300, source_port=PORT
        )  # fmt: skip

    def paused(self) -> bool:
        """Whether the kernel has all traffic on the full path."""
        return "elements" in self.gw1.run(["nft", "list", "set", "inet", "flowfast", "paused"]).stdout

    def compared(self, *options: str) -> str:
        """What `flowfast compare` prints, a program of its own; where one that hangs does so is in the failure."""
        program = ["python3", "-X", "faulthandler", "-m", "flowfast", "compare", *self.config, *options]
        process = self.gw1.popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, said = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            out, said = process.communicate()
        assert process.returncode in (0, 1), out.decode() + said.decode()
        return out.decode()

    def fast(self) -> bool:
        """Whether the connection is on the flowtable."""
        listed = self.gw1.run(["conntrack", "-L"]).stdout.splitlines()
        return any(f"sport={PORT} " in line and "[OFFLOAD]" in line for line in listed)


@contextmanager
def site(kind: Kind) -> Iterator[Site]:
    with two_gateways(kind, families=(4,)) as topo:
        manual_keys(topo)
        assert topo.ping(4)
        template, settings = TEMPLATES[kind]
        apply(topo.gw1, template, **settings)
        here = Site(topo, template, settings)
        with here.flow:
            until(here.fast, "fast", 60)
            yield here
            until(here.fast, "fast again", 15)
            assert here.flow.stop().intact


def until(what: Callable[[], bool], wanted: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not {wanted}"
        time.sleep(0.2)


@pytest.mark.long(seconds=90)
def test_the_kernel_ends_the_window_of_an_experiment_that_was_killed() -> None:
    with site("policy") as here:
        running = here.gw1.start(invoke, ("compare", *here.config, "--seconds", "16", "--windows", "4"))
        until(here.paused, "paused", 60)
        until(lambda: not here.fast(), "off the flowtable", 5)
        running.stop()  # SIGKILL
        assert here.paused()
        # Nobody does anything: the kernel takes the elements out, 4 s of window and 5 s more after it put them in.
        until(lambda: not here.paused(), "over", 15)


@pytest.mark.long(seconds=120)
@pytest.mark.parametrize("kind", ["xfrmi", "cross-netns"])
def test_an_experiment_where_tunnels_are_interfaces(kind: Kind) -> None:
    with site(kind) as here:
        found = json.loads(here.compared("--seconds", "24", "--windows", "4", "--json", "--yes"))
        assert not here.paused()
    assert found["ended"] is None
    assert sorted(window["arm"] for window in found["windows"]) == ["fast", "fast", "full", "full"]
    for window in found["windows"]:
        assert window["spoiled"] is None, window
        carried = sum(each["bytes"] for each in window["carried"])
        assert carried > 50 * 328  # both ways, 100 packets a second; of 6 s less what settles
        if window["arm"] == "fast":
            assert window["slow_bytes"] < 0.2 * carried
