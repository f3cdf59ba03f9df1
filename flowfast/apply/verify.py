"""verify(): does the kernel hold what was asked? Answers with reasons; none means yes."""

from flowfast.model.desired import Desired
from flowfast.model.reason import Reason, Severity
from flowfast.model.state import RouterState
from flowfast.plan.diff import diff
from flowfast.plan.ruleset import FLOWTABLE, INET


def verify(desired: Desired, state: RouterState) -> list[Reason]:
    """Compares a fresh snapshot with what was wanted: the ruleset, its flags, and the hooks of every device."""
    reasons = [
        Reason(
            "NOT_HELD",
            "ruleset",
            f"the kernel does not hold what was committed: {step.what}",
            "another program may be changing table flowfast: nft monitor",
            Severity.ERROR,
        )
        for step in diff(desired.ruleset, state.ruleset)
    ]
    table = desired.ruleset.tables.get(INET)
    wanted = table.flowtables[FLOWTABLE].devices if table else frozenset()
    for device in sorted(wanted - state.hooked):
        if state.link(device) is None:
            continue  # it went away meanwhile; the next round plans without it
        reasons.append(
            Reason(
                "NOT_HOOKED",
                device,
                "the flowtable is not bound to this device, so its packets take the full path",
                f'look at "nft list hooks netdev device {device}"',
                Severity.ERROR,
            )
        )
    return reasons
