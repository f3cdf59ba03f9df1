"""The demo's scenarios on a real kernel, with small loads: they come to their end, and show what they should."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import pytest

from flowfast.lab.demo import cost, scenario
from flowfast.lab.demo.events import Progress
from flowfast.lab.demo.loads import Load
from flowfast.lab.demo.result import Part, Result, part_of
from flowfast.lab.demo.scenario import Scenario
from flowfast.lab.demo.site import PartName
from flowfast.lab.demo.verdict import problems

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3, icount=True), pytest.mark.long(seconds=120)]

SMALL = (Load("TCP", 4_000_000), Load("UDP, 1000 bytes", 1_000_000, 1000))


@contextmanager
def played(name: PartName, monkeypatch: pytest.MonkeyPatch) -> Iterator[Part]:
    """A part with small loads, which is as it should be."""
    monkeypatch.setattr(scenario, "LOADS", {name: SMALL})
    monkeypatch.setattr(scenario, "AFTER_KILL", Load("TCP, controllers killed", 2_000_000))
    if name != "offload":  # there the costs of two tunnels are compared, and shorter runs are too noisy for that
        monkeypatch.setattr(cost, "COUNTS", (50, 300))
    said: list[Progress] = []
    with Scenario(name, said.append).played() as part:
        assert problems(Result("", "", "", "", "", 0.0, (part,))) == []
        yield part
    fractions = [progress.fraction for progress in said]
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1
    assert part_of(json.loads(json.dumps(asdict(part)))) == part
    assert not [window for window in part.windows if not window.bits_per_second]
    for each in part.costs:
        # What comes in is the difference of two runs, and runs as short as these say little of it.
        assert None not in (each.rx_full, each.rx_fast)
        assert each.tx_full is not None
        assert each.tx_fast is not None
        assert each.tx_fast < each.tx_full


def test_the_scenario_shows_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    with played("policy", monkeypatch) as part:
        pass
    assert part.tunnels == ["berlin", "berlin-v6"]
    for tunnel in part.tunnels:
        for way in ("tx", "rx"):
            before, since = part.carried(tunnel, way, "full"), part.carried(tunnel, way, "fast")
            assert before.bytes > 2_000_000
            assert before.forward_bytes > 0.9 * before.bytes
            assert since.forward_packets < 0.01 * since.packets
    assert all(sa.algorithm == "rfc4106(gcm(aes))" and sa.full.bytes and sa.fast.bytes for sa in part.sas)
    assert any("[OFFLOAD]" in line for line in part.offloaded)
    # What is on the fast path stays there when the controllers are killed.
    after = [window for window in part.windows if window.start >= part.killed]
    assert [window.traffic.fast_share > 0.99 for window in after if window.traffic.fast_share] == [True]


def test_the_scenario_shows_who_does_esp(monkeypatch: pytest.MonkeyPatch) -> None:
    with played("offload", monkeypatch) as part:
        pass
    by_nic, by_cpu = part.costs
    assert (by_nic.of, by_cpu.of) == ("oslo, ESP by the NIC", "rome, ESP by the CPU")
    assert by_nic.tx_fast is not None
    assert by_cpu.tx_fast is not None
    assert by_nic.tx_fast < by_cpu.tx_fast
    work = {(sa.tunnel, sa.way): sa for sa in part.esp}
    assert len(work) == 4
    assert all(work["oslo", way].device == "wan0" and work["oslo", way].by_cpu == 0 for way in ("tx", "rx"))
    assert all(sa.packets > 2000 for sa in part.esp)
    assert all(work["rome", way].by_cpu == work["rome", way].packets for way in ("tx", "rx"))
