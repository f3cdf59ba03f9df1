"""YAML documents as trees of which every node knows where it stands, and the files, lines and columns of that.

One tree may be put together from several files. So offsets count on from one text to the next, as if all of them stood
behind each other: the `start` of a node alone says which file it is from, and where in it.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

from flowfast.config.problem import Fault, Path, Problem, dotted
from flowfast.config.scalar import Kind, Scalar
from flowfast.config.values import WHOLE, truth


@dataclass(slots=True)
class Leaf:
    """A scalar. `start` of every node is its offset in all texts, in characters."""

    start: int
    value: Scalar
    size: int = 1
    height: int = 0


@dataclass(slots=True)
class Listing:
    """A YAML sequence. `size` counts the nodes in it, itself too; `height` the levels below it."""

    start: int
    items: list["Node"] = field(default_factory=list)
    size: int = 1
    height: int = 0
    open: bool = True


@dataclass(slots=True)
class Entries:
    """A YAML mapping: key -> (where the key stands, value)."""

    start: int
    items: dict[str, tuple[int, "Node"]] = field(default_factory=dict)
    size: int = 1
    height: int = 0
    open: bool = True


Node = Leaf | Listing | Entries


class Place(NamedTuple):
    """Line and column count from 1. `setting` is what was typed (`--set wan=eth0`) for a value that no file gives."""

    file: str
    line: int
    column: int
    setting: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def about(self, name: str) -> str:
        """What an error is said of: the name of the key, and the setting that its value came from."""
        return " ".join(filter(None, (name, f"({self.setting})" if name and self.setting else self.setting)))


class _Text(NamedTuple):
    file: str
    base: int
    end: int
    lines: list[int]


class _StandIn(NamedTuple):
    at: int
    setting: str


class Places:
    """The texts that were read, and what stands where in them."""

    def __init__(self) -> None:
        self._bases: list[int] = []
        self._sources: list[_Text | _StandIn] = []
        self._next = 0

    def add(self, file: str, text: str) -> int:
        """Takes a text in. Returns the offset that its first character has from now on."""
        base = self._next
        lines = [base, *(base + match.end() for match in re.finditer("\n", text))]
        return self._keep(_Text(file, base, base + len(text), lines), len(text) + 1)

    def stand_in(self, start: int, setting: str) -> int:
        """An offset for a value that was typed and is used in place of the one at `start`."""
        return self._keep(_StandIn(start, setting), 1)

    def _keep(self, source: _Text | _StandIn, length: int) -> int:
        base = self._next
        self._bases.append(base)
        self._sources.append(source)
        self._next += length
        return base

    def typed(self, start: int) -> bool:
        """True for the offset of a value that was typed."""
        return isinstance(self._source(start), _StandIn)

    def at(self, start: int) -> Place:
        """The place of an offset."""
        source = self._source(start)
        if isinstance(source, _StandIn):
            return self.at(source.at)._replace(setting=source.setting)
        start = max(source.base, min(start, source.end))
        line = bisect_right(source.lines, start)
        return Place(source.file, line, start - source.lines[line - 1] + 1)

    def _source(self, start: int) -> _Text | _StandIn:
        return self._sources[max(0, bisect_right(self._bases, start) - 1)]


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree and the texts that it is from."""

    root: Node
    places: Places

    def of(self, path: Path, *, key: bool = False) -> Place:
        """Where the value at `path` stands: a scalar itself, a list or mapping by its key (`key`: always the key).

        What is not in the tree (a missing key, a default) is placed at the nearest node above it that is.
        """
        node, start = self.root, self.root.start
        for depth, step in enumerate(path):
            if isinstance(node, Entries) and isinstance(step, str) and step in node.items:
                by_key, node = node.items[step]
                itself = (isinstance(node, Leaf) and node.value.text) or self.places.typed(node.start)
                start = node.start if itself and not (key and depth == len(path) - 1) else by_key
            elif isinstance(node, Listing) and isinstance(step, int) and 0 <= step < len(node.items):
                node = node.items[step]
                start = node.start
            else:
                break
        return self.places.at(start)

    def get(self, path: Path) -> Node | None:
        """The node at `path`; None where nothing says anything there."""
        node = self.root
        for step in path:
            if isinstance(node, Entries) and isinstance(step, str) and step in node.items:
                node = node.items[step][1]
            elif isinstance(node, Listing) and isinstance(step, int) and 0 <= step < len(node.items):
                node = node.items[step]
            else:
                return None
        return node

    def problem(self, path: Path, fault: Fault) -> Problem:
        """The problem with the value at `path`; with the key itself, if the path ends in "[key]"."""
        key = bool(path) and path[-1] == "[key]"
        path = path[:-1] if key else path
        place = self.of(path, key=key)
        about = place.about(dotted(path))
        return Problem(place.file, place.line, place.column, about, fault.sentence, fault.remedy)


def data(node: Node) -> object:
    """The tree as lists, dicts and Scalars, for validators to read."""
    match node:
        case Leaf():
            return node.value
        case Listing():
            return [data(item) for item in node.items]
        case Entries():
            return {key: data(item) for key, (_, item) in node.items.items()}


def nothing(node: Node) -> bool:
    """True for a value that is left out: `key:` with nothing behind it."""
    return isinstance(node, Leaf) and node.value.kind is Kind.NOTHING


def plain(node: Node) -> object:
    """The tree as Python's own values, which YAML writes as the same tree again."""
    match node:
        case Leaf():
            return _plain(node.value)
        case Listing():
            return [plain(item) for item in node.items]
        case Entries():
            return {key: plain(item) for key, (_, item) in node.items.items() if not nothing(item)}


def _plain(value: Scalar) -> object:
    match value.kind:
        case Kind.NOTHING:
            return None
        case Kind.BOOLEAN:
            return truth(value)
        case Kind.NUMBER if WHOLE.fullmatch(value.text):
            return int(value.text, 0)
    return value.text
