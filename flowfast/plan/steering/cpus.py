"""Which CPUs carry SAs: those that the IKE daemon has SAs for, or will have as soon as a packet is there."""

from collections.abc import Iterable

from flowfast.model.cpu import Cpu
from flowfast.model.sa import Policy
from flowfast.model.tunnel import Tunnel

CPU_ACQUIRE = 4
"""XFRM_POLICY_CPU_ACQUIRE of xfrm_userpolicy_info.flags (linux/xfrm.h, 6.13): a CPU without an SA asks for one."""


def allowed(cpus: Iterable[Cpu], chosen: frozenset[int] | None, node: int) -> tuple[int, ...]:
    """CPUs that may work, best first: of the devices' NUMA node, one for each core before their SMT siblings.

    `chosen` by the operator: those that are online, isolated or not; else all that are online and not isolated.
    """
    able = [cpu for cpu in cpus if cpu.online and (cpu.number in chosen if chosen is not None else not cpu.isolated)]
    seen: dict[tuple[int, int], int] = {}
    ranked = []
    for cpu in sorted(able, key=lambda cpu: cpu.number):
        nth = seen[cpu.place] = seen.get(cpu.place, 0) + 1
        ranked.append((nth, cpu.node != node, cpu.number))
    return tuple(number for _, _, number in sorted(ranked))


def covered(tunnels: Iterable[Tunnel]) -> frozenset[int]:
    """CPUs with an outbound SA of their own in any tunnel."""
    return frozenset(sa.pcpu for tunnel in tunnels for sa in tunnel.outbound if sa.pcpu is not None)


def targets(
    able: tuple[int, ...], tunnels: Iterable[Tunnel], policies: Iterable[Policy], refused: frozenset[int]
) -> tuple[int, ...]:
    """CPUs that the LAN's flows go to: those with an SA, and those that will get one when a packet asks for it.

    `refused`: they asked, and got none (the peer allows fewer SAs than we have CPUs): what they take in would go out on
    the fallback SA. Without any SA by CPU, none.
    """
    have = covered(tunnels)
    if any(policy.flags & CPU_ACQUIRE for policy in policies):
        return tuple(cpu for cpu in able if cpu in have or cpu not in refused)
    return tuple(cpu for cpu in able if cpu in have)
