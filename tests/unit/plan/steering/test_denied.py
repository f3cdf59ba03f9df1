"""What the kernel refused when it was asked: the plan goes on without it."""

import errno

import pytest

from flowfast.apply.knobs import Refusal
from flowfast.apply.steering import note
from flowfast.kernel.machine import FakeMachine
from flowfast.model.desired import Desired
from flowfast.model.errors import KernelError
from flowfast.model.knob import Denial, Knob, KnobKind, Turn
from flowfast.model.reason import Reason
from flowfast.model.steering import Backend
from flowfast.plan.planner import plan
from tests.unit.plan.steering.paper import config, machine, nic, rss, sas, world

RULE = Knob(KnobKind.NTUPLE, "wan0", "3")
TABLE = Knob(KnobKind.RSS, "wan0", "indirection")
HASH = Knob(KnobKind.RSS, "wan0", "rx-flow-hash esp4")
PROGRAM = Knob(KnobKind.XDP, "wan0", "program")
NATIVE, GENERIC = Denial("flowfast_wan3", "Invalid argument"), Denial("generic flowfast_wan3", "Out of memory")
FULL = Denial("esp4 spi 0x1 action 2", "No space left on device")


def planned(denied: dict[Knob, Denial], wan: str = "auto", **more: object) -> Desired:
    able = {"rules": {}, "rss": rss(4), "native_xdp": True, "driver": "ice", **more}
    return plan(world(machine(wan=nic("wan0", 4, **able), denied=denied), sas(4)), config(f"wan: {wan}"))


def said(desired: Desired, code: str) -> list[Reason]:
    return [reason for reason in desired.reasons if reason.code == code]


def test_auto_goes_on_to_the_next_backend_and_says_what_the_kernel_said() -> None:
    assert planned({}).steering.backends["wan0"] is Backend.NTUPLE
    desired = planned({RULE: FULL})
    assert desired.steering.backends["wan0"] is Backend.XDP
    assert all(each.exact for each in desired.steering.placements if each.pcpu is not None)
    assert not any(knob.kind is KnobKind.NTUPLE for knob in desired.knobs)
    (reason,) = said(desired, "BACKEND_REFUSED")
    assert "no steering by ntuple" in reason.sentence
    assert "No space left on device): xdp does it instead" in reason.sentence


def test_a_program_that_the_driver_refuses_runs_behind_it() -> None:
    desired = planned({RULE: FULL, PROGRAM: NATIVE}, rss=None)
    assert desired.knobs[PROGRAM] == "generic flowfast_wan3"
    assert "Invalid argument" in said(desired, "XDP_GENERIC")[0].sentence
    assert planned({PROGRAM: NATIVE}, "xdp").knobs[PROGRAM] == "generic flowfast_wan3"


def test_all_of_them_can_be_refused_one_after_the_other() -> None:
    denied = {RULE: FULL, PROGRAM: GENERIC, TABLE: FULL}
    desired = planned(denied)
    assert desired.steering.backends["wan0"] is Backend.RPS
    assert [reason.sentence.split(",")[0] for reason in said(desired, "BACKEND_REFUSED")] == [
        "no steering by ntuple",
        "no steering by rss",
        "no steering by xdp",
    ]
    nothing = planned(denied, rx=())
    assert nothing.steering.backends == {}
    assert said(nothing, "NO_BACKEND")


def test_what_is_named_in_the_config_is_asked_for_again() -> None:
    for backend, denied in (("ntuple", {RULE: FULL}), ("rss", {TABLE: FULL}), ("xdp", {PROGRAM: GENERIC})):
        desired = planned(denied, backend)
        assert desired.steering.backends["wan0"] == backend
        assert not said(desired, "BACKEND_REFUSED")


def test_another_device_s_refusal_is_its_own() -> None:
    assert planned({RULE._replace(object="wan1"): FULL}).steering.backends["wan0"] is Backend.NTUPLE


def test_a_hash_is_widened_once_and_stays_so() -> None:
    narrow = planned({}, "rss", rss=rss(4, spi=False))
    assert narrow.knobs[HASH] == "sdfn"
    assert not said(narrow, "RSS_BLIND")
    assert all(each.exact for each in narrow.steering.placements if each.pcpu is not None)
    wide = rss(4)
    fields = {**wide.fields, "esp4": frozenset({"src", "dst", "sport", "dport", "spi"})}
    after = planned({}, "rss", rss=type(wide)(wide.table, wide.key, fields))
    assert after.knobs[HASH] == "sdfn"  # not wanted any more would be turned back
    assert after.knobs[TABLE] == narrow.knobs[TABLE]


def test_a_hash_that_the_driver_will_not_have_wider_is_no_choice_for_auto() -> None:
    refused = {HASH: Denial("sdfn", "Operation not supported"), RULE: FULL}
    desired = planned(refused, rss=rss(4, spi=False), native_xdp=False)
    assert desired.steering.backends["wan0"] is Backend.XDP
    assert HASH not in desired.knobs


@pytest.mark.parametrize("backend", ["rss", "ntuple"])
def test_interrupts_that_stay_where_they_are_are_passed_on_by_rps(backend: str) -> None:
    denied = {Knob(KnobKind.IRQ, str(100 + n), "smp_affinity_list"): Denial("1", "Input/output error") for n in (1, 2)}
    desired = planned(denied, backend)
    assert {int(knob.object) for knob in desired.knobs if knob.kind is KnobKind.IRQ} == {100, 103}
    masks = [desired.knobs[Knob(KnobKind.DEVICE, "wan0", f"queues/rx-{n}/rps_cpus")] for n in range(4)]
    assert masks[0] == masks[3] == ""
    assert all(each.exact for each in desired.steering.placements if each.pcpu is not None)
    (reason,) = said(desired, "IRQ_FIXED")
    assert "2 of its interrupts (Input/output error)" in reason.sentence


def refusal(knob: Knob, value: str, code: int, *, back: bool = False) -> Refusal:
    return Refusal(Turn(knob, value, "none", back), KernelError("no", code))


def test_only_what_a_driver_does_not_do_is_noted() -> None:
    memory = FakeMachine()
    mask = Knob(KnobKind.DEVICE, "wan0", "queues/rx-0/rps_cpus")
    passing = [
        refusal(PROGRAM, "flowfast_wan3", errno.EBUSY),
        refusal(mask, "1", errno.EINVAL),
        refusal(RULE, "none", errno.ENOENT, back=True),
    ]
    assert not note(memory, memory.machine, [], passing)
    assert note(memory, memory.machine, [], [refusal(RULE, "esp4", errno.ENOSPC)])
    assert memory.machine.denied == {RULE: Denial("esp4", "no")}
    assert not note(memory, memory.machine, [], [refusal(RULE, "esp4", errno.ENOSPC)])  # no news


def test_what_was_turned_after_all_is_not_denied_any_more() -> None:
    memory = FakeMachine(machine(denied={RULE: FULL, PROGRAM: NATIVE}))
    behind = Turn(PROGRAM, "generic flowfast_wan3", "none")
    assert not note(memory, memory.machine, [Turn(RULE, "none", "a rule", back=True)], [])
    assert note(memory, memory.machine, [Turn(RULE, "another rule", "none"), behind], [])
    assert memory.machine.denied == {PROGRAM: NATIVE}  # that it runs behind the driver does not say that it would in it
