"""advise(): features without which there is no fast path, or none for what arrives, as doctor says it first."""

from flowfast.model.reason import Reason, Severity
from flowfast.model.state import RouterState
from flowfast.plan.planner import GUARD_NEEDS, NEEDED


def advise(state: RouterState) -> list[Reason]:
    """Reasons from the features of a snapshot; how the router is set is judged by flowfast.plan.checks."""
    reasons = []
    for name in NEEDED:
        if not state.has(name) and (feature := state.features.get(name)) and feature.reason:
            given = feature.reason
            reasons.append(Reason(given.code, given.object, given.sentence, given.remedy, Severity.ERROR))
    for name in GUARD_NEEDS:
        if not state.has(name) and (feature := state.features.get(name)) and feature.reason and name not in NEEDED:
            reasons.append(feature.reason)
    return reasons
