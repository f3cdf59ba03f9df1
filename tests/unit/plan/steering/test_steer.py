"""The plan: which SA on which CPU, by what, and which knobs that takes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.config.problem import ConfigError
from flowfast.model.cpu import Cpu
from flowfast.model.desired import Desired
from flowfast.model.knob import Denial, Knob, KnobKind
from flowfast.model.machine import Machine, Queue
from flowfast.model.sa import Direction, Encap
from flowfast.model.steering import Backend
from flowfast.plan.planner import plan
from flowfast.plan.steering.cpus import allowed
from tests.unit.plan.steering.paper import config, cpus, machine, nic, rss, sas, world


def codes(desired: Desired) -> set[str]:
    return {reason.code for reason in desired.reasons}


def places(desired: Desired, direction: Direction = Direction.IN) -> dict[int | None, int | None]:
    assert desired.steering is not None
    return {each.pcpu: each.cpu for each in desired.steering.placements if each.sa.direction is direction}


def test_off_is_the_default_and_plans_nothing() -> None:
    desired = plan(world(machine(), sas(4)), config(""))
    assert desired.steering is None
    assert desired.knobs == {}


def test_xdp_has_every_inbound_sa_on_its_cpu() -> None:
    wan = nic("wan0", native_xdp=True)
    desired = plan(world(machine(wan=wan), sas(4)), config("wan: xdp"))
    assert desired.knobs[Knob(KnobKind.XDP, "wan0", "program")] == "flowfast_wan3"
    assert desired.knobs[Knob(KnobKind.DEVICE, "wan0", "queues/rx-0/rps_cpus")] == ""
    (table,) = desired.steering.tables
    assert sorted(table.sas.values()) == [0, 1, 2, 3]
    assert places(desired) == {None: None, 0: 0, 1: 1, 2: 2, 3: 3}
    assert all(each.exact == (each.pcpu is not None) for each in desired.steering.placements)


def test_behind_a_driver_without_xdp_the_program_is_generic_and_what_the_kernel_turns_off_is_a_knob() -> None:
    desired = plan(world(machine(wan=nic("wan0", driver="e1000e")), sas(4)), config("wan: xdp"))
    assert desired.knobs[Knob(KnobKind.XDP, "wan0", "program")] == "generic flowfast_wan3"
    assert desired.knobs[Knob(KnobKind.FEATURE, "wan0", "rx-gro-hw")] == "off"
    assert places(desired) == {None: None, 0: 0, 1: 1, 2: 2, 3: 3}
    (reason,) = [reason for reason in desired.reasons if reason.code == "XDP_GENERIC"]
    assert "e1000e" in reason.sentence


def test_several_sas_of_a_cpu_and_several_tunnels_all_have_their_places() -> None:
    """A peer with more CPUs than we have gives some of ours several SAs; each tunnel has its own."""
    having = [*sas(2), *(sa._replace(spi=sa.spi + 0x50) for sa in sas(2) if sa.pcpu is not None), *sas(2, reqid=2)]
    wan = nic("wan0", 4, native_xdp=True, rules={})
    for backend in ("xdp", "ntuple"):
        desired = plan(world(machine(2, wan=wan), having, tunnels=(1, 2)), config(f"wan: {backend}"))
        placed = [each for each in desired.steering.placements if each.sa.direction is Direction.IN]
        assert sorted(each.cpu for each in placed if each.pcpu is not None) == [0, 0, 0, 1, 1, 1]
        assert all(each.exact for each in placed if each.pcpu is not None)
    assert sum(knob.kind is KnobKind.NTUPLE for knob in desired.knobs) == 6


def test_a_machine_with_one_cpu_keeps_everything_there() -> None:
    having = [*sas(1), *(sa._replace(spi=sa.spi + 0x50) for sa in sas(1) if sa.pcpu is not None)]
    one = machine(1, wan=nic("wan0", native_xdp=True))
    desired = plan(world(one, having), config("wan: xdp, lan: rps"))
    assert set(desired.steering.tables[0].sas.values()) == {0}
    assert desired.steering.cpus == (0,)


def test_a_spi_that_two_addresses_have_on_different_cpus_is_not_steered() -> None:
    having = sas(2)
    twin = next(sa for sa in having if sa.direction == "in" and sa.pcpu == 0)
    having.append(twin._replace(pcpu=1))
    desired = plan(world(machine(wan=nic("wan0", native_xdp=True)), having), config("wan: xdp"))
    assert twin.spi not in desired.steering.tables[0].sas
    assert "SPI_TWICE" in codes(desired)


@pytest.mark.parametrize(
    ("more", "backend"),
    [
        ({"rules": {}, "native_xdp": True, "rss": rss(4)}, Backend.NTUPLE),
        ({"native_xdp": True, "rss": rss(4)}, Backend.XDP),
        ({"native_xdp": True, "rss": rss(4), "program": "xdp_dispatcher"}, Backend.RSS),
        ({"rss": rss(4)}, Backend.RSS),
        ({"rss": rss(4, spi=False)}, Backend.RSS),  # it is asked to look at the SPI, too
        ({"rss": replace(rss(4), fields={})}, Backend.XDP),
        ({}, Backend.XDP),
        ({"program": "xdp_dispatcher"}, Backend.RPS),
    ],
)
def test_auto_takes_the_most_exact_that_there_is(more: dict, backend: Backend) -> None:
    desired = plan(world(machine(wan=nic("wan0", 4, **more)), sas(4)), config("wan: auto"))
    assert desired.steering.backends["wan0"] is backend
    assert "NO_BACKEND" not in codes(desired)


def test_a_backend_that_the_device_has_not_is_a_reason() -> None:
    desired = plan(world(machine(), sas(4)), config("wan: ntuple"))
    (reason,) = [reason for reason in desired.reasons if reason.code == "NO_BACKEND"]
    assert reason.object == "wan0"
    assert "ntuple" in reason.sentence


@pytest.mark.parametrize("unfinished", [True, False])
def test_a_driver_s_own_xdp_is_kept_from_where_it_would_lose_checksums(unfinished: bool) -> None:
    nics = {name: nic(name, native_xdp=True, unfinished=unfinished) for name in ("lan0", "wan0")}
    desired = plan(world(machine(lan=nics["lan0"], wan=nics["wan0"]), sas(4)), config("wan: xdp, lan: xdp"))
    programs = {knob.object: value for knob, value in desired.knobs.items() if knob.kind is KnobKind.XDP}
    assert programs == {"lan0": "generic " * unfinished + "flowfast_lan3", "wan0": "flowfast_wan3"}
    assert ("XDP_GENERIC" in codes(desired)) is unfinished


def test_a_foreign_xdp_program_stays() -> None:
    wan = nic("wan0", native_xdp=True, program="xdp_dispatcher")
    desired = plan(world(machine(wan=wan), sas(4)), config("wan: xdp"))
    assert not any(knob.kind is KnobKind.XDP for knob in desired.knobs)
    assert "xdp_dispatcher" in next(reason for reason in desired.reasons if reason.code == "NO_BACKEND").sentence


def test_ntuple_rules_lead_each_spi_to_the_queue_of_its_cpu() -> None:
    desired = plan(
        world(machine(wan=nic("wan0", 4, rules={0: "tcp4 dst-port 22 action 0"})), sas(4)), config("wan: ntuple")
    )
    irqs = {int(k.object): int(v) for k, v in desired.knobs.items() if k.kind is KnobKind.IRQ}
    assert sorted(irqs.values()) == [0, 1, 2, 3]
    rules = {k.name: v for k, v in desired.knobs.items() if k.kind is KnobKind.NTUPLE}
    assert "0" not in rules
    assert len(rules) == 4
    for place in desired.steering.placements:
        if place.sa.direction is Direction.IN and place.pcpu is not None:
            assert any(f"spi {place.sa.spi:#x} action {place.queue}" in rule for rule in rules.values())
            assert irqs[place.irq] == place.cpu == place.pcpu


def test_rss_shows_where_it_cannot_tell_sas_apart() -> None:
    blind = nic("wan0", 4, rss=rss(4, spi=False))
    denied = {Knob(KnobKind.RSS, "wan0", "rx-flow-hash esp4"): Denial("sdfn", "Operation not supported")}
    desired = plan(world(machine(wan=blind, denied=denied), sas(4)), config("wan: rss"))
    (reason,) = [reason for reason in desired.reasons if reason.code == "RSS_BLIND"]
    assert "Operation not supported" in reason.sentence
    assert len({place.queue for place in desired.steering.placements if place.queue is not None}) == 1
    encapsulated = plan(world(machine(wan=blind), sas(4, encap=True)), config("wan: rss"))
    assert "RSS_BLIND" not in codes(encapsulated)
    assert places(encapsulated) == {None: None, 0: 0, 1: 1, 2: 2, 3: 3}


@pytest.mark.parametrize("backend", ["rss", "ntuple"])
def test_ports_that_the_peer_draws_are_not_guessed(backend: str) -> None:
    drawn = [sa._replace(encap=Encap(2, 0, 4500)) if sa.encap else sa for sa in sas(4, encap=True)]
    wan = nic("wan0", 4, rss=rss(4), rules={}, native_xdp=True)
    desired = plan(world(machine(wan=wan), drawn), config(f"wan: {backend}"))
    assert places(desired) == {None: None, 0: None, 1: None, 2: None, 3: None}
    assert "PORT_UNKNOWN" in codes(desired)
    assert not any(knob.kind is KnobKind.NTUPLE for knob in desired.knobs)
    assert plan(world(machine(wan=wan), drawn), config("wan: auto")).steering.backends["wan0"] is Backend.XDP


def test_rps_says_what_a_hash_is_worth() -> None:
    desired = plan(world(machine(), sas(4)), config("wan: rps, lan: rps"))
    for device in ("wan0", "lan0"):
        assert desired.knobs[Knob(KnobKind.DEVICE, device, "queues/rx-0/rps_cpus")] == "0-3"
    (reason,) = [reason for reason in desired.reasons if reason.code == "STEERED_BY_HASH"]
    assert "9.4%" in reason.sentence
    assert places(desired) == {None: None, 0: None, 1: None, 2: None, 3: None}
    assert places(desired, Direction.OUT) == {None: None, 0: 0, 1: 1, 2: 2, 3: 3}


def test_rps_behind_gro_that_decrypts_is_told() -> None:
    assert "ESP_GRO" in codes(plan(world(machine(esp_gro=True), sas(4)), config("wan: rps")))
    assert "ESP_GRO" not in codes(plan(world(machine(), sas(4)), config("wan: rps")))
    queues = nic("wan0", 4, rss=rss(4))
    assert "ESP_GRO" not in codes(plan(world(machine(wan=queues, esp_gro=True), sas(4)), config("wan: rss")))
    roaming = machine(wan=queues, esp_gro=True, balancer=True)
    assert "ESP_GRO" in codes(plan(world(roaming, sas(4)), config("wan: rss")))


def test_irqbalance_is_told_of_and_not_fought() -> None:
    wan = nic("wan0", 4, rss=rss(4))
    desired = plan(world(machine(wan=wan, balancer=True), sas(4)), config("wan: rss"))
    assert "IRQBALANCE" in codes(desired)
    assert not any(knob.kind is KnobKind.IRQ for knob in desired.knobs)
    # Each queue is passed on to its CPU instead, and so every SA is where it belongs all the same.
    masks = [desired.knobs[Knob(KnobKind.DEVICE, "wan0", f"queues/rx-{n}/rps_cpus")] for n in range(4)]
    assert sorted(masks) == ["0", "1", "2", "3"]
    assert places(desired) == {None: None, 0: 0, 1: 1, 2: 2, 3: 3}
    by_xdp = plan(world(machine(wan=nic("wan0", native_xdp=True), balancer=True), sas(4)), config("wan: xdp"))
    assert "IRQBALANCE" not in codes(by_xdp)


def test_a_narrow_replay_window_is_told_where_packets_may_overtake() -> None:
    narrow = sas(4, window=32)
    assert "REPLAY_WINDOW" in codes(plan(world(machine(), narrow), config("wan: rps")))
    assert "REPLAY_WINDOW" not in codes(plan(world(machine(), sas(4)), config("wan: rps")))
    exact = [sa for sa in narrow if sa.pcpu is not None]
    wan = nic("wan0", native_xdp=True)
    assert "REPLAY_WINDOW" not in codes(plan(world(machine(wan=wan), exact), config("wan: xdp")))


def test_flows_go_only_to_cpus_with_an_sa_or_that_will_have_one() -> None:
    two = sas(2, first=1)
    knob = Knob(KnobKind.DEVICE, "lan0", "queues/rx-0/rps_cpus")
    assert plan(world(machine(), two), config("lan: rps")).knobs[knob] == "1-2"
    asking = world(machine(), two, acquire=True)
    assert plan(asking, config("lan: rps")).knobs[knob] == "0-3"
    # The peer allows two SAs: CPUs 0 and 3 asked in vain.
    vain = replace(asking, machine=machine(refused=frozenset({0, 1, 3})))
    assert plan(vain, config("lan: rps")).knobs[knob] == "1-2"


def test_without_sas_by_cpu_there_is_nothing_to_steer() -> None:
    desired = plan(world(machine(), sas(0)), config("wan: auto, lan: auto"))
    assert desired.knobs == {}
    assert "NO_PCPU_SAS" in codes(desired)


def test_a_cpu_that_goes_offline_takes_no_packets() -> None:
    wan, lan = nic("wan0", native_xdp=True), nic("lan0", native_xdp=True)
    whole = machine(wan=wan, lan=lan)
    before = plan(world(whole, sas(4)), config("wan: xdp, lan: xdp"))
    spread = {table.device: table for table in before.steering.tables}["lan0"].spread
    less = replace(whole, cpus=cpus(4, offline=[2]), nics={**whole.nics, "lan0": replace(lan, spread=spread)})
    after = plan(world(less, sas(4)), config("wan: xdp, lan: xdp"))
    tables = {table.device: table for table in after.steering.tables}
    assert 2 not in tables["wan0"].sas.values()
    moved = [was for was, now in zip(spread, tables["lan0"].spread, strict=True) if was != now]
    assert set(moved) == {2}
    assert "CPU_OFFLINE" in codes(after)
    assert places(after)[2] is None


def test_isolated_cpus_and_siblings_come_last_or_not_at_all() -> None:
    eight = cpus(8, smt=2, nodes=2)
    assert allowed(eight, None, 1) == (2, 3, 0, 1, 6, 7, 4, 5)
    isolated = [replace(cpu, isolated=cpu.number >= 6) for cpu in eight]
    assert allowed(isolated, None, 0) == (0, 1, 2, 3, 4, 5)
    assert allowed(isolated, frozenset({6, 7}), 0) == (6, 7)


def test_what_is_as_planned_is_planned_again_unchanged() -> None:
    queues = tuple(Queue(n, 100 + n, frozenset({(n + 1) % 4})) for n in range(4))
    wan = replace(nic("wan0", 4, rss=rss(4)), rx=queues)
    desired = plan(world(machine(wan=wan), sas(4)), config("wan: rss"))
    irqs = {int(k.object): v for k, v in desired.knobs.items() if k.kind is KnobKind.IRQ}
    assert irqs == {100 + n: str((n + 1) % 4) for n in range(4)}


def test_sixty_four_cpus_two_nodes_sixty_three_queues() -> None:
    big = Machine(
        cpus(64, nodes=2, smt=2),
        {
            "lan0": nic("lan0", 63, rss=rss(63, size=256), xps=(frozenset(),) * 63),
            "wan0": nic("wan0", 63, rules={}, node=1),
        },
    )
    desired = plan(world(big, sas(64)), config("wan: ntuple, lan: rss"))
    lan = [v for k, v in desired.knobs.items() if k.kind is KnobKind.IRQ]
    assert len(lan) == 63
    assert {each.cpu for each in desired.steering.placements if each.sa.direction is Direction.OUT} == {
        None,
        *range(64),
    }
    masks = [v for k, v in desired.knobs.items() if k.name.endswith("xps_cpus")]
    assert len(masks) == 63
    # 63 queues for 64 CPUs: one SA has no queue of its own, and is told of by its place.
    placed = [
        each for each in desired.steering.placements if each.sa.direction is Direction.IN and each.pcpu is not None
    ]
    assert sum(each.exact for each in placed) == 63


@given(
    count=st.integers(1, 64),
    queues=st.integers(1, 64),
    have=st.integers(0, 64),
    offline=st.sets(st.integers(0, 63)),
    steering=st.tuples(
        st.sampled_from(["off", "auto", "ntuple", "rss", "rps", "xdp"]),
        st.sampled_from(["off", "auto", "rss", "rps", "xdp"]),
        st.booleans(),
    ),
)
def test_whatever_the_machine_no_packet_is_sent_to_a_cpu_that_does_not_run(
    count: int, queues: int, have: int, offline: set[int], steering: tuple[str, str, bool]
) -> None:
    wan, lan, acquire = steering
    some = tuple(Cpu(n, n not in offline or n == 0, core=n) for n in range(count))
    nics = {
        name: nic(name, queues, rss=rss(queues), rules={}, native_xdp=True, xps=(frozenset(),) * queues)
        for name in ("lan0", "wan0")
    }
    made = Machine(some, nics, xdp=True)
    desired = plan(world(made, sas(min(have, count)), acquire=acquire), config(f"wan: {wan}, lan: {lan}"))
    if desired.steering is None:
        assert desired.knobs == {}
        return
    for table in desired.steering.tables:
        used = {*table.sas.values(), *(cpu for cpu in table.spread if cpu is not None)}
        assert used <= set(table.cpus) <= made.online
    for place in desired.steering.placements:
        assert place.cpu is None or place.cpu in made.online
    for knob, value in desired.knobs.items():
        if knob.kind is KnobKind.IRQ:
            assert int(value) in made.online


def test_without_ethtool_it_is_told_what_was_not_asked() -> None:
    queues = nic("wan0", 4, native_xdp=True)
    assert "NO_ETHTOOL" in codes(plan(world(machine(wan=queues, asked=False), sas(4)), config("wan: auto")))
    assert "NO_ETHTOOL" not in codes(plan(world(machine(asked=False), sas(4)), config("wan: auto")))
    assert "NO_ETHTOOL" not in codes(plan(world(machine(wan=queues), sas(4)), config("wan: auto")))


@pytest.mark.parametrize("side", ["wan", "lan"])
def test_rfs_is_explained(side: str) -> None:
    with pytest.raises(ConfigError, match=r"what a router forwards has no socket.*write rps"):
        config(f"{side}: rfs")


@pytest.mark.parametrize(
    ("queues", "more", "backend"),
    [
        (8, {}, Backend.XDP),
        (8, {"native_xdp": True}, Backend.XDP),
        (8, {"program": "xdp_dispatcher"}, Backend.NTUPLE),  # an eighth of the SAs is more than luck
        (64, {}, Backend.NTUPLE),
    ],
)
def test_auto_counts_a_nic_s_queues(queues: int, more: dict, backend: Backend) -> None:
    wan = nic("wan0", queues, rules={}, rss=rss(queues), **more)
    desired = plan(world(machine(64, wan=wan), sas(64)), config("wan: auto"))
    assert desired.steering.backends["wan0"] is backend
    assert ("FEW_QUEUES" in codes(desired)) is (backend is Backend.NTUPLE and queues < 64)


@pytest.mark.parametrize(("queues", "backend"), [(4, "rps"), (57, "rps"), (58, "rss"), (64, "rss")])
def test_on_the_lan_no_cpu_is_left_out_for_want_of_queues(queues: int, backend: str) -> None:
    lan = nic("lan0", queues, rss=rss(queues))
    desired = plan(world(machine(64, lan=lan), sas(64)), config("lan: auto"))
    assert desired.steering.backends["lan0"] == backend
    assert ("FEW_QUEUES" in codes(desired)) is (backend == "rss" and queues < 64)


def test_a_vlan_s_packets_are_spread_below_it_and_so_it_takes_the_program() -> None:
    devices = {name: nic(name, driver="802.1Q", lower=("eth0",)) for name in ("lan0", "wan0")}
    stacked = machine(lan=devices["lan0"], wan=devices["wan0"])
    desired = plan(world(stacked, sas(4)), config("wan: auto, lan: auto"))
    assert set(desired.steering.backends.values()) == {Backend.XDP}
    assert {knob.kind for knob in desired.knobs} == {KnobKind.XDP, KnobKind.FEATURE}
    (reason, _) = [
        each for each in plan(world(stacked, sas(4)), config("wan: rps, lan: rps")).reasons if each.code == "NO_BACKEND"
    ]
    assert "its packets come in by eth0, and are spread there" in reason.sentence


def test_a_device_that_is_not_here_is_told() -> None:
    gone = machine()
    gone = replace(gone, nics={"lan0": gone.nics["lan0"]})
    desired = plan(world(gone, sas(4)), config("wan: auto, lan: rps"))
    assert [each.object for each in desired.reasons if each.code == "NO_STEERED_DEVICE"] == ["steering.wan"]
    assert "NO_STEERED_DEVICE" not in codes(plan(world(machine(), sas(4)), config("wan: auto, lan: rps")))
