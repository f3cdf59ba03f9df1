"""What `show bulking`, `plan` and `doctor` say of stages; a stage that breaks packets is the first line."""

import json
from dataclasses import replace

import pytest

from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.links import FakeLinks
from flowfast.model.bulk import Arrival, Case, Cell, DeviceKnobs, Side, Stage, Verdict
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
