"""look(): the counters and flows of one moment, beside the state and the plan: what status and metrics show."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowfast.kernel import Kernel
from flowfast.model.desired import Desired
from flowfast.model.errors import FlowfastError
from flowfast.model.reason import Reason
from flowfast.model.sa import Direction
from flowfast.model.snapshot import Reconciles, Snapshot, Traffic
from flowfast.model.state import Flow, RouterState
from flowfast.plan.ruleset import INET, NETDEV


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
) -> Snapshot:
    """Reads the counters and the offloaded flows now. What does not answer is absent (None or empty), not an error."""
    history = history or History()
    held = state.ruleset.tables
    return Snapshot(
        state=state,
        desired=desired,
        failures=failures,
        full_path=kernel.nft.counters(INET) if INET in held else {},
        before_flowtable=kernel.nft.counters(NETDEV) if NETDEV in held else {},
        flows=await _offloaded(kernel),
        totals=history.totals,
        reconciles=history.reconciles,
        ends_missed=history.ends_missed,
    )


async def _offloaded(kernel: Kernel) -> tuple[Flow, ...] | None:
    try:
        return tuple(await kernel.conntrack.flows(offloaded=True))
    except FlowfastError:
        return None  # no conntrack here: its absence is a feature's Reason already
