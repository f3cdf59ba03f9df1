"""Steering on a terminal and as JSON: wanted, and seen."""

from pathlib import Path

import pytest
from rich.console import Console

from flowfast.apply import journal, knobs
from flowfast.cli.steering import print_steering, steering_json, steering_reasons, steering_rows
from flowfast.kernel.knobs import FakeKnobs
from flowfast.kernel.machine import FakeMachine
from flowfast.model.knob import Knob, KnobKind, Turn
from flowfast.model.reason import Reason
from flowfast.model.sa import Direction
from flowfast.plan.case import Sight
from flowfast.plan.planner import plan
from tests.unit.cli.looking import commands, fake_kernel
from tests.unit.plan.steering.paper import config, machine, nic, rss, sas, world

STATE = world(machine(wan=nic("wan0", 4, rss=rss(4))), sas(2))
DESIRED = plan(STATE, config("wan: rss, lan: rps"))
SIGHT = Sight(STATE, (), config("wan: rss"), DESIRED)


def test_the_plan_shows_sa_queue_interrupt_and_cpu() -> None:
    out = Console(width=200, record=True)
    print_steering(out, DESIRED.steering)
    head, titles, *rows = [line.split() for line in out.export_text().splitlines()]
    assert " ".join(head) == "steering lan0 by rps, wan0 by rss; flows go to CPUs 0-1"
    assert titles[-3:] == ["goes", "to", "CPU"]
    for place, row in zip(DESIRED.steering.placements, rows, strict=True):
        assert f"0x{place.sa.spi:08x}" in row
        if place.sa.direction is Direction.IN and place.pcpu is not None:
            assert row[-4:] == ["(rss)", str(place.queue), str(place.irq), str(place.pcpu)]
        elif place.pcpu is None:
            assert row[-2:] == ["fallback:", "any"]


def test_nothing_is_shown_where_steering_is_off() -> None:
    out = Console(record=True)
    print_steering(out, None)
    assert out.export_text() == ""


def test_what_was_seen_stands_beside_what_was_wanted() -> None:
    one = next(each for each in DESIRED.steering.placements if each.pcpu == 1 and each.sa.direction is Direction.IN)
    rows = list(steering_rows(SIGHT, {(Direction.IN, one.sa.spi): {0: 250, 1: 750}}))
    assert len(rows) == len(DESIRED.steering.placements)
    seen = {row["spi"]: row for row in rows}
    assert seen[one.sa.spi]["seen"] == "1 (750), 0 (250)"
    assert seen[one.sa.spi]["own_share"] == 0.75
    assert [row["owner"] for row in rows] == ["any" if row["pcpu"] is None else str(row["pcpu"]) for row in rows]
    assert seen[one.sa.spi]["packets"] == {"0": 250, "1": 750}
    others = [row for row in rows if row["spi"] != one.sa.spi]
    assert all(row["seen"] is None and row["own_share"] is None and row["packets"] == {} for row in others)


def test_what_nobody_could_see_is_absent_and_not_nothing() -> None:
    rows = list(steering_rows(SIGHT, Reason("NO_WITNESS", "steering", "no")))
    assert all(row["packets"] is None and row["seen"] is None for row in rows)


def test_what_the_plan_could_not_do_and_what_went_elsewhere_is_said_beside_it() -> None:
    one = next(each for each in DESIRED.steering.placements if each.pcpu == 1 and each.sa.direction is Direction.IN)
    codes = [reason.code for reason in steering_reasons(SIGHT, {(Direction.IN, one.sa.spi): {0: 250, 1: 750}})]
    assert codes == ["STEERED_ELSEWHERE"]
    blind = plan(STATE, config("wan: rps, lan: rps"))
    luck = Sight(STATE, (), config("wan: rps"), blind)
    nobody = Reason("NO_WITNESS", "steering", "no")
    assert [reason.code for reason in steering_reasons(luck, nobody)] == ["STEERED_BY_HASH", "NO_WITNESS"]


def test_why_there_is_nothing_to_show_is_said() -> None:
    off = Sight(STATE, (), config(""), plan(STATE, config("")))
    assert [reason.code for reason in steering_reasons(off, {})] == ["STEERING_OFF"]
    alone = world(machine(), sas(0))
    none = Sight(alone, (), config("wan: xdp"), plan(alone, config("wan: xdp")))
    assert [reason.code for reason in steering_reasons(none, {})] == ["NO_PCPU_SAS"]


def test_json_has_it_all() -> None:
    said = steering_json(DESIRED.steering)
    assert said["backends"] == {"lan0": "rps", "wan0": "rss"}
    assert {place["cpu"] for place in said["placements"]} == {None, 0, 1}


def test_a_plan_of_many_sas_shows_those_that_are_not_where_they_belong() -> None:
    many = plan(world(machine(64, wan=nic("wan0", 4, rss=rss(4, size=32))), sas(64)), config("wan: rss"))
    wrong = [each for each in many.steering.placements if each.pcpu is not None and not each.exact]
    out = Console(width=200, record=True)
    print_steering(out, many.steering)
    text = out.export_text()
    assert wrong
    assert len(text.splitlines()) == 100 + 3
    assert all(f"0x{each.sa.spi:08x}" in text for each in wrong)
    assert f"and {len(many.steering.placements) - 100} more" in text


def test_apply_goes_on_at_once_where_a_nic_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (journal, knobs):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    rules = {Knob(KnobKind.NTUPLE, "wan0", str(n)): "none" for n in range(2)}
    masks = {Knob(KnobKind.DEVICE, "wan0", f"queues/rx-{n}/rps_cpus"): "" for n in range(2)}
    before = {**rules, **masks, Knob(KnobKind.XDP, "wan0", "program"): "none"}
    kernel = fake_kernel()
    kernel.xfrm.put(*(sa for sa in sas(2) if sa.pcpu is not None))
    kernel.machine = FakeMachine(machine(2, wan=nic("wan0", 2, native_xdp=True, rules={})))
    kernel.knobs = FakeKnobs(before)
    kernel.knobs.refuse = {Knob(KnobKind.NTUPLE, "wan0", "1")}
    file = tmp_path / "site.yaml"
    file.write_text("devices: {lan: [lan0], wan: [wan0]}\nsteering: {wan: auto}\n")
    flowfast = commands(kernel, monkeypatch, tmp_path)
    said = flowfast("apply", str(file), "--yes").output
    assert "the kernel refused (wan0 1 = esp4" in said, said
    assert said.count("xdp does it instead") == 1
    assert kernel.knobs.values[Knob(KnobKind.XDP, "wan0", "program")] == "flowfast_wan3"
    assert all(kernel.knobs.values[rule] == "none" for rule in rules)
    again = flowfast("plan", str(file), "--detailed-exitcode")
    assert again.exit_code == 0, again.output
    assert "wan0 by xdp" in again.output


def test_a_table_of_slots_is_told_by_how_many_change() -> None:
    table = Knob(KnobKind.RSS, "wan0", "indirection")
    assert str(Turn(table, "0,1,2,3", "0,1,0,1")) == "wan0 indirection: 2 of 4 slots to other queues"
    back = Turn(table, "0,1", "1,0", back=True)
    assert str(back) == "wan0 indirection: 2 of 2 slots to other queues, as before flowfast"
    assert str(Turn(table._replace(name="rx-flow-hash esp4"), "sdfn", "sd")) == "wan0 rx-flow-hash esp4: sd -> sdfn"
