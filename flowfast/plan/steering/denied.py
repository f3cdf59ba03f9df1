"""What the kernel would not have when it was asked: `auto` goes on without it, and the plan says why."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from flowfast.model.knob import Denial, Knob, KnobKind
from flowfast.model.machine import Nic
from flowfast.model.reason import Reason
from flowfast.model.steering import GENERIC, Backend, Side

Denied = Mapping[Knob, Denial]
_KINDS = {Backend.NTUPLE: KnobKind.NTUPLE, Backend.RSS: KnobKind.RSS, Backend.XDP: KnobKind.XDP}


def by_driver(nic: Nic, denied: Denied) -> Denial | None:
    """Why the driver, which is known to run XDP programs, would not run ours here (an MTU, too few queues)."""
    found = denied.get(Knob(KnobKind.XDP, nic.name, "program"))
    return found if nic.native_xdp and found is not None and not found.value.startswith(GENERIC) else None


def as_it_is(nic: Nic, denied: Denied) -> Nic:
    """The device without what was found not to be."""
    return replace(nic, native_xdp=False) if by_driver(nic, denied) else nic


def denial(backend: Backend, nic: Nic, denied: Denied) -> Denial | None:
    """What was said when the device was asked for this backend; None: it took it, or was never asked."""
    for knob, said in sorted(denied.items()):
        if knob.object == nic.name and knob.kind is _KINDS.get(backend) and _matters(knob, said):
            return said
    return None


def _matters(knob: Knob, said: Denial) -> bool:
    """A hash has other fields to go by, and a program a place behind the driver."""
    if knob.kind is KnobKind.XDP:
        return said.value.startswith(GENERIC)
    return knob.kind is not KnobKind.RSS or knob.name == "indirection"


def passed_over(side: Side, order: Iterable[Backend], taken: Backend | None, nic: Nic, denied: Denied) -> list[Reason]:
    """A Reason for each backend before the one that was taken, which the device was thought to be able to."""
    reasons = []
    for backend in order:
        if backend is taken:
            break
        if said := denial(backend, nic, denied):
            instead = "nothing" if taken is None else str(taken)
            sentence = f"no steering by {backend}, which the kernel refused ({said.words}): {instead} does it instead"
            remedy = f"steering.{side}: {backend} asks again; so do a device made anew and `flowfast apply --remove`"
            reasons.append(Reason("BACKEND_REFUSED", nic.name, sentence, remedy))
    return reasons


def fixed(nic: Nic, denied: Denied) -> dict[int, Denial]:
    """The device's interrupts that the kernel would not move, by number: those that a driver has it manage."""
    irqs = {queue.irq for queue in nic.rx if queue.irq is not None}
    found = ((irq, denied.get(Knob(KnobKind.IRQ, str(irq), "smp_affinity_list"))) for irq in sorted(irqs))
    return {irq: said for irq, said in found if said is not None}
