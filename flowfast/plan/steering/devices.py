"""One device's part of the plan: its knobs, its program's table, and the CPU that each SA's packets then get to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flowfast.model.cpu import cpu_list
from flowfast.model.knob import Denial, Knob, KnobKind
from flowfast.model.machine import Nic
from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import SA
from flowfast.model.steering import GENERIC, SLOTS, Backend, Side, Table
from flowfast.plan.steering import rss
from flowfast.plan.steering.backend import PROGRAM, native
from flowfast.plan.steering.denied import as_it_is, by_driver, fixed
from flowfast.plan.steering.share import share_out


@dataclass(slots=True)
class Part:
    """What one device contributes. `lands`: SPI -> (queue, CPU), where either is known."""

    device: str
    backend: Backend
    knobs: dict[Knob, str] = field(default_factory=dict)
    table: Table | None = None
    lands: dict[int, tuple[int | None, int | None]] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Aim:
    """What is to be reached: CPUs for flows, inbound SAs with their CPUs. `pin`: interrupts may be moved.

    `denied`: what the kernel would not have, and so is not counted on.
    """

    side: Side
    cpus: tuple[int, ...]
    sas: tuple[tuple[SA, int], ...]
    online: frozenset[int]
    pin: bool
    denied: Mapping[Knob, Denial] = field(default_factory=dict)

    @property
    def reached(self) -> tuple[int, ...]:
        """CPUs that packets are to get to, best first."""
        return tuple(sorted({cpu for _, cpu in self.sas})) if self.side is Side.WAN and self.sas else self.cpus


def part(nic: Nic, backend: Backend, aim: Aim) -> Part:
    """The plan for one device."""
    made = Part(nic.name, backend)
    by_hash = cpu_list(aim.cpus) if backend is Backend.RPS else ""
    for queue in nic.rx if not nic.lower else ():
        made.knobs[_rps(nic, queue.number)] = by_hash
    queues = _queues(nic, aim, made) if backend in (Backend.NTUPLE, Backend.RSS) else {}
    _transmit(nic, aim, made)
    match backend:
        case Backend.XDP:
            _xdp(nic, aim, made)
        case Backend.RSS if aim.side is Side.WAN:
            _rss(nic, aim, queues, made)
        case Backend.NTUPLE:
            _ntuple(nic, aim, queues, made)
        case Backend.RPS if aim.side is Side.WAN:
            _luck(aim, made)
    return made


def _rps(nic: Nic, queue: int) -> Knob:
    return Knob(KnobKind.DEVICE, nic.name, f"queues/rx-{queue}/rps_cpus")


def _queues(nic: Nic, aim: Aim, made: Part) -> dict[int, int]:
    """Each queue to one CPU: by its interrupt, or where that is not ours to move, by RPS to this CPU alone.

    Returns CPU -> the first queue that is its own.
    """
    wanted = aim.reached
    if not wanted:
        return {}
    if len(nic.rx) < len(wanted):
        made.reasons.append(_few_queues(nic, aim, len(wanted)))
    stay = fixed(nic, aim.denied) if aim.pin else {}
    ours = [aim.pin and queue.irq is not None and queue.irq not in stay for queue in nic.rx]
    had = [queue.cpu if moves else queue.passed_to for queue, moves in zip(nic.rx, ours, strict=True)]
    queues: dict[int, int] = {}
    for queue, moves, cpu in zip(nic.rx, ours, share_out(had, wanted), strict=True):
        queues.setdefault(cpu, queue.number)
        if moves:
            made.knobs[Knob(KnobKind.IRQ, str(queue.irq), "smp_affinity_list")] = str(cpu)
        else:
            made.knobs[_rps(nic, queue.number)] = str(cpu)
    if stay:
        sentence = (
            f"the kernel would not move {len(stay)} of its interrupts ({next(iter(stay.values())).words}): what is in "
            "their queues gets to its CPU by RPS, which costs each packet another CPU's time"
        )
        remedy = f"steering.{aim.side}: {'xdp' if aim.side is Side.WAN else 'rps'} needs none of them moved"
        made.reasons.append(Reason("IRQ_FIXED", nic.name, sentence, remedy, Severity.INFO))
    return queues


def _few_queues(nic: Nic, aim: Aim, cpus: int) -> Reason:
    count = len(nic.rx)
    what = "SAs of the others stay where they come in" if aim.side is Side.WAN else "flows reach no others"
    better = "xdp" if aim.side is Side.WAN else "rps"
    remedy = f"ethtool -L {nic.name} combined {cpus}, if it can have so many; or steering.{aim.side}: {better}"
    return Reason("FEW_QUEUES", nic.name, f"it has {count} queues for {cpus} CPUs: {what}", remedy)


def _transmit(nic: Nic, aim: Aim, made: Part) -> None:
    """XPS: a transmit queue for each CPU, shared evenly, so that a CPU's packets keep to one queue and their order."""
    if len(nic.xps) < 2 or nic.lower or not aim.pin:
        return
    cpus = sorted(aim.online)
    had = [next((n for n, mask in enumerate(nic.xps) if cpu in mask), None) for cpu in cpus]
    chosen = share_out(had, range(len(nic.xps)))
    for number in range(len(nic.xps)):
        mine = cpu_list(cpu for cpu, queue in zip(cpus, chosen, strict=True) if queue == number)
        made.knobs[Knob(KnobKind.DEVICE, nic.name, f"queues/tx-{number}/xps_cpus")] = mine


def _xdp(nic: Nic, aim: Aim, made: Part) -> None:
    if native(aim.side, as_it_is(nic, aim.denied)):
        made.knobs[Knob(KnobKind.XDP, nic.name, "program")] = PROGRAM[aim.side]
    else:
        _generic(nic, aim, made)
    if aim.side is Side.LAN:
        had = nic.spread or (None,) * SLOTS
        spread: tuple[int | None, ...] = share_out(had, aim.cpus) if aim.cpus else (None,) * SLOTS
        made.table = Table(nic.name, aim.cpus, spread=spread)
        return
    by_spi: dict[int, int] = {}
    twice = set()
    for sa, cpu in aim.sas:
        if by_spi.setdefault(sa.spi, cpu) != cpu:
            twice.add(sa.spi)
    sas = {spi: cpu for spi, cpu in by_spi.items() if spi not in twice}
    made.lands = {spi: (None, cpu) for spi, cpu in sas.items()}
    made.table = Table(nic.name, tuple(sorted(set(sas.values()))), sas=sas)
    for spi in sorted(twice):
        sentence = "two of our addresses have an SA of this SPI, on different CPUs: its packets are not steered"
        made.reasons.append(Reason("SPI_TWICE", f"0x{spi:08x}", sentence, "it lasts until one of them is rekeyed"))


def _generic(nic: Nic, aim: Aim, made: Part) -> None:
    """The program behind the driver. The kernel turns rx-gro-hw off for it, and not on again: so it is a knob, too."""
    made.knobs[Knob(KnobKind.FEATURE, nic.name, "rx-gro-hw")] = "off"
    made.knobs[Knob(KnobKind.XDP, nic.name, "program")] = GENERIC + PROGRAM[aim.side]
    if said := by_driver(nic, aim.denied):
        why = f"its driver would not have the program ({said.words})"
    elif nic.native_xdp:
        why = "packets come in with unfinished checksums, which a driver's XDP would lose"
    else:
        why = f"its driver ({nic.driver or 'none'}) is not known to run XDP itself"
    sentence = f"{why}, so the program runs behind the driver, which costs more than in it and is as exact"
    remedy = f"steering.{aim.side}: rps costs less{', and cannot choose the CPU' if aim.side is Side.WAN else ''}"
    made.reasons.append(Reason("XDP_GENERIC", nic.name, sentence, remedy, Severity.INFO))


def _rss(nic: Nic, aim: Aim, queues: dict[int, int], made: Part) -> None:
    assert nic.rss is not None  # noqa: S101 - what the backend was chosen for
    inbound = [sa for sa, _ in aim.sas]
    for hashed_kind in sorted(rss.widenable(nic.name, nic.rss, inbound, aim.denied)):
        made.knobs[rss.hash_knob(nic.name, hashed_kind)] = "sdfn"
    hashing = rss.widened(nic.name, nic.rss, inbound, aim.denied)
    blind = [sa for sa in inbound if not rss.tells_apart(hashing, sa)]
    if blind:
        kind = rss.kind_of(blind[0])
        sentence = f"it hashes {kind} by addresses alone, so all SAs of a peer are on one queue"
        refused = aim.denied.get(rss.hash_knob(nic.name, kind))
        if refused is not None:
            sentence += f", and its driver will not have it otherwise ({refused.words})"
        remedy = "steering.wan: xdp" + ("" if kind.startswith("udp") else "; or per_cpu_sas = encap (strongSwan)")
        made.reasons.append(Reason("RSS_BLIND", nic.name, sentence, remedy))
    _unknown_ports(aim, made)
    found = rss.fit(hashing, aim.sas, queues)
    made.knobs[Knob(KnobKind.RSS, nic.name, "indirection")] = ",".join(map(str, found.table))
    cpu_of = {queue: cpu for cpu, queue in queues.items()}
    for sa, _ in aim.sas:
        hashed = rss.hash_of(hashing, sa)
        queue = None if hashed is None else found.table[hashed % len(found.table)]
        made.lands[sa.spi] = (queue, None if queue is None else cpu_of.get(queue))
    for first, second in found.collisions:
        sentence = f"the SAs {rss.spis([first, second])} share a slot of its indirection table, and so a CPU"
        made.reasons.append(Reason("STEER_COLLISION", nic.name, sentence, "rekey one of them: its SPI is drawn anew"))


def _ntuple(nic: Nic, aim: Aim, queues: dict[int, int], made: Part) -> None:
    rules = dict(nic.rules or {})
    at = {text: location for location, text in rules.items()}
    free = (location for location in range(len(rules) + len(aim.sas)) if location not in rules)
    _unknown_ports(aim, made)
    for sa, cpu in aim.sas:
        queue = queues.get(cpu)
        if queue is None or rss.port_unknown(sa):
            continue
        text = rule(sa, queue)
        location = at[text] if text in at else next(free)
        made.knobs[Knob(KnobKind.NTUPLE, nic.name, str(location))] = text
        made.lands[sa.spi] = (queue, cpu)


def _unknown_ports(aim: Aim, made: Part) -> None:
    if count := sum(rss.port_unknown(sa) for sa, _ in aim.sas):
        sentence = (
            f"{count} SAs come in UDP from ports that the peer draws and tells nobody, so their queues cannot be chosen"
        )
        remedy = "steering.wan: xdp looks at the SPI inside"
        made.reasons.append(Reason("PORT_UNKNOWN", made.device, sentence, remedy))


def rule(sa: SA, queue: int) -> str:
    """An ntuple rule in words: "esp4 dst-ip 192.0.2.1 spi 0x1001 action 2"."""
    what = rss.kind_of(sa)
    # ethtool matches no SPI inside UDP: with encapsulation it is the port that tells SAs apart.
    ours = f"spi {sa.spi:#x}" if sa.encap is None else f"src-port {sa.encap.sport} dst-port {sa.encap.dport}"
    return f"{what} dst-ip {sa.dst} {ours} action {queue}"


def _luck(aim: Aim, made: Part) -> None:
    count, cpus = len(aim.sas), len(aim.cpus)
    if count < 2 or cpus < 2:
        return
    sentence = (
        f"RPS puts each SA on one CPU, but by a hash that nobody can foresee: {count} SAs reach "
        f"{rss.distinct(count, cpus):.1f} of {cpus} CPUs on average, and all of them with a chance of "
        f"{rss.all_apart(count, cpus):.1%}"
    )
    made.reasons.append(
        Reason("STEERED_BY_HASH", made.device, sentence, "steering.wan: xdp, or a NIC with ntuple rules", Severity.INFO)
    )


def placed(parts: Sequence[Part], spi: int) -> tuple[Part | None, int | None, int | None]:
    """(part, queue, CPU) of an inbound SA: of the device that is certain of it, else of the first."""
    for made in parts:
        if spi in made.lands and made.lands[spi][1] is not None:
            return made, *made.lands[spi]
    return (parts[0], *parts[0].lands.get(spi, (None, None))) if parts else (None, None, None)
