"""Knobs of bulking: each NAPI's own, limits that hold in every profile, and those that the config sets by name."""

from dataclasses import replace

import pytest

from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.bulk import MODULES, DeviceKnobs, Side, Stage, Verdict, knob_of
from flowfast.model.knob import HIDDEN, Knob, KnobKind, Turned
from flowfast.model.reason import Severity
from flowfast.model.sa import Offload
from flowfast.model.state import RouterState
from flowfast.plan.knobs import turns
from flowfast.plan.planner import plan
from tests.unit.plan.router import PEER, US, config
from tests.unit.plan.test_plan_bulk import FOUND, cell, codes, of, state, table

NAPIS = {
    f"napi {number} {name}": "0"
    for number in (8193, 8194)
    for name in ("gro_flush_timeout", "napi_defer_hard_irqs", "threaded")
}
NIC = {"rings rx": "256", "rings tx": "256", "channels combined": "2", "coalesce rx-usecs": "3", "tx-gso-list": "on"}


def there(*, fixed: frozenset[str] = frozenset(), drop: tuple[str, ...] = (), **values: str) -> RouterState:
    """The router of test_plan_bulk on a kernel of which each NAPI is set by itself; `values` of lan0 by name."""
    made = state(table())
    held = {name: value for name, value in FOUND.items() if name not in ("gro_flush_timeout", "napi_defer_hard_irqs")}
    lan = {name: value for name, value in {**held, **NAPIS, **NIC, **values}.items() if name not in drop}
    knobs = {**made.bulk.knobs, "lan0": DeviceKnobs(lan, fixed)}
    modules = dict.fromkeys(MODULES, False)
    return replace(made, bulk=replace(made.bulk, knobs=knobs, modules=modules))


def test_a_profile_has_each_napi_wait_and_no_file_of_the_device() -> None:
    desired = plan(there(), config("bulk: {profile: throughput}"))
    lan = {name: value for name, value in of(desired, "lan0").items() if "timeout" in name or "irqs" in name}
    assert lan == {
        "napi 8193 gro_flush_timeout": "200000",
        "napi 8194 gro_flush_timeout": "200000",
        "napi 8193 napi_defer_hard_irqs": "1",
        "napi 8194 napi_defer_hard_irqs": "1",
    }
    assert Knob(KnobKind.NAPI, "lan0", "napi 8193 gro_flush_timeout") in desired.knobs
    assert of(desired, "wan0")["gro_flush_timeout"] == "200000"  # which has no NAPI of its own to set


@pytest.mark.parametrize(("held", "wanted"), [("524280", "65536"), ("65536", "65536"), ("30000", "30000")])
def test_every_profile_holds_gro_to_what_was_tried(held: str, wanted: str) -> None:
    for profile in ("off", "auto", "latency"):
        desired = plan(there(gro_max_size=held), config(f"bulk: {{profile: {profile}}}"))
        assert of(desired, "lan0")["gro_max_size"] == wanted
    assert "gro_max_size" not in of(plan(there(gro_max_size=held), config()), "lan0")


BY_NAME = """bulk: {profile: %s, devices: {lan0: {
  napi: {gro_flush_timeout: 50000, threaded: true}, rings: {rx: 4096}, channels: {combined: 4},
  coalesce: {rx-usecs: 50}, features: {tx-gso-list: false}}}}"""


@pytest.mark.parametrize("profile", ["keep", "throughput", "auto"])
def test_what_is_set_by_name_goes_before_every_profile(profile: str) -> None:
    desired = plan(there(), config(BY_NAME % profile))
    wanted = {
        "napi 8193 gro_flush_timeout": "50000",
        "napi 8194 gro_flush_timeout": "50000",
        "napi 8193 threaded": "1",
        "napi 8194 threaded": "1",
        "rings rx": "4096",
        "channels combined": "4",
        "coalesce rx-usecs": "50",
        "tx-gso-list": "off",
    }
    held = of(desired, "lan0")
    assert wanted.items() <= held.items()
    if profile == "keep":
        assert held == wanted
        assert of(desired, "wan0") == {}
    for settings in desired.stages.get("lan0", {}).values():  # what the governor turns between two rounds
        assert {knob_of("lan0", name): value for name, value in wanted.items()}.items() <= settings.items()


def test_it_is_set_where_no_tunnel_is() -> None:
    bare = replace(there(), policies=(), sas=())
    assert of(plan(bare, config(BY_NAME % "throughput")), "lan0")["rings rx"] == "4096"


def test_what_is_not_there_or_fixed_is_a_reason_and_the_rest_is_set() -> None:
    without = there(drop=("rings rx",), fixed=frozenset({"tx-gso-list"}))
    desired = plan(without, config(BY_NAME % "keep"))
    assert "rings rx" not in of(desired, "lan0")
    assert "tx-gso-list" not in of(desired, "lan0")
    assert of(desired, "lan0")["channels combined"] == "4"
    assert codes(desired.reasons) == ["BULK_ABSENT", "BULK_FIXED"]


def test_a_device_that_is_not_there_yet_is_said() -> None:
    desired = plan(there(), config("bulk: {devices: {lan7: {rings: {rx: 512}}}}"))
    (reason,) = [each for each in desired.reasons if each.object == "lan7"]
    assert (reason.code, "rings rx" in reason.sentence) == ("DEVICE_MISSING", True)


def test_esp_offload_is_not_taken_from_a_device_that_has_sas() -> None:
    held = there(**{"esp-hw-offload": "on"})
    asked = config("bulk: {devices: {lan0: {features: {esp-hw-offload: false}}}}")
    assert of(plan(held, asked), "lan0") == {"esp-hw-offload": "off"}
    index = next(link.ifindex for link in held.links if link.name == "lan0")
    inside = make_sa(US, PEER, 0xC0000001)._replace(offload=Offload(index, 0))
    desired = plan(replace(held, sas=(inside,)), asked)
    assert of(desired, "lan0") == {}
    assert codes(desired.reasons) == ["BULK_IN_USE"]


def test_sysctls_that_this_kernel_has_are_set() -> None:
    made = there()
    made = replace(made, bulk=replace(made.bulk, sysctls={"net.core.gro_normal_batch": "8"}))
    desired = plan(made, config("bulk: {sysctls: {gro_normal_batch: 16, qdisc_max_burst: 500}}"))
    assert desired.knobs == {Knob(KnobKind.SYSCTL, "", "net.core.gro_normal_batch"): "16"}
    assert [each.object for each in desired.reasons if each.code == "BULK_ABSENT"] == ["net.core.qdisc_max_burst"]


def test_modules_are_wanted_before_sas_and_qualify_both_ways_meanwhile() -> None:
    lost = state(table(cell(Stage.LIST, Side.LAN, offload=True, udp4_18=Verdict.LOST)))
    asked = config("bulk: {profile: latency, esp_offload: loaded}")

    def stage(loaded: bool) -> str:
        bulk = replace(lost.bulk, modules=dict.fromkeys(MODULES, loaded), esp_offload=loaded)
        desired = plan(replace(lost, bulk=bulk), asked)
        assert {knob.name: value for knob, value in desired.knobs.items() if knob.kind is KnobKind.MODULE} == {
            "esp4_offload": "loaded",
            "esp6_offload": "loaded",
        }
        return of(desired, "lan0")["rx-gro-list"]

    assert of(plan(lost, config("bulk: {profile: latency}")), "lan0")["rx-gro-list"] == "on"
    assert stage(False) == "off"  # it will be loaded in a moment
    assert stage(True) == "off"


def test_sas_that_were_made_without_the_module_are_said() -> None:
    made = replace(there(), sas=(make_sa(US, PEER, 0xC0000001),))
    desired = plan(made, config("bulk: {esp_offload: loaded}"))
    (reason,) = [each for each in desired.reasons if each.code == "BULK_MODULE_LATE"]
    assert (reason.object, reason.severity) == ("esp4_offload, esp6_offload", Severity.INFO)


FLUSH = knob_of("lan0", "napi 8193 gro_flush_timeout")


def test_a_knob_that_hides_is_neither_turned_nor_turned_back() -> None:
    assert turns({FLUSH: "20000"}, {FLUSH: HIDDEN}, {}) == []
    assert turns({}, {FLUSH: HIDDEN}, {FLUSH: Turned("0", ("20000",), "20000")}) == []


def test_what_makes_napis_anew_is_turned_before_them() -> None:
    names = ("napi 8193 threaded", "rx-gro", "coalesce rx-usecs", "channels combined", "coalesce adaptive-rx")
    knobs = [knob_of("lan0", name) for name in names]

    def order(adaptive: str) -> list[str]:
        wanted = {**dict.fromkeys(knobs, "1"), knobs[-1]: adaptive}
        return [turn.knob.name for turn in turns(wanted, dict.fromkeys(knobs, "?2"), {})]

    off, on = order("off"), order("on")
    assert off.index("coalesce adaptive-rx") < off.index("coalesce rx-usecs")
    assert on.index("coalesce rx-usecs") < on.index("coalesce adaptive-rx")
    assert off.index("channels combined") < off.index("rx-gro") < off.index("napi 8193 threaded")
