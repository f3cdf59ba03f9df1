"""Of steering, what is neither ruleset nor knob: the tables of the XDP programs, and what the kernel would not have."""

import errno
import logging
from collections.abc import Iterable

from flowfast.apply.knobs import Refusal
from flowfast.kernel.machine import Machines
from flowfast.kernel.xdp import Xdp
from flowfast.model.errors import KernelError
from flowfast.model.knob import Denial, KnobKind, Turn
from flowfast.model.machine import Machine
from flowfast.model.reason import Reason
from flowfast.model.steering import Steering

log = logging.getLogger(__name__)

LASTING = frozenset((KnobKind.NTUPLE, KnobKind.RSS, KnobKind.XDP, KnobKind.IRQ))
"""What a driver takes or does not: asked again, it would say the same."""


def fill(xdp: Xdp, steering: Steering) -> list[Reason]:
    """Has the programs hold their tables; returns what the kernel refused."""
    refused = []
    for table in steering.tables:
        try:
            xdp.fill(table)
        except KernelError as error:
            refused.append(Reason("NOT_STEERED", table.device, str(error), "see flowfast show steering"))
    return refused


def note(machines: Machines, known: Machine, turned: Iterable[Turn], refused: Iterable[Refusal]) -> bool:
    """Notes what was denied, for the next plan and every other process; True where it is news to the plan."""
    denied = dict(known.denied)
    for turn in turned:
        if turn.back:  # what was before flowfast is no answer to what it asks for
            continue
        # That the program runs behind the driver does not say that it would run in it.
        if turn.knob.kind is not KnobKind.XDP or (turn.knob in denied and denied[turn.knob].value == turn.value):
            denied.pop(turn.knob, None)
    for each in refused:
        # EBUSY is somebody else's XDP program: it is seen by itself as long as it is there.
        if each.turn.knob.kind in LASTING and not each.turn.back and each.error.code != errno.EBUSY:
            denied[each.turn.knob] = Denial(each.turn.value, str(each.error))
    if denied == known.denied:
        return False
    try:
        machines.deny(denied)
    except OSError as error:
        log.warning("what the kernel refused cannot be noted, and will be asked for again: %s", error)
        return False
    return True
