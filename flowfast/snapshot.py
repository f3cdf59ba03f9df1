"""look(): the counters and flows of one moment, beside the state and the plan: what status and metrics show."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from flowfast.compare.last import Last
from flowfast.kernel import Kernel
from flowfast.model.desired import Desired
from flowfast.model.errors import FlowfastError
from flowfast.model.reason import Reason
from flowfast.model.sa import Direction
from flowfast.model.snapshot import Reconciles, Snapshot, Traffic
from flowfast.model.state import Flow, RouterState
from flowfast.plan.pause import paused
from flowfast.plan.ruleset import INET, NETDEV

MANY = 20_000
"""Connections beyond which only those on the flowtable are asked for: the rest may be somebody else's millions."""
_TRACKED = "net.netfilter.nf_conntrack_count"


@dataclass(frozen=True, slots=True)
class History:
    """What only a running controller knows: totals over rekeys, and what it did."""

    totals: Mapping[tuple[str, Direction], Traffic] = field(default_factory=dict)
    reconciles: Reconciles = field(default_factory=Reconciles)
    ends_missed: int = 0


async def look(
    kernel: Kernel,
    state: RouterState,
    desired: Desired,
    failures: tuple[Reason, ...] = (),
    history: History | None = None,
    *,
    full: bool = False,
) -> Snapshot:
    """Reads the counters and the offloaded flows now. What does not answer is absent (None or empty), not an error.

    `full`: also what only metrics show: connections on the full path, if there are not too many, and XFRM's errors.
    """
    history = history or History()
    held = state.ruleset.tables
    slow = full and int(state.sysctls.get(_TRACKED) or 0) <= MANY
    # What goes in before what took the full path: read the other way round, a packet on the full path that came in
    # between would count for the flowtable, and no counter can take that back.
    before = await asyncio.to_thread(kernel.nft.counters, NETDEV) if NETDEV in held else {}
    full_path = await asyncio.to_thread(kernel.nft.counters, INET) if INET in held else {}
    flows = await _flows(kernel, offloaded=not slow)
    return Snapshot(
        state=state,
        desired=desired,
        failures=failures,
        full_path=full_path,
        before_flowtable=before,
        flows=flows and tuple(flow for flow in flows if flow.offloaded),
        slow_flows=tuple(flow for flow in flows if not flow.offloaded) if slow and flows is not None else None,
        xfrm_errors=_errors(kernel, state) if full else {},
        totals=history.totals,
        reconciles=history.reconciles,
        ends_missed=history.ends_missed,
        paused=paused(state.ruleset),
        comparison=Last().read(),
    )


def _errors(kernel: Kernel, state: RouterState) -> Mapping[str, Mapping[str, int]]:
    found = {netns: kernel.system.xfrm_statistics(netns) for netns in (None, *state.underlay)}
    return {netns or "": counters for netns, counters in found.items() if counters is not None}


async def _flows(kernel: Kernel, *, offloaded: bool) -> tuple[Flow, ...] | None:
    try:
        return tuple(await kernel.conntrack.flows(offloaded=offloaded))
    except FlowfastError:
        return None  # no conntrack here: its absence is a feature's Reason already
