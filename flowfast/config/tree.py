"""A YAML document as a tree of which every node knows where it stands, and the lines and columns of that."""

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from flowfast.config.problem import Path
from flowfast.config.scalar import Scalar


@dataclass(slots=True)
class Leaf:
    """A scalar. `start` of every node is its offset in the text, in characters."""

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


class Places:
    """Lines and columns of a text, and of the nodes composed from it."""

    def __init__(self, text: str, root: Node | None = None) -> None:
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._end = len(text)
        self._root = root

    def at(self, start: int) -> tuple[int, int]:
        """Line and column, both from 1, of an offset."""
        start = max(0, min(start, self._end))
        line = bisect_right(self._lines, start)
        return line, start - self._lines[line - 1] + 1

    def of(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Where the value at `path` stands: a scalar itself, a list or mapping by its key (`key`: always the key).

        What is not in the file (a missing key, a default) is placed at the nearest node above it that is.
        """
        node, start = self._root, self._root.start if self._root else 0
        for depth, step in enumerate(path):
            if isinstance(node, Entries) and isinstance(step, str) and step in node.items:
                by_key, node = node.items[step]
                last = depth == len(path) - 1
                start = node.start if isinstance(node, Leaf) and not (key and last) and node.value.text else by_key
            elif isinstance(node, Listing) and isinstance(step, int) and 0 <= step < len(node.items):
                node = node.items[step]
                start = node.start
            else:
                break
        return self.at(start)

    def has(self, path: Path) -> bool:
        """True where the file itself says something at `path`."""
        node = self._root
        for step in path:
            if isinstance(node, Entries) and isinstance(step, str) and step in node.items:
                node = node.items[step][1]
            elif isinstance(node, Listing) and isinstance(step, int) and 0 <= step < len(node.items):
                node = node.items[step]
            else:
                return False
        return True


def data(node: Node) -> object:
    """The tree as lists, dicts and Scalars, for validators to read."""
    match node:
        case Leaf():
            return node.value
        case Listing():
            return [data(item) for item in node.items]
        case Entries():
            return {key: data(item) for key, (_, item) in node.items.items()}
