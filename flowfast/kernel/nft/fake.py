"""A ruleset in memory that takes the commands as the kernel does: all or nothing, with the same errors."""

import errno
import os
from collections.abc import Iterable, Mapping, Sequence

from flowfast.kernel import NewGeneration
from flowfast.kernel.events import Events, FakeSource
from flowfast.kernel.nft.memory import Memory, refused
from flowfast.model.link import Link
from flowfast.model.nftables import Flowtable, Ruleset, Table
from flowfast.model.state import CounterValue
from flowfast.model.transaction import AddChain, AddFlowtable, Command


class FakeNft:
    """Stands in for RealNft, without root.

    `devices`: those that exist (None: any name does). `name_binding`: False for a kernel before 6.16, where a flowtable
    or a netdev chain needs its devices to exist, and loses them with them.
    """

    def __init__(self, *, devices: Iterable[str] | None = None, name_binding: bool = True) -> None:
        self.committed: list[tuple[Command, ...]] = []
        """Every transaction that was committed, in order."""
        self.fail: Exception | None = None
        """Raised by the next commit(), once, instead of doing it."""
        self.foreign_text = ""
        self.with_hardware = False
        self.hardware: set[str] = set()
        """Devices whose driver takes flows."""
        self._devices = None if devices is None else set(devices)
        self._name_binding = name_binding
        self._memory = Memory()
        self._values: dict[tuple[Table, str], CounterValue] = {}
        self._generation = 1
        self._changes: FakeSource[NewGeneration] = FakeSource()

    # what an Nft does

    def commit(self, commands: Sequence[Command]) -> None:
        """Does all of it or nothing. Raises KernelError with the kernel's errno."""
        if self.fail is not None:
            failure, self.fail = self.fail, None
            raise failure
        if not commands:
            return
        self._memory = self._tried(commands)
        self.committed.append(tuple(commands))
        self._advance(os.getpid(), "flowfast", own=True)

    def check(self, commands: Sequence[Command]) -> None:
        """The same without doing it."""
        self._tried(commands)

    def read(self, tables: Iterable[Table]) -> Ruleset:
        """What is held of these tables; rules as their hashes, "?" for a foreign one."""
        return Ruleset({table: self._memory.state(table) for table in tables if self._memory.has(table)})

    def counters(self, table: Table) -> Mapping[str, CounterValue]:
        """Every named counter of the table."""
        if not self._memory.has(table):
            return {}
        return {name: self._values.get((table, name), CounterValue(0, 0)) for name in self._memory.counters(table)}

    def hooked(self, table: Table, flowtable: Flowtable) -> frozenset[str]:
        """The flowtable's devices that exist."""
        held = self._memory.flowtable(table, flowtable.name)
        return frozenset() if held is None else frozenset(filter(self._exists, held.devices & flowtable.devices))

    def takes_flows(self, links: Iterable[Link]) -> frozenset[str]:
        """Those of `hardware` that are there."""
        return frozenset(link.name for link in links if link.name in self.hardware)

    def foreign(self) -> str:
        """The text that a test has set."""
        return self.foreign_text

    def generation(self) -> int:
        """Counts transactions."""
        return self._generation

    def changes(self) -> Events[NewGeneration]:
        """Each transaction from now on."""
        return self._changes.listen()

    # what others do, for tests

    def foreign_change(self, text: str | None = None, *, pid: int = 4242, process: str = "nft") -> None:
        """The operator commits a transaction of his own; `text` is what foreign() says from then on."""
        if text is not None:
            self.foreign_text = text
        self._advance(pid, process, own=False)

    def foreign_rule(self, table: Table, chain: str) -> None:
        """The operator appends a rule to a chain of ours."""
        self._memory = self._memory.copy()
        self._memory.add_foreign_rule(table, chain)
        self._advance(4242, "nft", own=False)

    def foreign_delete(self, table: Table) -> None:
        """The operator deletes a table of ours, as `flush ruleset` does."""
        self._memory = self._memory.copy()
        self._memory.drop(table)
        self._advance(4242, "nft", own=False)

    def time_passes(self, table: Table) -> None:
        """So much of it that every timed element of the table leaves. No event tells."""
        self._memory = self._memory.copy()
        self._memory.expire(table)

    def lose_events(self) -> None:
        """The kernel dropped events (ENOBUFS)."""
        self._changes.send(NewGeneration(None, None, None))

    def set_counter(self, table: Table, name: str, value: CounterValue) -> None:
        """What counters() says of a counter from now on."""
        self._values[table, name] = value

    def device_came(self, device: str) -> None:
        """A device appears: hooks that name it stand on it, on a kernel that binds by name."""
        if self._devices is not None:
            self._devices.add(device)

    def device_gone(self, device: str) -> None:
        """A device vanishes: before 6.16 from flowtables too, and with it the netdev chains on it. No event tells."""
        if self._devices is not None:
            self._devices.discard(device)
        if not self._name_binding:
            self._memory = self._memory.copy()
            self._memory.forget_device(device)

    # inside

    def _tried(self, commands: Sequence[Command]) -> Memory:
        memory = self._memory.copy()
        for command in commands:
            for device in _devices(command):
                if not self._name_binding and not self._exists(device):
                    raise refused(errno.ENOENT, command, device)
            memory.do(command)
        return memory

    def _exists(self, device: str) -> bool:
        return self._devices is None or device in self._devices

    def _advance(self, pid: int, process: str, *, own: bool) -> None:
        self._generation += 1
        self._changes.send(NewGeneration(self._generation, pid, process, own))


def _devices(command: Command) -> Iterable[str]:
    match command:
        case AddFlowtable(_, flowtable):
            return sorted(flowtable.devices)
        case AddChain(_, _, hook) if hook is not None and hook.device is not None:
            return (hook.device,)
    return ()
