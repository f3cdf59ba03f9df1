"""What status, top, the exporter and the demo are rendered from: one moment of a router, with its counters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from flowfast.model.comparison import Comparison
from flowfast.model.desired import Desired
from flowfast.model.reason import Reason
from flowfast.model.sa import SA, Direction
from flowfast.model.state import CounterValue, Flow, RouterState
from flowfast.model.steering import Owner, Share


@dataclass(frozen=True, slots=True)
class Traffic:
    """Inner bytes (IP header included, ESP and outer header not) and packets as the SA counts them."""

    bytes: int
    packets: int


class ByPath(NamedTuple):
    """Inner bytes since counting began: on the flowtable, and on the full L3 path.

    `buffers`: packets as the router handled them before the flowtable, where one that GRO made of several counts once;
    None without precise accounting.
    """

    flowtable: int
    full: int
    buffers: int | None = None


@dataclass(frozen=True, slots=True)
class Reconciles:
    """What the controller did so far. Times in seconds since the epoch; None: not yet."""

    total: int = 0
    failed: int = 0
    changes: int = 0
    flushes: int = 0
    events_lost: int = 0
    last_success: float | None = None
    last_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State, plan and counters of one moment. `flows`: those on the flowtable; None: conntrack did not answer."""

    state: RouterState
    desired: Desired
    failures: tuple[Reason, ...] = ()
    full_path: Mapping[str, CounterValue] = field(default_factory=dict)
    """Named counters of table inet flowfast: what the forward chain saw, `out_<slug>` and `in_<slug>`."""
    before_flowtable: Mapping[str, CounterValue] = field(default_factory=dict)
    """Named counters of table netdev flowfast: the same names before the flowtable, if counted, and guards' drops."""
    flows: tuple[Flow, ...] | None = None
    slow_flows: tuple[Flow, ...] | None = None
    """Connections on the full L3 path; None: not asked for, or too many to ask for."""
    xfrm_errors: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Counters of /proc/net/xfrm_stat by network namespace: "" for this one."""
    totals: Mapping[tuple[str, Direction], Traffic] = field(default_factory=dict)
    """By tunnel name and direction (IN, OUT): accumulated over rekeys since counting began."""
    by_path: Mapping[tuple[str, Direction], ByPath] = field(default_factory=dict)
    """The same by path, where both are counted; from several snapshots (metrics/paths.py)."""
    ends_missed: int = 0
    """SAs that ended without the kernel telling their last counts: `totals` are too low by what they carried since."""
    reconciles: Reconciles = field(default_factory=Reconciles)
    paused: bool = False
    """True while `flowfast compare` has all traffic on the full path: then the forward chain does not count it."""
    comparison: Comparison | None = None
    """What the last `flowfast compare` found."""
    elsewhere: Mapping[Owner, Share] = field(default_factory=dict)
    """By SA of a CPU: packets that another CPU processed, while the witness looked. Empty where none looked."""
    fallback: Mapping[tuple[str, Direction], Share] = field(default_factory=dict)
    """By tunnel name and direction: packets on the fallback SAs since the last snapshot; of tunnels with SAs by CPU."""

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Every reason that holds now: the planner's and the failures of the last apply."""
        return tuple(sorted({*self.desired.reasons, *self.failures}))


FEW = 10_000
"""SAs that may be held for long, whole: 6 MB."""


def without_sas(snapshot: Snapshot, keep: Callable[[SA], bool] | None = None) -> Snapshot:
    """What may be held for long: the snapshot itself where it has few SAs, else without policies and SAs. 100 000 take
    60 MB, and the next ones are there before the last of these are gone. `keep`: with those SAs, and then of the
    tunnels just theirs.
    """
    state = snapshot.state
    if len(state.sas) + sum(len(spd.sas) for spd in state.underlay.values()) <= FEW:
        return snapshot
    paths = []
    for path in snapshot.desired.paths:
        tunnel = path.tunnel
        inbound: tuple[SA, ...] = ()
        outbound: tuple[SA, ...] = ()
        if keep is not None:
            inbound, outbound = tuple(filter(keep, tunnel.inbound)), tuple(filter(keep, tunnel.outbound))
        if keep is None or inbound or outbound:
            paths.append(replace(path, tunnel=replace(tunnel, inbound=inbound, outbound=outbound)))
    state = replace(state, sas=(), policies=(), underlay={})
    return replace(snapshot, state=state, desired=replace(snapshot.desired, paths=tuple(paths)))
