"""What a ruleset is made of, and the text of it in nft's own syntax.

A tiny vocabulary in the manner of knftables: typed objects, and operations (Add, Flush, Delete) on them that make one
transaction. Native syntax and not JSON, because libnftables' JSON drops a flowtable's flags (src/json.c up to 1.1.7).
Every rule carries a comment with the hash of its own text: so a ruleset read back from the kernel can be compared with
the one wanted, whatever the nft version makes of its spelling.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Element = tuple[str, ...]
"""Element of a set: its parts as nft writes them ("10.1.0.0/16", "10.2.0.0/16"), concatenated with `.`."""


@dataclass(frozen=True, slots=True, order=True)
class Table:
    """A table by family ("inet", "netdev") and name."""

    family: str
    name: str

    def __str__(self) -> str:
        return f"{self.family} {self.name}"


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain stands. `priority` as a number; `device` for netdev ingress."""

    type: str
    hook: str
    priority: int
    policy: str = "accept"
    device: str | None = None

    def __str__(self) -> str:
        device = f' device "{self.device}"' if self.device else ""
        return f"type {self.type} hook {self.hook}{device} priority {self.priority}; policy {self.policy};"


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain with all its rules, each the text of one rule without comment."""

    name: str
    rules: tuple[str, ...] = ()
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class Set:
    """A set, or with `data` a map. `type` and `data` as nft writes them ("ipv4_addr . ipv4_addr", "counter")."""

    name: str
    type: str
    interval: bool = False
    data: str | None = None
    elements: Mapping[Element, str] = field(default_factory=dict)
    """Element -> its data (the empty string for a plain set)."""

    @property
    def keyword(self) -> str:
        """`map` or `set`: nft's word for it."""
        return "map" if self.data else "set"


@dataclass(frozen=True, slots=True)
class Flowtable:
    """A flowtable, always whole: naming one device alone would drop the flags (field-notes.md 0.3)."""

    name: str
    devices: frozenset[str]
    priority: int = 0
    counter: bool = True
    hook: str = "ingress"


@dataclass(frozen=True, slots=True)
class TableState:
    """A table with everything in it: what is wanted, or what the kernel holds."""

    table: Table
    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, Set] = field(default_factory=dict)
    flowtables: Mapping[str, Flowtable] = field(default_factory=dict)
    counters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All tables of ours, by (family, name)."""

    tables: Mapping[Table, TableState] = field(default_factory=dict)


def rule_hash(rule: str) -> str:
    """What stands in the comment of a rule: `ff:` and 12 hex digits of its text's SHA-256."""
    return "ff:" + hashlib.sha256(rule.encode()).hexdigest()[:12]


def element_text(element: Element, data: str = "") -> str:
    """An element as nft writes it: `10.1.0.0/16 . 10.2.0.0/16 : "name"`."""
    key = " . ".join(element)
    return f"{key} : {data}" if data else key


def elements_text(elements: Mapping[Element, str]) -> str:
    """All elements in braces, sorted, so that equal sets have equal text."""
    return "{ " + ", ".join(element_text(key, elements[key]) for key in sorted(elements)) + " }"


def quoted(names: Iterable[str]) -> str:
    """Device names in braces, each in quotes: a name may be an nft keyword or have a dot."""
    return "{ " + ", ".join(f'"{name}"' for name in sorted(names)) + " }"
