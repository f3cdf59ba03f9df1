"""One transaction: the commands that turn one ruleset into another, each with its text in nft's native syntax.

All of it is sent as a single netlink batch (`Nft.commit`), so that it happens whole or not at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flowfast.model.nftables import Element, Flowtable, Hook, Set, Table, element_text, elements_text, quoted, rule_hash


@dataclass(frozen=True, slots=True)
class AddTable:
    """Makes the table, or leaves it as it is."""

    table: Table

    def __str__(self) -> str:
        return f"add table {self.table}"


@dataclass(frozen=True, slots=True)
class DeleteTable:
    """Removes the table with all that is in it; an error where there is none."""

    table: Table

    def __str__(self) -> str:
        return f"delete table {self.table}"


@dataclass(frozen=True, slots=True)
class AddChain:
    """Makes an empty chain, a base chain where `hook` is given."""

    table: Table
    name: str
    hook: Hook | None = None

    def __str__(self) -> str:
        hook = f" {{ {self.hook} }}" if self.hook else ""
        return f"add chain {self.table} {self.name}{hook}"


@dataclass(frozen=True, slots=True)
class FlushChain:
    """Empties a chain of its rules."""

    table: Table
    name: str

    def __str__(self) -> str:
        return f"flush chain {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class DeleteChain:
    """Removes an empty chain that no rule jumps to."""

    table: Table
    name: str

    def __str__(self) -> str:
        return f"delete chain {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class AddRule:
    """Appends a rule, with its hash as its comment."""

    table: Table
    chain: str
    rule: str

    def __str__(self) -> str:
        return f'add rule {self.table} {self.chain} {self.rule} comment "{rule_hash(self.rule)}"'


@dataclass(frozen=True, slots=True)
class AddSet:
    """Makes a set or map, with its elements."""

    table: Table
    set: Set

    def __str__(self) -> str:
        of = self.set
        data = f" : {of.data}" if of.data else ""
        kinds = [kind for kind, on in (("interval", of.interval), ("timeout", of.timeout)) if on]
        flags = f" flags {', '.join(kinds)};" if kinds else ""
        elements = f" elements = {elements_text(of.elements)};" if of.elements else ""
        return f"add {of.keyword} {self.table} {of.name} {{ type {of.type}{data};{flags}{elements} }}"


@dataclass(frozen=True, slots=True)
class DeleteSet:
    """Removes a set or map that no rule uses. `keyword` is `set` or `map`."""

    table: Table
    name: str
    keyword: str = "set"

    def __str__(self) -> str:
        return f"delete {self.keyword} {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class AddElements:
    """Adds elements to a set or map; one that is there already is left as it is."""

    table: Table
    set: str
    elements: Mapping[Element, str]

    def __str__(self) -> str:
        return f"add element {self.table} {self.set} {elements_text(self.elements)}"


@dataclass(frozen=True, slots=True)
class AddTimed:
    """Adds elements to a set with `timeout`; the kernel takes them out by itself after so many seconds.

    One that is there already keeps its time before Linux 6.12.
    """

    table: Table
    set: str
    elements: tuple[Element, ...]
    seconds: float

    def __str__(self) -> str:
        lasting = f" timeout {round(self.seconds * 1000)}ms"
        listed = ", ".join(element_text(element) + lasting for element in sorted(self.elements))
        return f"add element {self.table} {self.set} {{ {listed} }}"


@dataclass(frozen=True, slots=True)
class DeleteElements:
    """Removes elements from a set or map."""

    table: Table
    set: str
    elements: Mapping[Element, str]

    def __str__(self) -> str:
        return f"delete element {self.table} {self.set} {elements_text(self.elements)}"


@dataclass(frozen=True, slots=True)
class AddFlowtable:
    """Makes a flowtable, or adds devices to it. Always whole: flags and all devices."""

    table: Table
    flowtable: Flowtable

    def __str__(self) -> str:
        of = self.flowtable
        counter = " counter;" if of.counter else ""
        devices = f" devices = {quoted(of.devices)};" if of.devices else ""
        offload = " flags offload;" if of.offload else ""
        hook = f"hook {of.hook} priority {of.priority};"
        return f"add flowtable {self.table} {of.name} {{ {hook}{devices}{counter}{offload} }}"


@dataclass(frozen=True, slots=True)
class DeleteFlowtable:
    """Removes a flowtable that no rule uses: every flow on it falls back to the full path."""

    table: Table
    name: str

    def __str__(self) -> str:
        return f"delete flowtable {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class DeleteDevices:
    """Takes devices off a flowtable (all of `flowtable.devices`), which goes on with the others and with its flows."""

    table: Table
    flowtable: Flowtable

    def __str__(self) -> str:
        of = self.flowtable
        hook = f"hook {of.hook} priority {of.priority};"
        return f"delete flowtable {self.table} {of.name} {{ {hook} devices = {quoted(of.devices)}; }}"


@dataclass(frozen=True, slots=True)
class AddCounter:
    """Makes a named counter, or leaves it as it is."""

    table: Table
    name: str

    def __str__(self) -> str:
        return f"add counter {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class DeleteCounter:
    """Removes a named counter that neither rule nor map uses."""

    table: Table
    name: str

    def __str__(self) -> str:
        return f"delete counter {self.table} {self.name}"


Command = (
    AddTable
    | DeleteTable
    | AddChain
    | FlushChain
    | DeleteChain
    | AddRule
    | AddSet
    | DeleteSet
    | AddElements
    | AddTimed
    | DeleteElements
    | AddFlowtable
    | DeleteFlowtable
    | DeleteDevices
    | AddCounter
    | DeleteCounter
)


def transaction_text(commands: Iterable[Command]) -> str:
    """The whole transaction, a command a line."""
    return "".join(f"{command}\n" for command in commands)
