"""Bulking: a stage only where the table says that all packets survive, and the reason where not."""

from dataclasses import replace

import pytest

from flowfast.model.bulk import Arrival, BulkState, Case, Cell, Choice, DeviceKnobs, Side, Stage, Verdict
from flowfast.model.desired import Desired
from flowfast.model.knob import Knob, KnobKind, Turned
from flowfast.model.reason import Reason, Severity
from flowfast.model.state import RouterState
from flowfast.plan.bulk import suspects
from flowfast.plan.knobs import turns
from flowfast.plan.planner import plan
from flowfast.plan.tunnels import find_tunnels
from tests.unit.plan.router import LAN, WAN, config, policies, router

FOUND = {
    "rx-gro": "on",
    "rx-gro-list": "off",
    "rx-udp-gro-forwarding": "off",
    "rx-lro": "off",
    "gro_flush_timeout": "0",
    "napi_defer_hard_irqs": "0",
}
E1000E = (replace(LAN, driver="e1000e"), replace(WAN, driver="e1000e"))
WHOLE = {"udp4-18": Verdict.WHOLE, "udp4-512": Verdict.WHOLE}


def cell(
    stage: Stage, side: Side, *, offload: bool = False, finished: bool = True, merged: float = 3.0, **bad: Verdict
) -> Cell:
    verdicts = WHOLE | {kind.replace("_", "-"): verdict for kind, verdict in bad.items()}
    return Cell(Case("e1000e", finished, "policy", 4, side, stage, offload), "2026-11-24", verdicts, merged)


def table(*cells: Cell) -> tuple[Cell, ...]:
    """Everything whole, but for these cells."""
    every = [
        cell(stage, side, offload=on)
        for stage in (Stage.GRO, Stage.UDP, Stage.LIST)
        for side in Side
        for on in (True, False)
    ]
    return tuple(({each.case: each for each in every} | {each.case: each for each in cells}).values())


def state(
    cells: tuple[Cell, ...], *, offload: bool = False, arrivals: dict[str, Arrival] | None = None, **lan: str
) -> RouterState:
    knobs = {
        "lan0": DeviceKnobs(FOUND | {k.replace("_", "-"): v for k, v in lan.items()}),
        "wan0": DeviceKnobs(FOUND),
    }
    bulk = BulkState("7.2.12+deb14-amd64", offload, knobs, arrivals or {}, cells, ("7.2.12+deb14",))
    return replace(router(policies(), links=E1000E), bulk=bulk)


def of(desired: Desired, device: str) -> dict[str, str]:
    return {knob.name: value for knob, value in desired.knobs.items() if knob.object == device}


def codes(reasons: tuple[Reason, ...]) -> list[str]:
    return [reason.code for reason in reasons if reason.code.startswith("BULK")]


def test_without_a_word_in_the_config_nothing_is_turned() -> None:
    assert plan(state(table()), config()).knobs == {}


def test_the_best_stage_is_on_where_all_packets_survive() -> None:
    desired = plan(state(table()), config("bulk: {profile: throughput}"))
    assert of(desired, "lan0") == FOUND | {
        "rx-gro-list": "on",
        "gro_flush_timeout": "200000",
        "napi_defer_hard_irqs": "1",
    }
    assert codes(desired.reasons) == []


def test_what_loses_packets_stays_off_and_the_case_is_named() -> None:
    cells = table(cell(Stage.LIST, Side.LAN, udp4_18=Verdict.LOST))
    desired = plan(state(cells), config("bulk: {profile: latency}"))
    assert of(desired, "lan0")["rx-gro-list"] == "off"
    assert of(desired, "lan0")["rx-udp-gro-forwarding"] == "on"
    assert of(desired, "wan0")["rx-gro-list"] == "on"
    (reason,) = [each for each in desired.reasons if each.code == "BULK_NOT_QUALIFIED"]
    assert reason.sentence == (
        "gro-list stays off: udp4-18 is lost: gro-list on e1000e, lan, policy, without esp_offload, tried 2026-11-24"
    )


def test_what_nobody_tried_stays_off() -> None:
    desired = plan(state(()), config("bulk: {profile: auto}"))
    assert of(desired, "lan0")["rx-gro"] == "off"
    (first, _) = [each for each in desired.reasons if each.code == "BULK_NOT_QUALIFIED"]
    assert "nobody tried gro-list on e1000e" in first.sentence
    assert "kernel 7.2.12+deb14; the table knows 7.2.12+deb14" in first.sentence


@pytest.mark.parametrize(("risk", "stage"), [("loss", "on"), ("unqualified", "off")])
def test_a_risk_is_taken_by_its_name(risk: str, stage: str) -> None:
    cells = table(cell(Stage.LIST, Side.LAN, udp4_18=Verdict.LOST))
    desired = plan(state(cells), config(f"bulk: {{profile: latency, accept: [{risk}]}}"))
    assert of(desired, "lan0")["rx-gro-list"] == stage


def test_nobody_can_accept_a_panic() -> None:
    cells = table(cell(Stage.LIST, Side.LAN, udp4_18=Verdict.PANIC))
    every = "loss, corruption, unqualified, unfinished-checksums"
    desired = plan(state(cells), config(f"bulk: {{profile: latency, accept: [{every}]}}"))
    assert of(desired, "lan0")["rx-gro-list"] == "off"


def test_the_module_decides_which_cells_count() -> None:
    cells = table(cell(Stage.LIST, Side.LAN, offload=True, udp4_18=Verdict.LOST))
    asked = config("bulk: {profile: latency}")
    assert of(plan(state(cells, offload=False), asked), "lan0")["rx-gro-list"] == "on"
    assert of(plan(state(cells, offload=True), asked), "lan0")["rx-gro-list"] == "off"


def test_unfinished_checksums_once_seen_need_cells_of_their_own() -> None:
    seen = {"lan0": Arrival(10, 1)}
    cells = table(
        cell(Stage.GRO, Side.LAN, finished=False), cell(Stage.LIST, Side.LAN, finished=False, udp4_512=Verdict.CORRUPT)
    )
    desired = plan(state(cells, arrivals=seen), config("bulk: {profile: latency}"))
    assert (of(desired, "lan0")["rx-gro"], of(desired, "lan0")["rx-gro-list"]) == ("on", "off")
    assert of(desired, "wan0")["rx-gro-list"] == "on"


def test_what_comes_out_of_one_of_several_tunnels_may_go_into_another() -> None:
    cells = table(cell(Stage.LIST, Side.LAN, udp4_18=Verdict.LOST))
    several = state(cells)
    more = policies(remote="10.3.0.0/16", peer="192.0.2.3", reqid=2)
    several = replace(several, policies=(*several.policies, *more))
    assert of(plan(several, config("bulk: {profile: latency}")), "wan0")["rx-gro-list"] == "off"


def test_a_stage_that_is_on_and_breaks_packets_is_an_error_whatever_the_config_says() -> None:
    cells = table(cell(Stage.UDP, Side.LAN, offload=True, udp4_18=Verdict.LOST))
    for text in ("", "bulk: {profile: latency}"):
        desired = plan(state(cells, offload=True, rx_udp_gro_forwarding="on"), config(text))
        (reason,) = [each for each in desired.reasons if each.code == "BULK_CONDEMNED"]
        assert reason.severity is Severity.ERROR
        assert reason.sentence.startswith("udp-gro-forwarding is on and breaks packets: udp4-18 is lost")
    accepted = plan(state(cells, offload=True, rx_udp_gro_forwarding="on"), config("bulk: {accept: [loss]}"))
    assert codes(accepted.reasons) == ["BULK_ACCEPTED"]


def test_what_nobody_tried_is_not_condemned() -> None:
    assert codes(plan(state((), rx_gro_list="on"), config()).reasons) == []


def test_without_a_config_a_device_that_is_not_the_tunnels_is_suspected() -> None:
    cells = table(cell(Stage.LIST, Side.LAN, udp4_18=Verdict.PANIC))
    there = state(cells, rx_gro_list="on")
    (reason,) = suspects(there, find_tunnels(there, config()))
    assert reason.object == "lan0"


def test_a_knob_that_the_driver_fixed_is_a_reason_and_the_rest_is_set() -> None:
    there = state(table())
    fixed = replace(there.bulk.knobs["lan0"], fixed=frozenset({"rx-gro-list"}))
    there = replace(there, bulk=replace(there.bulk, knobs={**there.bulk.knobs, "lan0": fixed}))
    desired = plan(there, config("bulk: {profile: throughput}"))
    assert "rx-gro-list" not in of(desired, "lan0")
    assert of(desired, "lan0")["gro_flush_timeout"] == "200000"
    assert codes(desired.reasons) == ["BULK_FIXED"]


def test_a_knob_that_is_turned_back_again_and_again_is_left_alone() -> None:
    there = state(table())
    stage = Knob(KnobKind.FEATURE, "lan0", "rx-gro-list")
    twice = plan(replace(there, bulk=replace(there.bulk, turned_back={stage: 2})), config("bulk: {profile: latency}"))
    assert of(twice, "lan0")["rx-gro-list"] == "on"
    assert codes(twice.reasons) == ["BULK_TURNED_BACK"]
    there = replace(there, bulk=replace(there.bulk, turned_back={stage: 3}))
    lan = replace(there.bulk.knobs["lan0"], values={**there.bulk.knobs["lan0"].values, "rx-gro-list": "on"})
    held = replace(there, bulk=replace(there.bulk, knobs={**there.bulk.knobs, "lan0": lan}))
    assert of(plan(held, config("bulk: {profile: latency}")), "lan0")["rx-gro-list"] == "on"
    desired = plan(there, config("bulk: {profile: latency}"))
    assert "rx-gro-list" not in of(desired, "lan0")
    assert of(desired, "wan0")["rx-gro-list"] == "on"
    assert codes(desired.reasons) == ["BULK_CONTESTED"]


def test_what_is_lost_with_every_stage_off_is_not_the_stages_doing() -> None:
    lost = table(cell(Stage.LIST, Side.LAN, udp4_18=Verdict.LOST), cell(Stage.OFF, Side.LAN, udp4_18=Verdict.LOST))
    assert of(plan(state(lost), config("bulk: {profile: latency}")), "lan0")["rx-gro-list"] == "on"


def test_a_cell_in_which_nothing_was_put_together_proves_nothing() -> None:
    desired = plan(state(table(cell(Stage.LIST, Side.LAN, merged=0.9))), config("bulk: {profile: latency}"))
    assert of(desired, "lan0")["rx-udp-gro-forwarding"] == "on"
    (reason,) = [each for each in desired.reasons if each.code == "BULK_NOT_QUALIFIED"]
    assert "nothing was put together" in reason.sentence


def shielded(*cells: Cell, on: str, **knobs: str) -> RouterState:
    """esp4_offload loses what is merged on the LAN without the shield, and with it nothing."""
    lost = [cell(stage, Side.LAN, offload=True, udp4_18=Verdict.LOST) for stage in (Stage.UDP, Stage.LIST)]
    whole = [replace(each, case=replace(each.case, shield=True), verdicts=WHOLE) for each in lost]
    there = state(table(*lost, *whole, *cells), offload=True, **knobs)
    lan = there.bulk.knobs["lan0"]
    lan = replace(lan, values={**lan.values, "shield": on})
    return replace(there, bulk=replace(there.bulk, knobs={**there.bulk.knobs, "lan0": lan}))


SHIELD = config("bulk: {profile: throughput, shield: true}")


def test_a_stage_that_needs_the_shield_waits_until_it_is_there() -> None:
    before = of(plan(shielded(on="off"), SHIELD), "lan0")
    assert (before["shield"], before["rx-gro-list"], before["rx-gro"]) == ("on", "off", "on")
    after = of(plan(shielded(on="on"), SHIELD), "lan0")
    assert (after["shield"], after["rx-gro-list"]) == ("on", "on")


def test_the_shield_is_for_auto_unless_the_config_says_otherwise_and_never_with_another_program() -> None:
    for text in ("profile: throughput", "profile: auto, shield: false"):
        without = of(plan(shielded(on="off"), config(f"bulk: {{{text}}}")), "lan0")
        assert ("shield" in without, without["rx-gro-list"]) == (False, "off")
    assert of(plan(shielded(on="off"), config("bulk: {profile: auto}")), "lan0")["shield"] == "on"
    there = shielded(on="off")
    lan = replace(there.bulk.knobs["lan0"], values=FOUND)
    there = replace(there, bulk=replace(there.bulk, knobs={"lan0": lan}))
    assert "shield" not in of(plan(there, SHIELD), "lan0")


def test_a_stage_that_kills_the_kernel_without_its_shield_is_for_who_takes_that_risk() -> None:
    panics = cell(Stage.LIST, Side.LAN, offload=True, udp4_512=Verdict.PANIC)
    for accept, on in (("", ("off", "on")), (", accept: [panic-without-shield]", ("on", "off"))):
        desired = plan(shielded(panics, on="on"), config(f"bulk: {{profile: auto{accept}}}"))
        lan = of(desired, "lan0")
        assert (lan["rx-gro-list"], lan["rx-udp-gro-forwarding"]) == on
        assert (Stage.LIST in desired.stages["lan0"]) is (on[0] == "on")


def test_a_shield_that_went_away_takes_the_stage_with_it() -> None:
    gone = shielded(on="off", rx_gro_list="on")
    desired = plan(gone, SHIELD)
    assert of(desired, "lan0")["rx-gro-list"] == "off"
    assert "BULK_CONDEMNED" in codes(desired.reasons)
    assert "BULK_CONDEMNED" not in codes(plan(shielded(on="on", rx_gro_list="on"), SHIELD).reasons)


def test_the_stage_goes_before_its_shield() -> None:
    stage, shield = Knob(KnobKind.FEATURE, "lan0", "rx-gro-list"), Knob(KnobKind.SHIELD, "lan0", "shield")
    turned = {shield: Turned("off", ("on",)), stage: Turned("off", ("on",))}
    held = {shield: "on", stage: "on"}
    assert [turn.knob for turn in turns({}, held, turned)] == [stage, shield]
    assert [turn.knob for turn in turns({shield: "off", stage: "off"}, held, {})] == [stage, shield]


def test_what_auto_has_chosen_is_planned_where_it_may_be() -> None:
    there = state(table())

    def chosen(stage: Stage, profile: str = "auto", cells: RouterState = there) -> Desired:
        choice = Choice(stage, "it costs least")
        return plan(
            replace(cells, bulk=replace(cells.bulk, chosen={"lan0": choice})), config(f"bulk: {{profile: {profile}}}")
        )

    assert of(chosen(Stage.OFF), "lan0")["rx-gro"] == "off"
    assert of(chosen(Stage.UDP), "lan0")["rx-udp-gro-forwarding"] == "on"
    assert codes(chosen(Stage.OFF).reasons) == ["BULK_CHOSEN"]
    assert of(chosen(Stage.OFF, "balanced"), "lan0")["rx-gro-list"] == "on"
    lost = state(table(cell(Stage.LIST, Side.LAN, udp4_18=Verdict.LOST)))
    assert of(chosen(Stage.LIST, cells=lost), "lan0")["rx-gro-list"] == "off"


def test_auto_is_told_which_stages_it_may_try() -> None:
    lost = state(table(cell(Stage.LIST, Side.LAN, udp4_18=Verdict.LOST)))
    desired = plan(lost, config("bulk: {profile: auto}"))
    assert [*desired.stages["lan0"]] == [Stage.UDP, Stage.GRO, Stage.OFF]
    assert [*desired.stages["wan0"]] == [Stage.LIST, Stage.UDP, Stage.GRO, Stage.OFF]
    assert desired.stages["lan0"][Stage.UDP].items() <= desired.knobs.items()
    off = desired.stages["lan0"][Stage.OFF]
    assert off[Knob(KnobKind.FEATURE, "lan0", "rx-gro")] == "off"
    assert off[Knob(KnobKind.DEVICE, "lan0", "gro_flush_timeout")] == "0"
    assert plan(lost, config("bulk: {profile: latency}")).stages == {}
