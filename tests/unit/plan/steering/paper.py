"""A machine on paper: CPUs, NICs, and tunnels with an SA for each CPU."""

from collections.abc import Iterable
from dataclasses import replace

from flowfast.config.load import parse
from flowfast.config.schema import Config
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.cpu import Cpu
from flowfast.model.machine import Machine, Nic, Queue, Rss
from flowfast.model.sa import SA, Direction, Encap
from flowfast.model.state import RouterState
from tests.unit.plan.router import PEER, US, policies, router

KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
"""Of Microsoft's "Verifying the RSS hash calculation"."""


def cpus(count: int, *, nodes: int = 1, smt: int = 1, offline: Iterable[int] = ()) -> tuple[Cpu, ...]:
    """CPUs as the kernel numbers them: the first siblings of all cores, then the second ones."""
    cores = count // smt
    return tuple(
        Cpu(number, number not in offline, number % cores * nodes // cores, 0, number % cores)
        for number in range(count)
    )


def nic(name: str, queues: int = 1, **more: object) -> Nic:
    """A NIC whose interrupts may go anywhere yet."""
    rx = tuple(Queue(n, 100 + n if queues > 1 else None, frozenset(range(4))) for n in range(queues))
    return replace(Nic(name, rx=rx), **more)


def rss(queues: int, *, spi: bool = True, size: int = 128) -> Rss:
    """A table that deals out queues in turn."""
    fields = {"src", "dst", "spi"} if spi else {"src", "dst"}
    kinds = {"esp4": frozenset(fields), "udp4": frozenset({"src", "dst", "sport", "dport"})}
    return Rss(tuple(n % queues for n in range(size)), KEY, kinds)


def sas(count: int, *, reqid: int = 1, first: int = 0, encap: bool = False, window: int = 1024) -> list[SA]:
    """Fallback SAs and `count` pairs, for CPUs from `first` on."""
    made = []
    for pcpu in (None, *range(first, first + count)):
        nth = 0 if pcpu is None else pcpu + 1
        for direction, src, dst, spi in ((Direction.OUT, US, PEER, 0x1000), (Direction.IN, PEER, US, 0x2000)):
            sa = make_sa(src=src, dst=dst, spi=spi + nth + 0x100000 * reqid, reqid=reqid, direction=direction)
            port = Encap(2, 4501 + nth, 4500) if encap else None
            made.append(sa._replace(pcpu=pcpu, encap=port, replay=sa.replay._replace(window=window)))
    return made


def world(machine: Machine, having: list[SA], *, acquire: bool = False, tunnels: tuple[int, ...] = (1,)) -> RouterState:
    """A router with that machine; `acquire`: policies by which a CPU without an SA asks for one."""
    spd = [policies(remote=f"10.{1 + reqid}.0.0/16", reqid=reqid) for reqid in tunnels]
    flagged = [tuple(policy._replace(flags=4 if acquire else 0) for policy in each) for each in spd]
    return replace(router(*flagged), sas=tuple(having), machine=machine)


def machine(count: int = 4, lan: Nic | None = None, wan: Nic | None = None, **more: object) -> Machine:
    """A machine with lan0 and wan0."""
    nics = {each.name: each for each in (lan or nic("lan0"), wan or nic("wan0"))}
    return replace(Machine(cpus(count), nics, xdp=True), **more)


def config(steering: str) -> Config:
    """A config with that steering section."""
    return parse(f"devices: {{lan: [lan0], wan: [wan0]}}\nsteering: {{{steering}}}\n", "test.yaml").config
