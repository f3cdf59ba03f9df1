"""What a plan of 10 000 tunnels costs: in work and memory, which are the same on a busy machine."""

import cProfile
import pstats
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

from flowfast import bench
from flowfast.bench import CONFIG
from flowfast.model.nftables import Chain
from flowfast.plan.diff import diff
from flowfast.plan.pairs import FEW
from flowfast.plan.planner import plan
from flowfast.plan.ruleset import INET, NETDEV
from tests.unit.pace import growth
from tests.unit.plan.router import IPSEC, LAN, WAN, as_read, policies, router

MANY = 10_000
MEGABYTE = 1_000_000

hub = cache(bench.hub)

# The three calls of `flowfast plan`, in a process of its own, whose resident memory at its peak it prints.
PROCESS = f"""
import asyncio, re
from flowfast.bench import CONFIG, fake_hub
from flowfast.model.nftables import Ruleset
from flowfast.model.transaction import transaction_text
from flowfast.observe import observe
from flowfast.plan.diff import diff
from flowfast.plan.pairs import FEW
from flowfast.plan.planner import plan

async def main():
    kernel = fake_hub({MANY})
    state = await observe(kernel, await kernel.probe.features())
    steps = diff(plan(state, CONFIG).ruleset, Ruleset())
    assert len(transaction_text([c for step in steps for c in step.commands])) > 1_000_000

asyncio.run(main())
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024)
"""


def test_a_plan_of_ten_thousand_tunnels_takes_no_longer_each_than_one_of_one_thousand() -> None:
    def work(tunnels: int) -> Callable[[], object]:
        state = hub(tunnels)
        return lambda: plan(state, CONFIG)

    assert growth(work, 1_000, MANY) < 3


def test_a_plan_does_little_for_each_tunnel() -> None:
    """Calls of functions, which no load of the machine changes."""
    state = hub(MANY)
    profile = cProfile.Profile()
    desired = profile.runcall(plan, state, CONFIG)
    assert sum(path.tx.fast for path in desired.paths) == MANY
    assert pstats.Stats(profile).total_calls < 150 * MANY  # type: ignore[attr-defined]


def test_a_plan_of_ten_thousand_tunnels_stays_small() -> None:
    state = hub(MANY)
    tracemalloc.start()
    try:
        desired = plan(state, CONFIG)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(desired.paths) == MANY
    assert peak < 50 * MEGABYTE


def test_flowfast_plan_of_ten_thousand_tunnels_stays_under_150_megabytes() -> None:
    ran = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 150 * MEGABYTE


def test_interfaces_make_no_rules_either() -> None:
    def chains(tunnels: int) -> Mapping[str, Chain]:
        links = [replace(IPSEC, ifindex=9 + n, name=f"ipsec{n}", xfrm_if_id=n) for n in range(1, tunnels + 1)]
        spd = [policies(remote=f"10.2.{n}.0/24", reqid=n, if_id=n) for n in range(1, tunnels + 1)]
        return plan(router(*spd, links=(LAN, WAN, *links)), CONFIG).ruleset.tables[INET].chains

    rules = [sum(len(chain.rules) for chain in chains(tunnels).values()) for tunnels in (1, 200)]
    assert rules[0] == rules[1]


def test_the_rules_are_the_same_for_two_tunnels_and_for_ten_thousand() -> None:
    """What grows are sets and maps; no packet meets more rules."""
    two, many = (plan(hub(tunnels), CONFIG).ruleset for tunnels in (2, MANY))
    assert diff(many, as_read(many)) == []
    for table in (INET, NETDEV):
        rules = [{name: len(chain.rules) for name, chain in each.tables[table].chains.items()} for each in (two, many)]
        assert rules[0] == rules[1]
        assert not any(each.interval and len(each.elements) > FEW for each in many.tables[table].sets.values())
