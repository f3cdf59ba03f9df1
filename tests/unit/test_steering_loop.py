"""Steering under the controller: knobs and tables follow, flows that are on the wrong SA are learnt anew."""

from pathlib import Path

import pytest

from flowfast.apply import knobs as apply_knobs
from flowfast.apply.knobs import KnobJournal, turn_back
from flowfast.kernel.knobs import FakeKnobs
from flowfast.kernel.machine import FakeMachine
from flowfast.kernel.witness import FakeWitness
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.kernel.xfrm.events import SaAdded
from flowfast.model.errors import Unavailable
from flowfast.model.knob import Knob, KnobKind
from flowfast.model.sa import SA, Direction
from tests.unit.plan.router import PEER, US
from tests.unit.plan.steering.paper import machine, nic
from tests.unit.test_controller import A, Bench

RPS = {name: Knob(KnobKind.DEVICE, name, "queues/rx-0/rps_cpus") for name in ("lan0", "wan0")}
PROGRAM = Knob(KnobKind.XDP, "wan0", "program")
BEFORE = {RPS["lan0"]: "", RPS["wan0"]: "", PROGRAM: "none"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(apply_knobs, "FOLDER", tmp_path)
    monkeypatch.setattr("flowfast.steering.LOOK_SECONDS", 0.01)
    return tmp_path


@pytest.fixture
def bench() -> Bench:
    made = Bench(A)
    made.settings = "loop: {debounce_ms: 1}\nsteering: {wan: xdp, lan: rps}"
    made.kernel.machine = FakeMachine(machine(wan=nic("wan0", native_xdp=True)))
    made.kernel.machine.wanted = True
    made.kernel.knobs = FakeKnobs(BEFORE)
    return made


def pair(pcpu: int | None) -> list[SA]:
    nth = 0 if pcpu is None else 1 + pcpu
    return [
        make_sa(US, PEER, 0x1000 + nth, pcpu=pcpu),
        make_sa(PEER, US, 0x2000 + nth, pcpu=pcpu, direction=Direction.IN),
    ]


async def install(bench: Bench, *sas: SA) -> None:
    """The IKE daemon installs SAs."""
    bench.kernel.xfrm.put(*sas)
    for sa in sas:
        bench.kernel.xfrm.emit(SaAdded(sa))


def steered(bench: Bench) -> dict[int, int]:
    table = bench.kernel.xdp.tables.get("wan0")
    return dict(table.sas) if table else {}


def test_the_map_follows_the_sas_and_flows_are_learnt_anew_once_for_each_cpu(bench: Bench) -> None:
    async def scenario(bench: Bench) -> None:
        await install(bench, *pair(None))
        await install(bench, *pair(0))
        await bench.until(lambda: steered(bench) == {0x2001: 0})
        await bench.until(lambda: bench.flushes() == 1)  # what began on the fallback SA would stay there
        await install(bench, *pair(1))
        await bench.until(lambda: steered(bench) == {0x2001: 0, 0x2002: 1})
        await bench.until(lambda: bench.flushes() == 2)
        # A rekey of CPU 1: the kernel moves its flows by itself.
        await install(bench, *(sa._replace(spi=sa.spi + 0x100) for sa in pair(1)))
        await bench.until(lambda: steered(bench) == {0x2001: 0, 0x2002: 1, 0x2102: 1})
        assert bench.flushes() == 2
        assert bench.kernel.knobs.values == {RPS["lan0"]: "0-1", RPS["wan0"]: "", PROGRAM: "flowfast_wan3"}

    bench.run(scenario)


def test_what_was_turned_is_turned_back_by_whoever_comes_after_a_crash(bench: Bench) -> None:
    async def scenario(bench: Bench) -> None:
        await install(bench, *pair(None), *pair(0), *pair(3))
        await bench.until(lambda: len(steered(bench)) == 2)
        assert bench.kernel.knobs.values[RPS["lan0"]] == "0,3"

    bench.run(scenario)
    turn_back(bench.kernel.knobs, KnobJournal())
    assert bench.kernel.knobs.values == BEFORE


def test_a_cpu_that_gets_no_sa_is_left_out_and_stays_so_over_a_restart(bench: Bench) -> None:
    bench.kernel.machine.refuse(frozenset({3}))
    for policy in A:
        bench.kernel.xfrm.put(policy._replace(flags=4))  # a CPU without an SA asks for one

    bench.kernel.xfrm.put(*pair(None), *pair(0), *pair(1))

    async def scenario(bench: Bench) -> None:
        await bench.until(lambda: len(bench.snapshots) > 3)
        assert bench.kernel.knobs.values[RPS["lan0"]] == "0-2"
        assert bench.kernel.machine.machine.refused == frozenset({3})

    bench.run(scenario, interval=0.05)


def test_a_cpu_that_asks_in_vain_is_noted_and_left_out(bench: Bench) -> None:
    for policy in A:
        bench.kernel.xfrm.put(policy._replace(flags=4))
    bench.kernel.xfrm.put(*pair(None), *pair(0), *pair(1), *pair(2))

    async def scenario(bench: Bench) -> None:
        await bench.until(lambda: bench.kernel.knobs.values[RPS["lan0"]] == "0-3")

        def given_up() -> bool:
            bench.kernel.xfrm.count(PEER, 0x1000, 10_000, 200)  # the fallback SA carries what CPU 3 takes in
            return bench.kernel.knobs.values[RPS["lan0"]] == "0-2"

        await bench.until(given_up)
        assert bench.kernel.machine.machine.refused == frozenset({3})

    bench.run(scenario, interval=0.05)


def test_an_outbound_sa_that_works_elsewhere_is_a_reason_and_flows_are_learnt_anew(bench: Bench) -> None:
    async def scenario(bench: Bench) -> None:
        await install(bench, *pair(None), *pair(0))
        await bench.until(lambda: len(steered(bench)) == 1)
        await bench.until(lambda: bench.flushes() == 1)  # for the first SA of CPU 0
        flushed = bench.flushes()
        bench.kernel.witness = FakeWitness({(Direction.OUT, 0x1001): {0: 50, 2: 950}})
        await bench.until(lambda: bench.flushes() > flushed)
        await bench.until(lambda: any(r.code == "STEERED_ELSEWHERE" for r in bench.snapshots[-1].reasons))
        (share,) = bench.snapshots[-1].elsewhere.values()
        assert share == (950, 1000)

    bench.run(scenario, interval=0.05)


def test_auto_goes_on_where_the_nic_refuses_its_rules_and_a_restart_knows_it(bench: Bench) -> None:
    bench.settings = bench.settings.replace("xdp", "auto")
    able = nic("wan0", 2, native_xdp=True, rules={})
    rules = {Knob(KnobKind.NTUPLE, "wan0", str(n)): "none" for n in range(4)}
    second = Knob(KnobKind.DEVICE, "wan0", "queues/rx-1/rps_cpus")
    before = {**BEFORE, **rules, second: ""}
    bench.kernel.machine = FakeMachine(machine(wan=able))
    bench.kernel.machine.wanted = True
    bench.kernel.knobs = knobs = FakeKnobs(before)
    knobs.refuse = {Knob(KnobKind.NTUPLE, "wan0", "1")}  # the first one it takes

    async def scenario(bench: Bench) -> None:
        await install(bench, *pair(None), *pair(0), *pair(1))
        await bench.until(lambda: steered(bench) == {0x2001: 0, 0x2002: 1})
        await bench.until(lambda: any(r.code == "BACKEND_REFUSED" for r in bench.snapshots[-1].reasons))
        assert knobs.values[PROGRAM] == "flowfast_wan3"
        assert {knobs.values[rule] for rule in rules} == {"none"}

    bench.run(scenario)
    turned = len(knobs.turned)

    async def again(bench: Bench) -> None:
        await bench.until(lambda: len(bench.snapshots) > 2)
        assert len(knobs.turned) == turned

    bench.run(again, interval=0.05)
    turn_back(knobs, KnobJournal())
    assert knobs.values == before


def test_that_nobody_can_look_is_a_reason(bench: Bench) -> None:
    def no_btf() -> None:
        raise Unavailable("witness: no BTF")

    bench.kernel.witness = no_btf  # type: ignore[assignment]
    bench.kernel.xfrm.put(*pair(None), *pair(0))

    async def scenario(bench: Bench) -> None:
        await bench.until(lambda: any(r.code == "NO_WITNESS" for r in bench.snapshots[-1].reasons))
        assert bench.snapshots[-1].elsewhere == {}

    bench.run(scenario, interval=0.05)
