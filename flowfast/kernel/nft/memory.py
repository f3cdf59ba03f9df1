"""Tables in memory, and what each command does to them: the kernel's half of FakeNft.

Source of the errors: net/netfilter/nf_tables_api.c (6.1 to 7.2), held against real kernels by
tests/guest/test_kernel_edge.py.
"""

import errno
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from flowfast.kernel.nft.intervals import Overlaps
from flowfast.model.errors import KernelError
from flowfast.model.nftables import KEYWORDS, Chain, Element, Flowtable, Hook, Set, Table, TableState, rule_hash
from flowfast.model.transaction import (
    AddChain,
    AddCounter,
    AddElements,
    AddFlowtable,
    AddRule,
    AddSet,
    AddTable,
    AddTimed,
    Command,
    DeleteChain,
    DeleteCounter,
    DeleteDevices,
    DeleteElements,
    DeleteFlowtable,
    DeleteSet,
    DeleteTable,
    FlushChain,
)

_FLOW = re.compile(r"\bflow (?:add|offload) @([\w.-]+)")
_LOOKUP = re.compile(r"(?<!add )(?<!offload )@([A-Za-z_][\w.-]*)(?![\w.,-])")
_JUMP = re.compile(r"\b(?:jump|goto) ([\w.-]+)")
# After `counter name` comes a name, or (a counter by map) an expression, which begins with a keyword.
_COUNTER = re.compile(r'\bcounter name (?!(?:ip|ip6|meta|i?oif|iif|[io]ifname|tcp|udp|th|ct|rt|ipsec)\b)"?([\w.-]+)')
_NAME = re.compile(r"[A-Za-z_.][\w./-]*")
_FOREIGN = "?"

Held = TypeVar("Held")

Reference = tuple[str, str]
"""Kind ("chain", "set", "flowtable", "counter") and name of what is used."""


def refused(code: int, command: Command, name: str) -> KernelError:
    """The kernel's no, worded as libnftables.run() words it."""
    return KernelError(f'nft: {os.strerror(code)}: "{name}" in: {str(command)[:160]}', code)


@dataclass(slots=True)
class _Chain:
    hook: Hook | None
    rules: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Table:
    chains: dict[str, _Chain] = field(default_factory=dict)
    sets: dict[str, Set] = field(default_factory=dict)
    flowtables: dict[str, Flowtable] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)

    def copy(self) -> "_Table":
        return _Table(
            chains={name: _Chain(chain.hook, list(chain.rules)) for name, chain in self.chains.items()},
            sets=dict(self.sets),
            flowtables=dict(self.flowtables),
            counters=set(self.counters),
        )

    def used(self) -> frozenset[Reference]:
        """Everything that a rule or an element of a map uses."""
        found = {ref for chain in self.chains.values() for rule in chain.rules for ref in _references(rule)}
        for each in self.sets.values():
            found.update(_element_references(each, each.elements))
        return frozenset(found)

    def holds(self, reference: Reference) -> bool:
        kind, name = reference
        held: dict[str, Container[str]] = {
            "chain": self.chains,
            "set": self.sets,
            "flowtable": self.flowtables,
            "counter": self.counters,
        }
        return name in held[kind]


def _references(rule: str) -> Iterator[Reference]:
    for kind, pattern in (("flowtable", _FLOW), ("set", _LOOKUP), ("chain", _JUMP), ("counter", _COUNTER)):
        for name in pattern.findall(rule):
            yield kind, name


def _element_references(of: Set, elements: Mapping[Element, str]) -> Iterator[Reference]:
    if of.data == "counter":
        for name in elements.values():
            yield "counter", name
    elif of.data == "verdict":
        for verdict in elements.values():
            yield from _references(verdict)


class Memory:
    """All tables. `do` changes them; `copy` first, to be able to go back."""

    def __init__(self, tables: Mapping[Table, _Table] | None = None) -> None:
        self._tables = {} if tables is None else dict(tables)
        self._used: dict[Table, frozenset[Reference]] = {}

    def copy(self) -> "Memory":
        """An equal one that can be changed by itself."""
        return Memory({table: held.copy() for table, held in self._tables.items()})

    # asking

    def has(self, table: Table) -> bool:
        """True where there is such a table."""
        return table in self._tables

    def counters(self, table: Table) -> frozenset[str]:
        """The names of a table's counters."""
        return frozenset(self._tables[table].counters)

    def flowtable(self, table: Table, name: str) -> Flowtable | None:
        """The flowtable, or None."""
        return self._tables[table].flowtables.get(name) if table in self._tables else None

    def state(self, table: Table) -> TableState:
        """The table as Nft.read() gives it."""
        held = self._tables[table]
        return TableState(
            table=table,
            chains={
                name: Chain(
                    name, tuple(_FOREIGN if rule == _FOREIGN else rule_hash(rule) for rule in chain.rules), chain.hook
                )
                for name, chain in held.chains.items()
            },
            sets=dict(held.sets),
            flowtables=dict(held.flowtables),
            counters=frozenset(held.counters),
        )

    # changing from outside

    def add_foreign_rule(self, table: Table, chain: str) -> None:
        """A rule without our mark."""
        self._tables[table].chains[chain].rules.append(_FOREIGN)

    def drop(self, table: Table) -> None:
        """The table is gone."""
        del self._tables[table]

    def expire(self, table: Table) -> None:
        """The time of every timed element is over."""
        sets = self._tables[table].sets
        sets.update({name: replace(each, elements={}) for name, each in sets.items() if each.timeout})

    def forget_device(self, device: str) -> None:
        """Takes a vanished device from flowtables, and the netdev chains that stood on it away (before 6.16)."""
        for held in self._tables.values():
            for name, flowtable in held.flowtables.items():
                held.flowtables[name] = replace(flowtable, devices=flowtable.devices - {device})
            for name in [name for name, chain in held.chains.items() if chain.hook and chain.hook.device == device]:
                del held.chains[name]

    # changing by command

    def do(self, command: Command) -> None:  # noqa: PLR0912 - one case a command
        """Does one command. Raises KernelError; what was done before it stays, so drop this Memory then."""
        _check_name(command)
        if isinstance(command, AddTable):
            self._tables.setdefault(command.table, _Table())
            return
        held = self._tables.get(command.table)
        if held is None:
            raise refused(errno.ENOENT, command, str(command.table))
        if not isinstance(command, DeleteCounter | DeleteSet | DeleteFlowtable | AddCounter):
            self._used.pop(command.table, None)
        match command:
            case DeleteTable(table):
                del self._tables[table]
            case AddChain():
                _add_chain(held, command)
            case FlushChain(_, name):
                _need(held.chains, name, command).rules.clear()
            case DeleteChain(_, name):
                self._delete(command, "chain", held.chains, name)
            case AddRule(_, chain, rule):
                rules = _need(held.chains, chain, command).rules
                _need_all(held, _references(rule), command)
                rules.append(rule)
            case AddSet():
                _add_set(held, command)
            case DeleteSet(_, name):
                self._delete(command, "set", held.sets, name)
                self._used.pop(command.table, None)
            case AddElements(_, name, elements):
                held.sets[name] = _with_elements(held, _need(held.sets, name, command), elements, command)
            case AddTimed(_, name, timed):
                if not _need(held.sets, name, command).timeout:
                    raise refused(errno.EINVAL, command, name)
                held.sets[name] = _with_elements(held, held.sets[name], dict.fromkeys(timed, ""), command)
            case DeleteElements(_, name, elements):
                held.sets[name] = _without_elements(_need(held.sets, name, command), elements, command)
            case AddFlowtable():
                _add_flowtable(held, command)
            case DeleteFlowtable(_, name):
                self._delete(command, "flowtable", held.flowtables, name)
            case DeleteDevices(_, Flowtable(name=name, devices=devices)):
                present = _need(held.flowtables, name, command)
                if not devices <= present.devices:
                    raise refused(errno.ENOENT, command, name)
                held.flowtables[name] = replace(present, devices=present.devices - devices)
            case AddCounter(_, name):
                held.counters.add(name)
            case DeleteCounter(_, name):
                self._unused(command, "counter", name, name in held.counters)
                held.counters.remove(name)

    def _delete(self, command: Command, kind: str, among: dict[str, Held], name: str) -> None:
        self._unused(command, kind, name, name in among)
        del among[name]

    def _unused(self, command: Command, kind: str, name: str, present: bool) -> None:
        if not present:
            raise refused(errno.ENOENT, command, name)
        table = command.table
        if table not in self._used:  # counted once for any number of deletions in a row
            self._used[table] = self._tables[table].used()
        if (kind, name) in self._used[table]:
            raise refused(errno.EBUSY, command, name)


def _check_name(command: Command) -> None:
    match command:
        case AddChain(_, name) | AddCounter(_, name):
            pass
        case AddSet(_, Set(name=name)) | AddFlowtable(_, Flowtable(name=name)):
            pass
        case _:
            return
    if name in KEYWORDS or not _NAME.fullmatch(name):
        raise refused(errno.EINVAL, command, name)


def _need(among: Mapping[str, Held], name: str, command: Command) -> Held:
    if name not in among:
        raise refused(errno.ENOENT, command, name)
    return among[name]


def _need_all(held: _Table, references: Iterable[Reference], command: Command) -> None:
    for reference in references:
        if not held.holds(reference):
            raise refused(errno.ENOENT, command, reference[1])


def _add_chain(held: _Table, command: AddChain) -> None:
    present = held.chains.get(command.name)
    if present is None:
        held.chains[command.name] = _Chain(command.hook)
    elif command.hook is not None:
        if present.hook is None or replace(present.hook, policy=command.hook.policy) != command.hook:
            raise refused(errno.EOPNOTSUPP, command, command.name)
        present.hook = command.hook  # a policy may change


def _add_set(held: _Table, command: AddSet) -> None:
    wanted = command.set
    present = held.sets.get(wanted.name)
    if present is None:
        present = replace(wanted, elements={})
    elif _shape(present) != _shape(wanted):
        raise refused(errno.EEXIST, command, wanted.name)
    held.sets[wanted.name] = _with_elements(held, present, wanted.elements, command)


def _shape(of: Set) -> tuple[str, bool, str | None, bool]:
    return of.type, of.interval, of.data, of.timeout


def _with_elements(held: _Table, of: Set, elements: Mapping[Element, str], command: Command) -> Set:
    new = replace(of, elements=elements).elements  # without quotes
    _need_all(held, _element_references(of, new), command)
    parts = of.type.count(" . ") + 1
    merged = dict(of.elements)
    overlaps = Overlaps(merged) if of.interval else None
    for element in sorted(new):
        text = " . ".join(element)
        if len(element) != parts or bool(new[element]) != bool(of.data):
            raise refused(errno.EINVAL, command, text)
        if merged.get(element, new[element]) != new[element]:
            raise refused(errno.EEXIST, command, text)
        if overlaps is not None:
            if overlaps.clash(element):
                raise refused(errno.EEXIST, command, text)
            overlaps.add(element)
        elif any("/" in part or "-" in part for part in element if part[0].isdigit() or ":" in part):
            raise refused(errno.EINVAL, command, text)  # a set without `flags interval`
        merged[element] = new[element]
    return replace(of, elements=merged)


def _without_elements(of: Set, elements: Mapping[Element, str], command: Command) -> Set:
    rest = dict(of.elements)
    for element in replace(of, elements=elements).elements:
        if element not in rest:
            raise refused(errno.ENOENT, command, " . ".join(element))
        del rest[element]
    return replace(of, elements=rest)


def _add_flowtable(held: _Table, command: AddFlowtable) -> None:
    wanted = command.flowtable
    for name, other in held.flowtables.items():
        if name != wanted.name and other.devices & wanted.devices:
            raise refused(errno.EEXIST, command, wanted.name)
    present = held.flowtables.get(wanted.name)
    if present is None:
        held.flowtables[wanted.name] = wanted
        return
    if (present.priority, present.hook, present.offload) != (wanted.priority, wanted.hook, wanted.offload):
        raise refused(errno.EOPNOTSUPP, command, wanted.name)
    held.flowtables[wanted.name] = replace(wanted, devices=present.devices | wanted.devices)
