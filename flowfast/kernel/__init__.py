"""The only code that talks to the kernel: one subsystem a file, each with a Fake beside it.

The protocols below are all that the rest of flowfast sees; `Kernel` holds one of each. The real ones are made by
`real_kernel()` (kernel/real.py), the fakes, which need no root, by `FakeKernel()` (kernel/fake.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flowfast.kernel.events import Events
from flowfast.model.link import Link
from flowfast.model.nftables import Flowtable, Ruleset, Table
from flowfast.model.nic import Nic
from flowfast.model.state import CounterValue, Feature, Flow
from flowfast.model.transaction import Command

if TYPE_CHECKING:
    from flowfast.kernel.arrivals import Arrivals
    from flowfast.kernel.features import Bulk
    from flowfast.kernel.knobs import Knobs
    from flowfast.kernel.machine import Machines
    from flowfast.kernel.witness import Witness
    from flowfast.kernel.xdp import Xdp
    from flowfast.kernel.xfrm import Xfrm


@dataclass(frozen=True, slots=True)
class NewGeneration:
    """Somebody committed an nftables transaction: the new generation and who made it; all None: events were lost.

    `pid` is the committing thread's, as the init pid namespace numbers it, so that it must not be compared with
    os.getpid(); `own` says for certain whether the transaction was this Nft's.
    """

    generation: int | None
    pid: int | None
    process: str | None
    own: bool = False


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """A device appeared, vanished, or changed (name, MTU, state, address). `link` None: events were lost."""

    link: str | None
    gone: bool = False


class Nft(Protocol):
    """The nftables ruleset, through libnftables; hooks and flags, which its JSON does not give, over netlink."""

    with_hardware: bool
    """Whether takes_flows() is worth asking: for configs that want flows in NICs."""

    def commit(self, commands: Sequence[Command]) -> None:
        """Does all of it in one batch or nothing. Raises KernelError with nft's own line."""

    def check(self, commands: Sequence[Command]) -> None:
        """The same as a dry run: asks the kernel, changes nothing. Raises KernelError."""

    def read(self, tables: Iterable[Table]) -> Ruleset:
        """What the kernel holds of these tables. A rule's text is `ff:<hash>` of its comment, or "?" without one."""

    def counters(self, table: Table) -> Mapping[str, CounterValue]:
        """Every named counter of the table."""

    def hooked(self, table: Table, flowtable: Flowtable) -> frozenset[str]:
        """Devices among the flowtable's on whose ingress hook it really stands."""

    def takes_flows(self, links: Iterable[Link]) -> frozenset[str]:
        """Devices whose driver takes flowtables with `flags offload`, tried once for each in a dry run."""

    def foreign(self) -> str:
        """The text of every table but ours, without counters' values: to prove that none was touched."""

    def generation(self) -> int:
        """The ruleset's generation: changes with every transaction of anybody."""

    def changes(self) -> Events[NewGeneration]:
        """Each transaction, as it is committed, our own included (`own` tells); listening as soon as it returns."""


class Links(Protocol):
    """Network devices, over rtnetlink."""

    with_features: bool
    """Whether to ask each device for its ethtool features, too: some calls for each, for configs that need them."""

    async def links(self) -> tuple[Link, ...]:
        """All devices of this network namespace, with their addresses."""

    def changes(self) -> Events[LinkChanged]:
        """Each change, as it happens; listening as soon as it returns."""


class Nics(Protocol):
    """What devices can take off the CPU, over ethtool netlink and devlink."""

    async def nics(self, links: Iterable[Link]) -> tuple[Nic, ...]:
        """Those of `links` that can offload IPsec, switched on or not."""


class Conntrack(Protocol):
    """The connection tracking table, over ctnetlink."""

    async def flows(self, *, offloaded: bool = False) -> list[Flow]:
        """All tracked connections, or only those with IPS_OFFLOAD (filtered by the kernel where it can, 5.15)."""

    async def delete(self, flow: Flow) -> bool:
        """Forgets one connection: takes its flow off the flowtable. False where it was gone already."""


class System(Protocol):
    """sysctls, modules, who we are."""

    def sysctl(self, name: str) -> str | None:
        """The value of `net.ipv4.ip_forward`; None where this kernel has none of that name."""

    def set_sysctl(self, name: str, value: str) -> None:
        """Writes it. Raises KernelError."""

    def modules(self) -> frozenset[str]:
        """The modules that are loaded now."""

    def load_module(self, name: str) -> bool:
        """Loads it by modprobe; False where there is none."""

    def privileged(self) -> bool:
        """True with CAP_NET_ADMIN in this network namespace."""

    def release(self) -> str:
        """The kernel's release (uname -r)."""

    def xfrm_statistics(self, netns: str | None = None) -> Mapping[str, int] | None:
        """Every counter of /proc/net/xfrm_stat, here or in a network namespace; None where the kernel has none."""


class Probe(Protocol):
    """What this kernel can do, found out by trying."""

    async def features(self) -> Mapping[str, Feature]:
        """Every feature of `FEATURES` (kernel/probe.py), present or with the Reason why not."""


@dataclass(slots=True)
class Kernel:
    """One of each, as the controller holds them."""

    xfrm: "Xfrm"
    nft: Nft
    links: Links
    nics: Nics
    conntrack: Conntrack
    system: System
    probe: Probe
    knobs: "Knobs"
    bulk: "Bulk"
    arrivals: "Arrivals"
    machine: "Machines"
    xdp: "Xdp"
    witness: "Callable[[], AbstractContextManager[Witness]]"
    """`with kernel.witness() as seen`: on which CPUs packets of each SA are processed while it lasts."""
    xfrm_in: "Callable[[str], AbstractAsyncContextManager[Xfrm]]"
    """`async with kernel.xfrm_in(netns) as xfrm`: SAs and policies of another network namespace, by name or path."""
