"""The demo's scenario on a real kernel, with small loads: it comes to its end, and shows what it should."""

import json
from dataclasses import asdict

import pytest

from flowfast.lab.demo import cost, scenario
from flowfast.lab.demo.events import Progress
from flowfast.lab.demo.loads import Load
from flowfast.lab.demo.result import Result, part_of
from flowfast.lab.demo.scenario import Scenario
from flowfast.lab.demo.verdict import problems

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3, icount=True), pytest.mark.long]


def test_the_scenario_shows_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenario, "LOADS", (Load("TCP", 2_000_000), Load("UDP, 1000 bytes", 1_000_000, 1000)))
    monkeypatch.setattr(scenario, "AFTER_KILL", Load("TCP, controllers killed", 2_000_000))
    monkeypatch.setattr(cost, "COUNTS", (50, 300))
    said: list[Progress] = []
    with Scenario("policy", said.append).played() as played:
        part = played
    assert problems(Result("", "", "", "", "", 0.0, (part,))) == []

    assert part.tunnels == ["berlin", "berlin-v6"]
    for tunnel in part.tunnels:
        for way in ("tx", "rx"):
            before, since = part.carried(tunnel, way, "full"), part.carried(tunnel, way, "fast")
            assert before.bytes > 2_000_000
            assert before.forward_bytes > 0.9 * before.bytes
            assert since.forward_packets < 0.01 * since.packets
    assert not [window for window in part.windows if not window.bits_per_second]
    assert all(sa.algorithm == "rfc4106(gcm(aes))" and sa.full.bytes and sa.fast.bytes for sa in part.sas)
    assert part.cost.tx_fast is not None
    assert part.cost.tx_full is not None
    assert part.cost.tx_fast < part.cost.tx_full
    assert any("[OFFLOAD]" in line for line in part.offloaded)
    # What is on the fast path stays there when both controllers are killed.
    after = [window for window in part.windows if window.start >= part.killed]
    assert [window.traffic.fast_share > 0.99 for window in after if window.traffic.fast_share] == [True]
    fractions = [progress.fraction for progress in said]
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1
    assert part_of(json.loads(json.dumps(asdict(part)))) == part
