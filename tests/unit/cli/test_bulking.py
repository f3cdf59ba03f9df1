"""What `show bulking`, `plan` and `doctor` say of stages; a stage that breaks packets is the first line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flowfast.apply.decisions import Decision, Decisions
from flowfast.apply.knobs import KnobJournal, turn_knobs
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.links import FakeLinks
from flowfast.model.bulk import Arrival, Case, Cell, DeviceKnobs, Side, Stage, Verdict
from flowfast.model.knob import Knob, KnobKind
from tests.unit.cli.looking import Flowfast
from tests.unit.plan.router import LAN, WAN

FOUND = {"rx-gro": "on", "rx-gro-list": "on", "rx-udp-gro-forwarding": "off", "gro_flush_timeout": "0"}
LOST = "udp4-18 is lost: gro-list on e1000e, lan, policy, without esp_offload, tried 2026-11-24"


def cell(stage: Stage, side: Side, verdict: Verdict = Verdict.WHOLE) -> Cell:
    return Cell(Case("e1000e", True, "policy", 4, side, stage, False), "2026-11-24", {"udp4-18": verdict}, 3.1)


@pytest.fixture
def bulking(router: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """Fraglist GRO is on everywhere; on the LAN it loses packets."""
    every = [cell(stage, side) for stage in Stage for side in Side if (stage, side) != (Stage.LIST, Side.LAN)]
    cells = (*every, cell(Stage.LIST, Side.LAN, Verdict.LOST))
    monkeypatch.setattr("flowfast.observe.cells", lambda _release: cells)
    router.links = FakeLinks([replace(LAN, driver="e1000e"), replace(WAN, driver="e1000e")])
    router.bulk.knobs = {"lan0": DeviceKnobs(FOUND), "wan0": DeviceKnobs(FOUND)}
    router.arrivals.arrivals = {"lan0": Arrival(10, 0, 1600, 100)}
    return router


def test_show_says_what_is_on_what_is_best_and_why(look: Flowfast, bulking: FakeKernel, site: str) -> None:
    result = look("show", "bulking", site, "--json")
    lan, wan = json.loads(result.output)["rows"]
    assert (lan["device"], lan["stage"], lan["best"], lan["why"]) == ("lan0", "gro-list", "udp-gro-forwarding", LOST)
    assert (lan["factor"], lan["checksums"], lan["profile"]) == (16.0, "finished", "keep")
    assert (wan["best"], wan["factor"], wan["checksums"]) == ("gro-list", None, None)
    assert "16.0" in look("show", "bulking", site).output


def test_show_has_every_knob_as_it_is_as_planned_and_as_it_was(
    look: Flowfast, bulking: FakeKernel, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowfast.apply.knobs.FOLDER", tmp_path)
    napi = {"napi 8193 gro_flush_timeout": "0", "rings rx": "256"}
    bulking.bulk.knobs["lan0"] = DeviceKnobs({key: FOUND[key] for key in FOUND if key.startswith("rx")} | napi)
    flush, gro = Knob(KnobKind.NAPI, "lan0", "napi 8193 gro_flush_timeout"), Knob(KnobKind.FEATURE, "lan0", "rx-gro")
    bulking.knobs.values |= {flush: "0"}
    turn_knobs(bulking.knobs, {flush: "30000"}, KnobJournal())
    asked = "bulk: {devices: {lan0: {napi: {gro_flush_timeout: 50000}, rings: {rx: 512}}}}\n"
    Path(site).write_text(Path(site).read_text() + asked)
    said = json.loads(look("show", "bulking", site, "--json").output)
    knobs = {(row["device"], row["knob"]): (row["held"], row["planned"], row["before"]) for row in said["knobs"]}
    assert knobs[flush.object, flush.name] == ("30000", "50000", "0")
    assert knobs["lan0", "rings rx"] == ("256", "512", None)
    assert knobs[gro.object, gro.name] == ("on", None, None)
    assert knobs[None, "esp4_offload"] == ("absent", None, None)
    assert said["rows"][0]["flush_timeout"] == "30000"
    bulking.knobs.values |= {Knob(KnobKind.NIC, "lan0", "rings rx"): "256"}
    assert "lan0 rings rx: 256 -> 512 (interrupts the device)" in look("plan", site).output
    text = look("show", "bulking", site).output
    assert "napi 8193 gro_flush_timeout" in text
    assert "esp4_offload" not in text


def test_show_has_what_auto_decided_last(
    look: Flowfast, bulking: FakeKernel, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Decisions(tmp_path)
    monkeypatch.setattr("flowfast.cli.bulking.Decisions", lambda: kept)
    assert json.loads(look("show", "bulking", site, "--json").output)["rows"][0]["decided"] is None
    kept.keep("lan0", Decision("off", "off 1.0 as one", 1.5))
    kept.keep("wan0", Decision("gro", "gro 4.0 as one", 2.5))
    lan, wan = json.loads(look("show", "bulking", site, "--json").output)["rows"]
    assert (lan["decided"], lan["decided_at"], wan["decided"]) == ("off 1.0 as one", 1.5, "gro 4.0 as one")
    kept.path.write_text("[]")
    assert kept.read() == {}


@pytest.mark.parametrize("command", ["plan", "doctor"])
def test_a_stage_that_breaks_packets_is_the_first_line(
    look: Flowfast, bulking: FakeKernel, site: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowfast.cli.doctor.real_kernel", lambda: bulking)
    result = look(command, site)
    assert result.output.startswith(f"error: lan0: gro-list is on and breaks packets: {LOST} (ethtool -K lan0 rx-gro")


def test_doctor_sees_it_without_a_config(look: Flowfast, bulking: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowfast.cli.doctor.real_kernel", lambda: bulking)
    monkeypatch.setattr("flowfast.cli.common.CONFIG", "/nonexistent")
    assert look("doctor").output.startswith("error: lan0: gro-list is on and breaks packets")
