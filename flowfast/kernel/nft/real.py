"""The nftables ruleset of this network namespace."""

import errno
import json
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from flowfast.kernel import NewGeneration
from flowfast.kernel.events import Events
from flowfast.kernel.libnftables import run
from flowfast.kernel.netlink import NETLINK_NETFILTER, GroupEvents, Message
from flowfast.kernel.nft import listing, wire
from flowfast.model.errors import KernelError, Unavailable
from flowfast.model.link import Link
from flowfast.model.nftables import OWN_TABLE, Chain, Flowtable, Ruleset, Table, TableState
from flowfast.model.state import CounterValue
from flowfast.model.transaction import AddFlowtable, AddTable, Command, transaction_text

_READ_ATTEMPTS = 20
_REMEMBERED = 64
_TRIAL = Table("inet", f"{OWN_TABLE}-trial")
"""Only ever in a dry run. Not our own table, in which a device may be in one flowtable only."""


class RealNft:
    """Writes and lists through libnftables; reads flags, hooks, counters and generations over netlink.

    May be called from any thread; each call acts on the network namespace of the thread that makes it.
    """

    def __init__(self) -> None:
        self._own: deque[int] = deque(maxlen=_REMEMBERED)
        self._committing = threading.Lock()
        self.with_hardware = False
        self._takes: dict[tuple[int, str], bool] = {}

    def commit(self, commands: Sequence[Command]) -> None:
        """Does all of it in one batch or nothing. Raises KernelError with nft's own line, Unavailable."""
        if not commands:
            return
        with self._committing:
            before = wire.generation()
            run(transaction_text(commands))
            after = wire.generation()
            # Somebody else's transaction in between makes it unknown which one is ours: then none is, which costs
            # whoever reacts to foreign ones a reaction too many, and never one too few.
            if after == _next(before):
                self._own.append(after)

    def check(self, commands: Sequence[Command]) -> None:
        """The same as a dry run: asks the kernel, changes nothing. Raises KernelError, Unavailable."""
        if commands:
            run(transaction_text(commands), dry_run=True)

    def read(self, tables: Iterable[Table]) -> Ruleset:
        """What the kernel holds of these tables, all of one generation. Raises KernelError, Unavailable."""
        wanted = tuple(tables)
        for _ in range(_READ_ATTEMPTS):
            before = wire.generation()
            found = Ruleset({table: state for table in wanted if (state := _table(table)) is not None})
            if wire.generation() == before:
                return found
        raise KernelError(f"nftables: the ruleset changed {_READ_ATTEMPTS} times while it was read", errno.EINTR)

    def counters(self, table: Table) -> Mapping[str, CounterValue]:
        """Every named counter of the table; none where there is no such table. Needs no libnftables."""
        return wire.counters(table)

    def hooked(self, table: Table, flowtable: Flowtable) -> frozenset[str]:
        """Devices among the flowtable's on whose ingress hook it really stands. Raises KernelError."""
        try:
            return frozenset(
                device
                for device in flowtable.devices
                if any(wire.is_flowtable(hook, table, flowtable) for hook in wire.on_ingress(device))
            )
        except Unavailable:
            # A kernel that does not tell (Debian 12's): it binds no device by name alone, so that a device which the
            # flowtable lists and which exists is one that it stands on.
            held = wire.flowtables(table).get(flowtable.name)
            existing = {name for _, name in socket.if_nameindex()}
            return flowtable.devices & held.devices & existing if held else frozenset()

    def takes_flows(self, links: Iterable[Link]) -> frozenset[str]:
        """Devices whose driver takes flowtables with `flags offload`: asked once for each, in a table that never is."""
        found = set()
        for link in links:
            key = (link.ifindex, link.name)
            if key not in self._takes:
                self._takes[key] = self._tried(link.name)
            if self._takes[key]:
                found.add(link.name)
        return frozenset(found)

    def _tried(self, device: str) -> bool:
        flowtable = Flowtable("trial", frozenset({device}), counter=False, offload=True)
        try:
            self.check([AddTable(_TRIAL), AddFlowtable(_TRIAL, flowtable)])
        except KernelError:  # EOPNOTSUPP of a driver without TC_SETUP_FT
            return False
        return True

    def foreign(self) -> str:
        """The text of every table but ours, without counters' values. Raises KernelError, Unavailable."""
        found = [entry["table"] for entry in json.loads(run("list tables", json=True))["nftables"] if "table" in entry]
        tables = sorted((str(table["family"]), str(table["name"])) for table in found)
        return "".join(
            run(f"list table {family} {name}")
            for family, name in tables
            if not (name == OWN_TABLE and family in ("inet", "netdev"))
        )

    def generation(self) -> int:
        """The ruleset's generation: changes with every transaction of anybody."""
        return wire.generation()

    def changes(self) -> Events[NewGeneration]:
        """Each transaction as it is committed, our own included; listening from now on."""
        return GroupEvents(
            NETLINK_NETFILTER, (wire.NFNLGRP_NFTABLES,), self._changed, lost=NewGeneration(None, None, None)
        )

    def _changed(self, message: Message) -> Iterator[NewGeneration]:
        for number, pid, process in wire.generation_of(message):
            # A commit in another thread may be done, and not yet noted: wait for it.
            with self._committing:
                own = number in self._own
            yield NewGeneration(number, pid, process, own)


def _next(generation: int) -> int:
    """The generation after; the kernel skips 0 (nf_tables_commit)."""
    return (generation + 1) & 0xFFFFFFFF or 1


def _table(table: Table) -> TableState | None:
    try:
        listed = listing.parse(run(f"list table {table}", json=True))
    except KernelError as refused:
        if refused.code == errno.ENOENT:
            return None
        raise
    hooks = wire.base_chains(table)
    return TableState(
        table=table,
        chains={name: Chain(name, tuple(rules), hooks.get(name)) for name, rules in listed.chains.items()},
        sets=listed.sets,
        flowtables=wire.flowtables(table),
        counters=frozenset(listed.counters),
    )
