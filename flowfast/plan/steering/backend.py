"""Which backend a device gets: the one that is configured, if it can; else the most exact of those that it can."""

from collections.abc import Callable, Collection, Iterable, Mapping

from flowfast.model.machine import Machine, Nic
from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import SA
from flowfast.model.steering import Backend, Side
from flowfast.plan.steering.denied import Denied, as_it_is, denial, passed_over
from flowfast.plan.steering.rss import foresees, port_unknown, widened

PROGRAM = {Side.WAN: "flowfast_wan3", Side.LAN: "flowfast_lan3"}
"""Our programs (bpf/steer.bpf.c). The number counts up with each change of what they do."""
OURS = "flowfast_"
"""What the names of our programs begin with, in every version."""


BY_QUEUE = frozenset((Backend.NTUPLE, Backend.RSS))
"""What takes a queue for each CPU."""


def best_first(side: Side, nic: Nic, cpus: int) -> tuple[Backend, ...]:
    """What `auto` tries, in this order, for packets that are to reach so many CPUs."""
    if side is Side.LAN:  # XDP is for who asks for it: RPS knows its flows as well, and needs no program
        # RPS costs a tenth more a packet (docs/steering.md), and leaves no CPU out.
        enough = 10 * len(nic.rx) >= 9 * cpus
        return (*((Backend.RSS, Backend.RPS) if enough else (Backend.RPS, Backend.RSS)), Backend.XDP)
    order = [Backend.NTUPLE, Backend.XDP, Backend.RSS] if nic.native_xdp else [Backend.NTUPLE, Backend.RSS, Backend.XDP]
    if len(nic.rx) < cpus:
        order.sort(key=lambda backend: backend in BY_QUEUE)
    return (*order, Backend.RPS)


def _ntuple(machine: Machine, nic: Nic, side: Side) -> str | None:
    if nic.rules is None:
        return "its driver takes no ntuple rules (ethtool -K DEVICE ntuple on, if it has them at all)"
    return "it has one receive queue" if len(nic.rx) < 2 else None


def _rss(machine: Machine, nic: Nic, side: Side) -> str | None:
    if len(nic.rx) < 2:
        return "it has one receive queue (ethtool -L DEVICE combined N, if it can have more)"
    return "its driver has no indirection table" if nic.rss is None or not nic.rss.table else None


def _rps(machine: Machine, nic: Nic, side: Side) -> str | None:
    return None if nic.rx else "it has no receive queue that RPS could be set on"


def _xdp(machine: Machine, nic: Nic, side: Side) -> str | None:
    if not machine.xdp:
        return "the steering program is not compiled here, or libbpf is missing (make setup-xdp)"
    if nic.program is not None and not nic.program.startswith(OURS):
        return f"another XDP program is on it already ({nic.program})"
    return None


def native(side: Side, nic: Nic) -> bool:
    """Whether the program can run in the driver; a generic one has the stack's packets, with all that they say.

    A frame of the driver's says nothing of unfinished checksums. On the WAN it is no matter: ESP has finished what is
    in it.
    """
    return nic.native_xdp and not (side is Side.LAN and nic.unfinished)


_WHY_NOT: Mapping[Backend, Callable[[Machine, Nic, Side], str | None]] = {
    Backend.NTUPLE: _ntuple,
    Backend.RSS: _rss,
    Backend.RPS: _rps,
    Backend.XDP: _xdp,
}


def why_not(backend: Backend, side: Side, machine: Machine, nic: Nic) -> str | None:
    """Why this device cannot have this backend; None if it can."""
    if nic.lower and backend is not Backend.XDP:  # get_rps_cpu() is asked before a VLAN is looked at (net/core/dev.c)
        return f"its packets come in by {', '.join(nic.lower)}, and are spread there"
    return _WHY_NOT[backend](machine, nic, side)


def _inexact(nic: Nic, sas: Collection[SA], denied: Denied) -> frozenset[Backend]:
    """What would not bring each of these inbound SAs to its CPU, though the device has it."""
    found = set()
    if nic.rss is not None:
        rss = widened(nic.name, nic.rss, sas, denied)
        if not all(foresees(rss, sa) for sa in sas):
            found.add(Backend.RSS)
    if any(map(port_unknown, sas)):
        found.add(Backend.NTUPLE)
    return frozenset(found)


def choose(
    wanted: Backend | None, side: Side, machine: Machine, nic: Nic, sas: Iterable[SA] = (), *, cpus: int = 1
) -> tuple[Backend | None, list[Reason]]:
    """The backend for a device, `wanted` (None: the best there is for these inbound SAs and so many CPUs); and why not
    another one.

    Where `wanted` was refused by the kernel before, it is asked for once more.
    """
    nic = as_it_is(nic, machine.denied)
    if wanted is not None:
        refused = why_not(wanted, side, machine, nic)
        if refused is None:
            return wanted, []
        remedy = f"steering.{side}: auto takes what this device can"
        return None, [Reason("NO_BACKEND", nic.name, f"no steering by {wanted}: {refused}", remedy)]
    inexact = _inexact(nic, tuple(sas), machine.denied) if side is Side.WAN else frozenset()
    order = best_first(side, nic, cpus)
    able = (each for each in order if why_not(each, side, machine, nic) is None and each not in inexact)
    taken = next((each for each in able if denial(each, nic, machine.denied) is None), None)
    reasons = passed_over(side, order, taken, nic, machine.denied)
    if taken is None:
        reasons.append(Reason("NO_BACKEND", nic.name, "nothing here can steer its packets", severity=Severity.WARNING))
    return taken, reasons
