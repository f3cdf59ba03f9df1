"""What became of the plan: packets elsewhere, the fallback SA's share, flows that must be learnt anew."""

from dataclasses import replace

from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.desired import Desired
from flowfast.model.machine import Machine
from flowfast.model.reason import Reason
from flowfast.model.sa import SA, Direction
from flowfast.model.snapshot import Snapshot
from flowfast.model.steering import Owner, Share
from flowfast.plan.planner import plan
from flowfast.plan.steering.verify import AGAIN, Patience, elsewhere, fallback, frozen, misplaced, on_fallback
from tests.unit.plan.router import PEER, US
from tests.unit.plan.steering.paper import config, cpus, machine, nic, sas, world


def carrying(having: list[SA], packets: dict[int | None, int], direction: Direction = Direction.OUT) -> list[SA]:
    """The SAs with so many packets, by CPU."""
    return [
        sa._replace(counters=sa.counters._replace(packets=packets.get(sa.pcpu, 0))) if sa.direction is direction else sa
        for sa in having
    ]


def snapshot(having: list[SA], made: Machine | None = None, *, steering: str = "wan: xdp, lan: rps") -> Snapshot:
    state = world(made or machine(wan=nic("wan0", native_xdp=True)), having, acquire=True)
    return Snapshot(state, plan(state, config(steering)))


def test_packets_on_another_cpu_are_found_by_sa() -> None:
    desired = snapshot(sas(2)).desired
    spi = {place.pcpu: place.sa.spi for place in desired.steering.placements if place.sa.direction is Direction.IN}
    seen = {
        (Direction.IN, spi[0]): {0: 990, 1: 10},
        (Direction.IN, spi[1]): {0: 300, 1: 700},
        (Direction.IN, spi[None]): {0: 5, 1: 5},
        (Direction.OUT, spi[1]): {3: 100},  # of some other router on this machine
    }
    shares = elsewhere(desired.steering, seen)
    name = desired.paths[0].tunnel.name
    assert shares == {
        Owner(name, Direction.IN, 0): Share(10, 1000),
        Owner(name, Direction.IN, 1): Share(300, 1000),
    }
    (reason,) = misplaced(shares)
    assert reason.object == f"{name} cpu 1 in"
    assert reason.sentence.startswith("30% of what went in on the SA of CPU 1")


def test_a_few_packets_say_nothing() -> None:
    assert misplaced({Owner("t", Direction.IN, 0): Share(9, 9)}) == []
    assert Share(0, 0).ratio is None


def reason_of(fallback_packets: int, others: int) -> list[Reason]:
    before = snapshot(carrying(sas(4), {}))
    now = snapshot(carrying(sas(4), {None: fallback_packets, 0: others}))
    return on_fallback(fallback(before, now))


def test_the_share_of_the_fallback_sa_is_alarmed_on() -> None:
    (reason,) = reason_of(50, 950)
    assert reason.code == "FALLBACK_SA"
    assert reason.sentence.startswith("5% of what went out")
    assert reason_of(9, 991) == []
    assert reason_of(50, 100) == []


def test_a_tunnel_without_sas_by_cpu_has_no_fallback() -> None:
    assert fallback(snapshot(sas(0)), snapshot(carrying(sas(0), {None: 5000}))) == {}


def test_flows_are_learnt_anew_when_a_cpu_gets_its_first_sa_and_not_at_a_rekey() -> None:
    two, three = snapshot(sas(2)), snapshot(sas(3))
    assert frozen(two, three)
    assert not frozen(three, three)
    assert not frozen(three, two)
    rekeyed = [sa._replace(spi=sa.spi + 0x500) for sa in sas(3)]
    assert not frozen(three, snapshot([*sas(3), *rekeyed]))
    assert not frozen(three, snapshot(rekeyed))


def test_flows_are_learnt_anew_when_they_move() -> None:
    whole = machine()
    less = replace(whole, cpus=cpus(4, offline=[3]))
    assert frozen(snapshot(sas(4), whole, steering="lan: rps"), snapshot(sas(4), less, steering="lan: rps"))


def test_a_cpu_that_asks_in_vain_is_given_up_and_only_then() -> None:
    patience, carried = Patience(), 0
    before = snapshot(carrying(sas(2), {}))
    for expected in (frozenset(), frozenset(), frozenset({2, 3})):
        carried += 200
        now = snapshot(carrying(sas(2), {None: carried}))
        assert patience.look(before, now) == expected
        before = now
    # They ask no more, and after an hour again.
    assert [patience.look(before, before) for _ in range(AGAIN)] == [frozenset({2, 3})] * AGAIN
    assert patience.look(before, before) == frozenset()
    # Nothing on the fallback SA: nobody asks, and nobody is refused.
    quiet = Patience()
    assert all(quiet.look(before, before) == frozenset() for _ in range(9))
    # What an earlier process found out holds, until the tunnel goes down: then all may ask again.
    later, known = Patience(), snapshot(sas(2), machine(refused=frozenset({3})))
    assert later.look(known, known) == frozenset({3})
    assert later.look(known, snapshot(sas(0))) == frozenset()
    assert later.look(known, known) == frozenset()


def test_a_cpu_for_which_the_kernel_waits_in_vain_is_given_up() -> None:
    larval = make_sa(US, PEER, 0, pcpu=3, algorithm=None)
    patience, now = Patience(), snapshot([*sas(2), larval])
    assert [patience.look(now, now) for _ in range(3)] == [frozenset(), frozenset(), frozenset({3})]


def test_without_steering_nothing_is_judged() -> None:
    state = world(machine(), sas(4))
    assert not frozen(Snapshot(state, Desired()), Snapshot(state, Desired()))
