"""The machine under the router: CPUs, and how each device's packets get to them. Observed only where steering is on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowfast.model.cpu import Cpu
from flowfast.model.knob import Denial, Knob

NO_CPUS: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Queue:
    """A receive queue: its interrupt and the CPUs that may take it, and the CPUs that RPS passes its packets to."""

    number: int
    irq: int | None = None
    irq_cpus: frozenset[int] = NO_CPUS
    rps: frozenset[int] = NO_CPUS

    @property
    def cpu(self) -> int | None:
        """The CPU that its packets arrive on, where there is just one."""
        return next(iter(self.irq_cpus)) if len(self.irq_cpus) == 1 else None

    @property
    def passed_to(self) -> int | None:
        """The CPU that RPS passes all its packets to, where there is just one."""
        return next(iter(self.rps)) if len(self.rps) == 1 else None


@dataclass(frozen=True, slots=True)
class Rss:
    """Receive side scaling: the indirection table (hash modulo its length -> queue), the Toeplitz key.

    `fields`: by kind of packet ("esp4", "udp6"), what is hashed: "src", "dst", "sport", "dport", "spi", or what no SA
    is told apart by.
    """

    table: tuple[int, ...]
    key: bytes | None = None
    fields: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Nic:
    """A device, as far as steering goes. `rules`: ntuple rules by location, in words; None: it takes none.

    `program`: the name of the XDP program on it. `native_xdp`: its driver is known to run one and pass packets on to
    cpumap. `spread`: what flowfast's own program has as its table of CPUs (None in a slot: it passes).
    """

    name: str
    driver: str | None = None
    node: int = 0
    rx: tuple[Queue, ...] = ()
    xps: tuple[frozenset[int], ...] = ()
    rss: Rss | None = None
    rules: Mapping[int, str] | None = None
    program: str | None = None
    native_xdp: bool = False
    unfinished: bool = False
    """Packets may come in with checksums that are not finished (CHECKSUM_PARTIAL), which an XDP frame cannot say."""
    lower: tuple[str, ...] = ()
    """Of a VLAN, a bond, a bridge: the devices by which its packets come in, and where the kernel spreads them."""
    spread: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """CPUs and devices. `balancer`: irqbalance runs, and moves interrupts as it likes."""

    cpus: tuple[Cpu, ...] = ()
    nics: Mapping[str, Nic] = field(default_factory=dict)
    balancer: bool = False
    esp_gro: bool = False
    """esp4_offload or esp6_offload is loaded: GRO decrypts, on the CPU that took the packet in, before any RPS."""
    xdp: bool = False
    """The steering program is compiled here, and libbpf is there to load it."""
    asked: bool = True
    """ethtool is there, by which NICs are asked for their rules and hashes."""
    refused: frozenset[int] = NO_CPUS
    """CPUs that asked for an SA and got none: what `flowfast run` found out, and every command must know."""
    denied: Mapping[Knob, Denial] = field(default_factory=dict)
    """Knobs of steering that the kernel would not turn when it was asked: every command plans without them."""

    @property
    def online(self) -> frozenset[int]:
        """CPUs that run."""
        return frozenset(cpu.number for cpu in self.cpus if cpu.online)
