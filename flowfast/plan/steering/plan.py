"""steer(): from CPUs, queues, interrupts and SAs to a place for each SA, and the knobs that bring it there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flowfast.config.steering import Choice
from flowfast.config.steering import Steering as Wanted
from flowfast.model.knob import Knob
from flowfast.model.machine import Machine
from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import SA, Direction
from flowfast.model.state import RouterState
from flowfast.model.steering import Backend, Placement, SaId, Side, Steering
from flowfast.model.tunnel import Tunnel
from flowfast.plan.steering import cpus as carriers
from flowfast.plan.steering.backend import choose
from flowfast.plan.steering.devices import Aim, Part, part, placed

NARROW = 64
"""Replay windows up to here lose packets where an SA's packets can overtake each other."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What steering adds to Desired. `steering` None: it is off, or there is nothing to steer."""

    steering: Steering | None = None
    knobs: Mapping[Knob, str] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()


def steer(
    state: RouterState,
    config: Wanted,
    tunnels: tuple[Tunnel, ...],
    devices: Mapping[Side, frozenset[str]],
) -> Plan:
    """Pure."""
    machine = state.machine
    if machine is None or not config.on:
        return Plan()
    wan = [machine.nics[name] for name in sorted(devices[Side.WAN]) if name in machine.nics]
    able = carriers.allowed(machine.cpus, config.chosen, wan[0].node if wan else 0)
    spds = (state.policies, *(spd.policies for spd in state.underlay.values()))
    policies = [policy for each in spds for policy in each if policy.direction is Direction.OUT]
    aims = carriers.targets(able, tunnels, policies, machine.refused)
    inbound = tuple(_inbound(tunnels))
    if not aims and not inbound:
        sentence = "no tunnel has an SA by CPU, so there is nothing to steer"
        remedy = "strongSwan 6.0.2: per_cpu_sas = yes and start_action = trap"
        return Plan(reasons=(Reason("NO_PCPU_SAS", "steering", sentence, remedy, Severity.INFO),))
    steerable = tuple((sa, cpu) for sa, cpu in inbound if cpu in machine.online)
    parts: dict[Side, list[Part]] = {Side.WAN: [], Side.LAN: []}
    reasons = [*_offline(inbound, machine)]
    facing = {name for side in Side for name in devices[side]}
    if not machine.asked and any(len(nic.rx) > 1 for name, nic in machine.nics.items() if name in facing):
        sentence = "it is not installed, so no NIC can be asked for rules or a hash: ntuple and rss are left out"
        reasons.append(Reason("NO_ETHTOOL", "ethtool", sentence, "apt install ethtool"))
    for side, choice in ((Side.WAN, config.wan), (Side.LAN, Choice(config.lan))):
        if choice is Choice.OFF:
            continue
        aim = Aim(side, aims, steerable, machine.online, pin=not machine.balancer, denied=machine.denied)
        here = [machine.nics[name] for name in sorted(devices[side]) if name in machine.nics]
        if not here:
            reasons.append(_nowhere(side))
        for nic in here:
            sought = (sa for sa, _ in steerable)
            backend, why = choose(choice.backend, side, machine, nic, sought, cpus=len(aim.reached))
            reasons += why
            if backend is not None:
                parts[side].append(part(nic, backend, aim))
    every = parts[Side.WAN] + parts[Side.LAN]
    reasons += [reason for made in every for reason in made.reasons]
    reasons += _balancer(every, machine)
    reasons += _decrypted_before_rps(parts[Side.WAN], machine)
    reasons += _narrow_windows(tunnels, parts[Side.WAN])
    return Plan(
        Steering(
            cpus=tuple(sorted(aims)),
            backends={made.device: made.backend for made in every},
            placements=tuple(_placements(tunnels, parts, machine)),
            tables=tuple(made.table for made in every if made.table is not None),
            reasons=tuple(sorted(reasons)),
        ),
        {knob: value for made in every for knob, value in made.knobs.items()},
        tuple(reasons),
    )


def _nowhere(side: Side) -> Reason:
    sentence = f"no {side.upper()} device with receive queues is here, so nothing is steered there"
    remedy = f"devices.{side}: the device that packets come in by; one in another network namespace is not for this one"
    return Reason("NO_STEERED_DEVICE", f"steering.{side}", sentence, remedy)


def _inbound(tunnels: Iterable[Tunnel]) -> Iterable[tuple[SA, int]]:
    for tunnel in tunnels:
        for sa in tunnel.inbound:
            if sa.pcpu is not None:
                yield sa, sa.pcpu


def _placements(tunnels: Iterable[Tunnel], parts: Mapping[Side, list[Part]], machine: Machine) -> Iterable[Placement]:
    """Every SA of a tunnel that has SAs by CPU. An outbound one is on its CPU by itself: the kernel takes it there."""
    lan = next(iter(parts[Side.LAN]), None)
    device, backend = (lan.device, lan.backend) if lan is not None else (None, None)
    for tunnel in tunnels:
        if not any(sa.pcpu is not None for sa in (*tunnel.inbound, *tunnel.outbound)):
            continue
        for sa in tunnel.outbound:
            at = sa.pcpu if sa.pcpu in machine.online else None
            yield Placement(SaId(tunnel.name, Direction.OUT, sa.spi), sa.pcpu, device, backend, cpu=at)
        for sa in tunnel.inbound:
            name = SaId(tunnel.name, Direction.IN, sa.spi)
            made, queue, cpu = placed(parts[Side.WAN], sa.spi) if sa.pcpu is not None else (None, None, None)
            if made is None:
                yield Placement(name, sa.pcpu)
                continue
            irqs = {each.number: each.irq for each in machine.nics[made.device].rx}
            irq = None if queue is None else irqs.get(queue)
            yield Placement(name, sa.pcpu, made.device, made.backend, queue, irq, cpu)


def _offline(inbound: Iterable[tuple[SA, int]], machine: Machine) -> Iterable[Reason]:
    for cpu in sorted({cpu for _, cpu in inbound} - machine.online):
        sentence = "it is offline, and has SAs: their packets go where they come in, and outbound to the fallback SA"
        yield Reason("CPU_OFFLINE", f"CPU {cpu}", sentence, f"echo 1 > /sys/devices/system/cpu/cpu{cpu}/online")


def _balancer(every: Iterable[Part], machine: Machine) -> Iterable[Reason]:
    """By XDP and RPS packets get to their CPUs wherever they come in; by RSS and ntuple they come in there."""
    devices = [made.device for made in every if made.backend in (Backend.RSS, Backend.NTUPLE)]
    if machine.balancer and devices:
        sentence = (
            f"it moves interrupts as it likes, so flowfast pins none of {', '.join(devices)}: what is in their queues "
            "gets to its CPU by RPS, which costs each packet another CPU's time"
        )
        yield Reason("IRQBALANCE", "irqbalance", sentence, "systemctl disable --now irqbalance")


def _decrypted_before_rps(wan: Iterable[Part], machine: Machine) -> Iterable[Reason]:
    for made in wan:
        by_rps = any(value for knob, value in made.knobs.items() if knob.name.endswith("rps_cpus"))
        if by_rps and machine.esp_gro:
            sentence = "esp4_offload is loaded: with GRO on this device packets are decrypted before RPS sees them"
            remedy = f"steering.wan: xdp; or ethtool -K {made.device} gro off"
            yield Reason("ESP_GRO", made.device, sentence, remedy)


def _narrow_windows(tunnels: Iterable[Tunnel], wan: list[Part]) -> Iterable[Reason]:
    """Figures: Tschofenig and Wouters 2026, late packets in 10 s of one SA spread over queues."""
    for tunnel in tunnels:
        windows = [
            sa.replay.window for sa in tunnel.inbound if 0 < sa.replay.window <= NARROW and _may_overtake(sa, wan)
        ]
        if windows:
            sentence = (
                f"a replay window of {min(windows)} packets, where packets may overtake each other, loses some "
                "(published: 55 026 in 10 s at 32, 29 069 at 128, 553 at 4096)"
            )
            yield Reason("REPLAY_WINDOW", tunnel.name, sentence, "strongSwan: replay_window = 1024 or more")


def _may_overtake(sa: SA, wan: list[Part]) -> bool:
    made, _, cpu = placed(wan, sa.spi)
    return made is None or sa.pcpu is None or cpu != sa.pcpu
