"""All flows off the flowtable, and kept off for a while: how `flowfast compare` puts the router on the full L3 path.

A set in our table says so, by address family, with elements that the kernel itself takes out after their time (nft's
`timeout`): whatever becomes of the program that put them there, the fast path comes back. Nobody has to be alive.
"""

from flowfast.model.nftables import Element, Ruleset
from flowfast.model.reason import Reason, Severity
from flowfast.model.transaction import AddTimed, Command, DeleteElements
from flowfast.plan.diff import flush_flows
from flowfast.plan.ruleset import INET, PAUSED

PAUSED_NOW = Reason(
    "PAUSED",
    "compare",
    "flowfast compare has every connection on the full path now",
    "nothing to do: the kernel itself ends this in seconds",
    Severity.INFO,
)

BOTH: tuple[Element, ...] = (("ipv4",), ("ipv6",))


def pause(ruleset: Ruleset, seconds: float) -> list[Command]:
    """One transaction: no flow goes on the flowtable for so long, and those that are on it leave.

    `ruleset` is what the kernel holds, with the text of its rules (see flush_flows).
    """
    return [AddTimed(INET, PAUSED, BOTH, seconds), *flush_flows(ruleset)]


def resume() -> list[Command]:
    """Ends a pause before its time; flows come back with their next packets. The kernel refuses it (ENOENT) after."""
    return [DeleteElements(INET, PAUSED, dict.fromkeys(BOTH, ""))]


def can_pause(ruleset: Ruleset) -> bool:
    """Whether this ruleset knows of pauses; one of an older flowfast does not."""
    return INET in ruleset.tables and PAUSED in ruleset.tables[INET].sets


def paused(ruleset: Ruleset) -> bool:
    """Whether flows are kept off the flowtable now, by a ruleset that was read."""
    return can_pause(ruleset) and bool(ruleset.tables[INET].sets[PAUSED].elements)
