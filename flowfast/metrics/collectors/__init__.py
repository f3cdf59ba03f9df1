"""One collector a file: metric families from a snapshot."""

from collections.abc import Mapping

from flowfast.metrics.collectors import (
    bulk,
    comparison,
    excluded,
    features,
    guard,
    lifetimes,
    reasons,
    reconcile,
    steering,
    tunnels,
    xfrm,
)
from flowfast.metrics.collectors.flows import Flows
from flowfast.metrics.collectors.nics import Nics
from flowfast.metrics.collectors.sas import LIMIT, Sas
from flowfast.metrics.registry import Collect


def collectors(*, per_sa: bool = False, sa_limit: int = LIMIT) -> Mapping[str, Collect]:
    """All that render snapshots, by name. `per_sa`: also series for each of the busiest `sa_limit` SAs."""
    found: dict[str, Collect] = {"tunnels": tunnels.collect, "lifetimes": lifetimes.collect}
    if per_sa:
        found["sas"] = Sas(sa_limit).collect
    return found | {
        "flows": Flows().collect,
        "features": features.collect,
        "reasons": reasons.collect,
        "guard": guard.collect,
        "excluded": excluded.collect,
        "xfrm": xfrm.collect,
        "nics": Nics().collect,
        "reconcile": reconcile.collect,
        "comparison": comparison.collect,
        "steering": steering.collect,
        "bulk": bulk.collect,
    }
