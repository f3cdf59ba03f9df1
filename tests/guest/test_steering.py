"""An SA for each CPU, a CPU for each SA: strongSwan's per_cpu_sas on four CPUs, and `flowfast run` on one gateway."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.router import router_samples
from tests.guest.steered import knobs
from tests.guest.steered_site import CPUS, KINDS, OUT, Site, steered

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3, cpus=4)]

SHORT = "nic xdp rps"
LONG = [pytest.param(kind, marks=() if kind == SHORT else pytest.mark.long, id=kind) for kind in KINDS]


@pytest.fixture(scope="module", params=LONG)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from steered(request.param, tmp_path_factory.mktemp("steering"))


def test_each_sa_is_processed_on_its_cpu(site: Site) -> None:
    site.holds()


def test_it_stays_so_over_a_rekey(site: Site) -> None:
    site.rekey()
    site.steady()
    site.holds()


def test_it_stays_so_over_a_crash_and_a_restart(site: Site) -> None:
    held = knobs(site.topo.gw1)
    site.router.stop(signal.SIGKILL)
    site.holds()
    site.router.start()
    assert knobs(site.topo.gw1) == held
    site.holds()


@pytest.mark.long
def test_it_is_shown_and_measured(site: Site) -> None:
    config = str(site.router.config)
    with site.flows.going():
        shown = site.router.flowfast("show", "steering", config, "--seconds", "2").stdout
    own = [float(word.rstrip("%")) for line in shown.splitlines() for word in line.split()[-1:] if word.endswith("%")]
    assert len(own) >= 5, shown  # outbound four, and some of the inbound ones
    assert min(own) >= 99 or site.wan == "rps", shown
    plan = site.router.flowfast("plan", config, "--detailed-exitcode", check=False)
    assert plan.returncode == 0, plan.stdout
    assert f"wan0 by {site.wan}" in plan.stdout
    deadline = time.monotonic() + 60
    while True:
        site.flows.send(10)
        samples = router_samples(site.router.metrics())
        ratios = [value for name, value in samples.items() if name.startswith("flowfast_steering_fallback_ratio")]
        wrong = [v for n, v in samples.items() if n.startswith("flowfast_steering_mismatch") and '"out"' in n]
        if ratios and wrong and max(*ratios, *wrong) < 0.01:
            return
        assert time.monotonic() < deadline, site.router.metrics()


@pytest.mark.long
@pytest.mark.parametrize("site", ["nic rps rps", "nic xdp encap"], indirect=True)
def test_rfs_beside_it_moves_nothing_that_is_forwarded(site: Site) -> None:
    """On NICs only: over veth an ESP packet keeps the hash of what is in it, by which RFS finds a host's socket."""
    entries = Path("/proc/sys/net/core/rps_sock_flow_entries")
    set_all = 'for each in /sys/class/net/*/queues/rx-*/rps_flow_cnt; do echo "$0" >$each; done'
    try:
        entries.write_text("4096")
        site.topo.gw1.run(["sh", "-c", set_all, "1024"])
        site.holds()
    finally:
        site.topo.gw1.run(["sh", "-c", set_all, "0"])
        entries.write_text("0")


@pytest.mark.long
def test_a_cpu_that_goes_and_comes_back_is_followed(site: Site) -> None:
    switch = Path("/sys/devices/system/cpu/cpu3/online")
    for state, cpus in (("0", CPUS - {3}), ("1", CPUS)):
        switch.write_text(state)
        deadline = time.monotonic() + 90
        while True:
            seen = site.look(10)
            used = {cpu for by_cpu in seen.cpus.values() for cpu in by_cpu}
            carried = {sa.pcpu for name, sa in seen.sas.items() if name[0] is OUT and seen.cpus.get(name)}
            if used == cpus and carried == cpus and seen.own_share(OUT) >= 0.99:
                break
            assert time.monotonic() < deadline, f"{seen}\n{site.router.log.read_text()}"
    site.steady()
    site.holds()
