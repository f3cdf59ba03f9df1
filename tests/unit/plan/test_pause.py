"""While a comparison has the router on the full path, that is said, and nothing is wrong with it."""

from dataclasses import replace

from flowfast.model.nftables import Ruleset
from flowfast.model.sa import Direction
from flowfast.model.snapshot import Snapshot, Traffic
from flowfast.model.state import CounterValue, RouterState
from flowfast.plan.health import health
from flowfast.plan.pause import BOTH, paused
from flowfast.plan.planner import plan
from flowfast.plan.ruleset import INET, PAUSED
from tests.unit.plan.router import as_read, config, policies, router


def at(state: RouterState, *, pause: bool) -> RouterState:
    """The router as it was planned, in a pause or not."""
    held = as_read(plan(state, config()).ruleset)
    table = held.tables[INET]
    elements = dict.fromkeys(BOTH, "") if pause else {}
    sets = dict(table.sets) | {PAUSED: replace(table.sets[PAUSED], elements=elements)}
    return replace(state, ruleset=Ruleset(dict(held.tables) | {INET: replace(table, sets=sets)}))


def codes(state: RouterState) -> set[str]:
    return {reason.code for reason in plan(state, config()).reasons}


def test_a_pause_is_a_reason_and_changes_no_plan() -> None:
    calm, pausing = (at(router(policies()), pause=pause) for pause in (False, True))
    assert not paused(calm.ruleset)
    assert paused(pausing.ruleset)
    assert "PAUSED" not in codes(calm)
    assert "PAUSED" in codes(pausing)
    assert plan(calm, config()).ruleset == plan(pausing, config()).ruleset


def test_traffic_on_the_full_path_is_no_fault_then() -> None:
    def look(octets: int, *, pause: bool) -> Snapshot:
        state = at(router(policies()), pause=pause)
        desired = plan(state, config())
        (path,) = desired.paths
        totals = {(path.tunnel.name, way): Traffic(octets, octets) for way in (Direction.IN, Direction.OUT)}
        slow = {f"{way}_{path.tunnel.slug}": CounterValue(1, octets) for way in ("in", "out")}
        return Snapshot(state, desired, full_path=slow, totals=totals, paused=paused(state.ruleset))

    assert health(look(0, pause=False), look(10_000_000, pause=False))
    assert not health(look(0, pause=True), look(10_000_000, pause=False))
    assert not health(look(0, pause=False), look(10_000_000, pause=True))
