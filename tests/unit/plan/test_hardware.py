"""SAs in NICs, and what the planner makes of them: what is held back, what stays in software, what is counted."""

from dataclasses import replace
from typing import Any

import pytest

from flowfast.model.desired import Desired
from flowfast.model.link import Link
from flowfast.model.nic import ESP, Nic, OffloadType
from flowfast.model.reason import Severity
from flowfast.model.sa import SA, Direction, Offload, Policy
from flowfast.model.state import RouterState
from flowfast.model.tunnel import TunnelKey
from flowfast.plan.hardware import placed
from flowfast.plan.planner import plan
from flowfast.plan.ruleset import FLOWTABLE, INET
from flowfast.plan.tunnels import find_tunnels
from tests.unit.metrics.world import sa, tunnel
from tests.unit.plan.router import LAN, PEER, US, WAN, bypass, config, policies, router

ABLE = Nic("wan0", WAN.ifindex, "mlx5_core", on=frozenset({ESP}))
PACKET_OUT, PACKET_IN = Offload(WAN.ifindex, 4), Offload(WAN.ifindex, 6)
CRYPTO_OUT = Offload(WAN.ifindex, 0)


def out(**more: Any) -> SA:
    return sa(0x1001, icv_bits=128, key_bits=160, **more)


def inward(**more: Any) -> SA:
    return sa(0x2001, src=PEER, dst=US, icv_bits=128, key_bits=160, **more)


def in_nic(*spd: Policy, device: int = WAN.ifindex) -> tuple[Policy, ...]:
    """The policies as a daemon has them offloaded: all but the forward one."""
    return tuple(
        policy if policy.direction is Direction.FORWARD else policy._replace(offload=Offload(device, 4))
        for policy in spd
    )


def state(*sas: SA, spd: tuple[Policy, ...] | None = None, nics: tuple[Nic, ...] = (ABLE,), **more: Any) -> RouterState:
    return replace(router(policies() if spd is None else spd), sas=sas, nics=nics, **more)


PACKET = (out(offload=PACKET_OUT), inward(offload=PACKET_IN))


def codes(desired: Desired) -> set[str]:
    return {reason.code for reason in desired.reasons}


def paths(desired: Desired) -> tuple[bool, bool]:
    (path,) = desired.paths
    return path.tx.fast, path.rx.fast


def reason(desired: Desired, code: str) -> Any:
    (found,) = [each for each in desired.reasons if each.code == code]
    return found


# --- where SAs are ----------------------------------------------------------------------------------------------------


def where(of: RouterState, wanted: OffloadType | None = None) -> list[tuple[Any, ...]]:
    found = placed(of, find_tunnels(of, config()), wanted)
    return [
        (each.direction.value, each.wanted, each.real, each.device, [why.code for why in each.reasons])
        for each in found
    ]


def test_what_is_in_the_nic_and_what_is_not() -> None:
    found = where(state(out(offload=CRYPTO_OUT), inward()))
    assert found == [
        ("out", OffloadType.CRYPTO, OffloadType.CRYPTO, "wan0", []),
        ("in", OffloadType.CRYPTO, None, "wan0", ["NOT_OFFLOADED"]),
    ]


def test_nothing_is_wanted_unless_somebody_says_so() -> None:
    found = where(state(out()))
    assert found == [("out", None, None, "wan0", ["NOT_OFFLOADED"])]
    assert codes(plan(state(out()), config())) == set()
    assert codes(plan(state(out()), config("nic_offload: packet"))) == {"NOT_OFFLOADED"}


def test_the_nic_is_the_one_with_the_sas_own_address() -> None:
    other = Link(9, "wan1", None, True, 1500, ("198.51.100.1/24",))
    two = (ABLE, Nic("wan1", 9, "mlx5_core", on=frozenset({ESP})))
    both = state(out(), nics=two, links=(LAN, WAN, other))
    assert where(both)[0][3] == "wan0"
    plain = replace(both, nics=two[1:])
    assert where(plain, OffloadType.CRYPTO) == [("out", OffloadType.CRYPTO, None, None, ["NO_ESP_DEVICE"])]


def test_sas_of_another_namespace_are_in_no_device_of_this_one() -> None:
    key = TunnelKey(1, 42, US, PEER, "underlay")
    there = tunnel("t", [out(offload=PACKET_OUT)], [inward()], key=key)
    found = list(placed(state(), [there], OffloadType.PACKET))
    assert [(each.real, each.device, each.reasons) for each in found] == [
        (OffloadType.PACKET, None, ()),
        (None, None, ()),
    ]


def test_a_switched_off_feature_is_said_of_crypto_offload() -> None:
    off = replace(ABLE, on=frozenset(), off=frozenset({ESP}))
    desired = plan(state(out(offload=CRYPTO_OUT), inward(offload=Offload(WAN.ifindex, 2)), nics=(off,)), config())
    assert "the CPU encrypts" in reason(desired, "FEATURE_OFF").sentence
    assert paths(desired) == (True, True)


# --- packet offload and the fast path --------------------------------------------------------------------------------


def test_sas_and_policies_in_one_nic_are_fast() -> None:
    desired = plan(state(*PACKET, spd=in_nic(*policies())), config())
    assert (paths(desired), codes(desired)) == ((True, True), set())


@pytest.mark.parametrize(
    ("spd", "code"),
    [(policies(), "POLICY_MISSING"), (in_nic(*policies(), device=9), "POLICY_MISSING")],
    ids=["not offloaded", "on another device"],
)
def test_a_policy_that_is_not_with_its_sa_keeps_the_tunnel_slow(spd: tuple[Policy, ...], code: str) -> None:
    desired = plan(state(*PACKET, spd=spd), config())
    assert paths(desired) == (False, False)
    assert reason(desired, code).severity is Severity.ERROR
    assert "swanctl.conf: hw_offload = packet" in reason(desired, code).remedy
    assert desired.ruleset.tables[INET].sets["fast4"].elements == {}


def test_one_family_in_the_other_does_not_leave() -> None:
    spd = in_nic(*policies("fd01::/48", "fd02::/48"))
    inside = tuple(
        policy._replace(templates=(policy.templates[0]._replace(family=2, src=src, dst=dst),))
        for policy in spd
        for src, dst in ([(US, PEER)] if policy.direction is Direction.OUT else [(PEER, US)])
    )
    desired = plan(state(*PACKET, spd=(*in_nic(*policies()), *inside)), config())
    assert paths(desired) == (False, False)
    assert "IPv6 in IPv4" in reason(desired, "FAMILIES_DIFFER").sentence


def test_policies_in_a_nic_want_their_sas_there() -> None:
    desired = plan(state(out(), inward(offload=PACKET_IN), spd=in_nic(*policies())), config())
    assert paths(desired) == (False, False)
    assert "SA_MISSING" in codes(desired)
    assert "SA_MISSING" not in codes(plan(state(spd=in_nic(*policies())), config()))  # a trap: no SA yet


def test_a_policy_of_the_cpus_that_should_come_first_does_not() -> None:
    spd = (*in_nic(*policies(priority=1000)), *bypass("10.1.7.0/24", "10.2.0.0/16", priority=500))
    desired = plan(state(*PACKET, spd=spd), config())
    assert paths(desired) == (False, False)
    assert "priority = 499" in reason(desired, "POLICY_NOT_FIRST").remedy


@pytest.mark.parametrize(
    "other",
    [
        bypass("10.9.0.0/24", "10.2.0.0/16"),
        bypass("10.1.7.0/24", "10.2.0.0/16", priority=1000),
        in_nic(*bypass("10.1.7.0/24", "10.2.0.0/16")),
        policies("fd01::/48", "fd02::/48", "2001:db8::2", priority=500),
    ],
    ids=["elsewhere", "equal priority", "in the NIC too", "other family"],
)
def test_a_policy_that_is_not_in_the_way_is_none(other: tuple[Policy, ...]) -> None:
    desired = plan(state(*PACKET, spd=(*in_nic(*policies()), *other)), config())
    assert "POLICY_NOT_FIRST" not in codes(desired)


def test_a_lan_device_that_offloads_too_would_destroy_what_comes_in_fast() -> None:
    lan = Nic("lan0", LAN.ifindex, "mlx5_core", on=frozenset({ESP}))
    spd = in_nic(*policies())
    desired = plan(state(*PACKET, spd=spd, nics=(ABLE, lan)), config())
    assert paths(desired) == (True, False)
    assert desired.ruleset.tables[INET].flowtables[FLOWTABLE].devices == {"lan0"}
    assert "ethtool -K lan0 esp-hw-offload off" in reason(desired, "SECPATH_TO_NIC").remedy
    # Neither with the feature off, nor for SAs that the stack decrypts.
    off = replace(lan, on=frozenset(), off=frozenset({ESP}))
    assert paths(plan(state(*PACKET, spd=spd, nics=(ABLE, off)), config())) == (True, True)
    crypto = (out(offload=CRYPTO_OUT), inward(offload=Offload(WAN.ifindex, 2)))
    assert paths(plan(state(*crypto, nics=(ABLE, lan)), config())) == (True, True)


def forward(desired: Desired) -> str:
    return "\n".join(desired.ruleset.tables[INET].chains["forward"].rules)


def test_what_lost_its_secpath_is_counted_by_where_it_came_from() -> None:
    rule = 'iifname { "wan0" } meta ipsec missing jump count_in'
    assert rule in forward(plan(state(*PACKET, spd=in_nic(*policies())), config()))
    assert rule not in forward(plan(state(out(), inward()), config()))


# --- flowtables of NICs ----------------------------------------------------------------------------------------------

WANTED = "offload: {plain: true, hardware: true}"
BOTH = frozenset({"lan0", "wan0"})


def in_hardware(desired: Desired) -> bool:
    return desired.ruleset.tables[INET].flowtables[FLOWTABLE].offload


def test_flows_go_to_nics_where_all_take_them() -> None:
    desired = plan(state(hardware=BOTH), config(WANTED))
    assert (in_hardware(desired), codes(desired)) == (True, set())
    assert not in_hardware(plan(state(hardware=BOTH), config("offload: {plain: true}")))


def test_flows_stay_in_software_where_a_driver_takes_none() -> None:
    desired = plan(state(hardware=frozenset({"lan0"})), config(WANTED))
    assert (in_hardware(desired), reason(desired, "HARDWARE_REFUSED").object) == (False, "wan0")


def test_never_together_with_packet_offload() -> None:
    desired = plan(state(*PACKET, spd=in_nic(*policies()), hardware=BOTH), config(WANTED))
    assert (in_hardware(desired), reason(desired, "HARDWARE_AND_PACKET").object) == (False, "wan0")
    trap = plan(state(spd=in_nic(*policies()), hardware=BOTH), config(WANTED))
    assert not in_hardware(trap)  # the SA may come at any moment
    crypto = plan(state(out(offload=CRYPTO_OUT), hardware=BOTH), config(WANTED))
    assert in_hardware(crypto)


def test_flows_through_tunnels_are_no_nics() -> None:
    desired = plan(state(hardware=BOTH), config("offload: {hardware: true}"))
    assert (in_hardware(desired), codes(desired)) == (False, {"HARDWARE_NEEDS_PLAIN"})
