"""`flowfast compare` beside a running controller: nothing is lost, and the fast path is back however it ends."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.lab.traffic import UdpFlow
from tests.guest.router import COMMAND, Router

pytestmark = pytest.mark.guest(images=["debian14"], nics=3)

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\ntunnels: {berlin: {local: [10.1.0.0/16], remote: [10.2.0.0/16]}}\n"
START = 120.0
"""Seconds until an emulated command has come to its first window."""
PORT = 4600


@dataclass
class Site:
    topo: TwoGateways
    router: Router

    def flow(self) -> UdpFlow:
        """Numbered packets that come back, over one connection."""
        h1, h2 = self.topo.h1, self.topo.h2
        return UdpFlow(h1, h2, self.topo.host_address(2, 4), rate=200, size=400, source_port=PORT)

    def compare(self, *options: str) -> "subprocess.Popen[bytes]":
        """The command, started."""
        command = [*COMMAND, "compare", str(self.router.config), *options]
        return self.router.ns.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @property
    def paused(self) -> bool:
        """Whether the kernel has all traffic on the full path."""
        return "elements" in self.router.nft("list", "set", "inet", "flowfast", "paused")

    @property
    def fast(self) -> bool:
        """Whether conntrack has the flow on the flowtable."""
        return any(f"sport={PORT} " in line for line in self.router.offloaded())

    def where(self) -> dict[str, list[str]]:
        """What the kernels' counters say of packets that did not arrive, by namespace."""
        odd = re.compile(r"(Drop|Err|Discard|Xfrm|NoPort|Fail)\w*\s+[1-9]")
        said = {each.name: each.run(["nstat", "-az"]).stdout for each in (self.topo.h1, self.topo.gw1, self.topo.gw2)}
        return {name: [line for line in text.splitlines() if odd.search(line)] for name, text in said.items()}

    def until(self, what: str, seconds: float = START) -> None:
        """Waits until `self.what` ("paused", or "not fast"); AssertionError if it does not come."""
        wanted, name = not what.startswith("not "), what.removeprefix("not ")
        deadline = time.monotonic() + seconds
        while getattr(self, name) is not wanted:
            assert time.monotonic() < deadline, f"not {what}: {self.router.log.read_text()[-2000:]}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with two_gateways("policy", wire="nic") as topo:
        manual_keys(topo)
        with Router(topo.gw1, CONFIG, tmp_path_factory.mktemp("flowfast")) as router:
            yield Site(topo, router)


@pytest.mark.long(seconds=150)
def test_a_killed_experiment_leaves_the_fast_path_and_loses_nothing(site: Site) -> None:
    before = site.router.nft("-s", "list", "ruleset")
    with site.flow() as flow:
        site.until("fast")
        process = site.compare("--seconds", "16", "--windows", "4", "--seed", "1")
        site.until("paused")
        site.until("not fast", 5)
        process.kill()
        process.wait()
        assert site.paused
        # Nobody does anything: the kernel takes the elements out, 4 s of window and 5 s more after it put them in.
        site.until("not paused", 15)
        site.until("fast", 15)
        result = flow.stop()
    assert result.intact, (result, site.where())
    assert sorted(site.router.nft("-s", "list", "ruleset").splitlines()) == sorted(before.splitlines())


@pytest.mark.long(seconds=150)
def test_a_whole_experiment_finds_both_paths_and_loses_nothing(site: Site, tmp_path: Path) -> None:
    with site.flow() as flow:
        site.until("fast")
        process = site.compare("--seconds", "16", "--windows", "4", "--json", "--yes")
        out, said = process.communicate(timeout=240)
        assert not site.paused
        site.until("fast", 15)
        result = flow.stop()
    assert result.intact, (result, site.where())
    found = json.loads(out)
    assert process.returncode in (0, 1), said
    assert sorted(window["arm"] for window in found["windows"]) == ["fast", "fast", "full", "full"]
    assert found["ended"] is None
    for window in found["windows"]:
        assert window["spoiled"] is None, said
        (out_way,) = (each for each in window["carried"] if each["direction"] == "out")
        assert out_way["tunnel"] == "berlin"
        # 200 packets a second, in windows of 3.6 s measured
        assert 300 < out_way["packets"] < 1200
        assert window["softirq"] > 0
        if window["arm"] == "fast":
            assert window["slow_bytes"] < 0.2 * sum(each["bytes"] for each in window["carried"])
    assert found["fingerprint"]["devices"]["wan0"]["driver"] == "virtio_net"
    metrics = site.router.metrics()
    time.sleep(11)  # the exporter serves the controller's last look, every ten seconds
    metrics = site.router.metrics()
    assert "flowfast_compare_timestamp_seconds " in metrics
    assert ('flowfast_compare_factor_ratio{tunnel=""}' in metrics) == (found["findings"]["factor"] is not None)


@pytest.mark.long(seconds=150)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_it_puts_the_fast_path_back_and_reports(site: Site, how: signal.Signals) -> None:
    with site.flow() as flow:
        site.until("fast")
        process = site.compare("--seconds", "240", "--windows", "4", "--seed", "1")
        site.until("paused")
        process.send_signal(how)
        out, said = process.communicate(timeout=60)
        assert not site.paused, said
        site.until("fast", 15)
        result = flow.stop()
    assert result.intact, (result, site.where())
    assert process.returncode == 1
    assert b"Ended early: it was stopped." in out
    assert b"No verdict." in out
    assert b"TOO_FEW_WINDOWS" in out


@pytest.mark.long(seconds=150)
def test_it_will_not_run_twice_nor_without_a_ruleset(site: Site) -> None:
    process = site.compare("--seconds", "60", "--windows", "4", "--seed", "1")
    site.until("paused")
    second = site.router.flowfast("compare", str(site.router.config), "--yes", check=False)
    assert second.returncode == 1
    assert second.stderr.startswith(f"flowfast compare is running here already (process {process.pid})")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    site.router.stop()
    site.router.flowfast("apply", "--remove")
    third = site.router.flowfast("compare", str(site.router.config), "--yes", check=False)
    assert third.returncode == 1
    assert "flowfast apply" in third.stderr
    site.router.start()
