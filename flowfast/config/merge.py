"""Puts a config together from templates and its own keys.

Mappings merge. Lists are put behind each other, without what is there already. Of single values the config's own wins.
Two templates that give different values for one key do not fit together, unless the config says which one is meant.
"""

from collections.abc import Hashable, Iterable, Sequence

from flowfast.config.problem import Path, dotted, quoted
from flowfast.config.scalar import Kind, Scalar
from flowfast.config.sources import Sources
from flowfast.config.tree import Entries, Leaf, Listing, Node, Tree, nothing
from flowfast.config.values import WHOLE, truth


def merge(own: Tree, templates: Sequence[Tree], sources: Sources) -> Tree:
    """The config and its templates as one tree, the config's own keys and items first."""
    merged = _Merging(sources).merged((), own.root, [tree.root for tree in templates])
    return Tree(merged, own.places)


class _Merging:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def merged(self, path: Path, own: Node | None, others: Iterable[Node]) -> Node:
        """One node for all of one path: `own` is the config's, `others` are the templates'."""
        if own is not None and nothing(own):
            own = None
        theirs = [other for other in others if not nothing(other)]
        everything = [*([] if own is None else [own]), *theirs]
        if not everything:
            return Leaf(0, Scalar("", Kind.NOTHING))
        first = everything[0]
        if own is None:
            everything = [first, *(other for other in theirs[1:] if self._agree(path, first, other))]
        else:
            everything = [other for other in everything if type(other) is type(first)]
        match first:
            case Leaf():
                return first
            case Listing():
                return _joined(first, [other for other in everything if isinstance(other, Listing)])
            case Entries():
                return self._mapping(path, own, [other for other in everything if isinstance(other, Entries)])

    def _mapping(self, path: Path, own: Node | None, mappings: list[Entries]) -> Entries:
        starts: dict[str, int] = {}
        for mapping in mappings:
            for key, (start, item) in mapping.items.items():
                if key not in starts and not nothing(item):
                    starts[key] = start
        templates = mappings if own is None else mappings[1:]
        result = Entries(mappings[0].start)
        for key, start in starts.items():
            mine = own.items[key][1] if isinstance(own, Entries) and key in own.items else None
            theirs = [mapping.items[key][1] for mapping in templates if key in mapping.items]
            result.items[key] = (start, self.merged((*path, key), mine, theirs))
        return result

    def _agree(self, path: Path, first: Node, other: Node) -> bool:
        """Whether two templates can both have their way; says so where they cannot."""
        match first, other:
            case Leaf(), Leaf():
                fit = first.value.text == other.value.text or same(first) == same(other)
            case _:
                fit = type(first) is type(other)
        if fit:
            return True
        here, there = self._sources.places.at(other.start), self._sources.places.at(first.start)
        sentence = f"{_shown(other)} here, but {_shown(first)} at {there}, and both templates are used"
        self._sources.complain(here, here.about(dotted(path)), sentence, "say in the config itself what it should be")
        return False


def _joined(first: Listing, lists: list[Listing]) -> Listing:
    result = Listing(first.start, list(first.items))
    there = {same(item) for item in first.items}
    for other in lists[1:]:
        new = [item for item in other.items if same(item) not in there]
        result.items += new
        there.update(same(item) for item in new)
    return result


def same(node: Node) -> Hashable:
    """What two nodes have in common that say the same thing, however they are written."""
    match node:
        case Leaf():
            return _meaning(node.value)
        case Listing():
            return tuple(same(item) for item in node.items)
        case Entries():
            return frozenset((key, same(item)) for key, (_, item) in node.items.items() if not nothing(item))


def _meaning(value: Scalar) -> Hashable:
    if value.kind is Kind.BOOLEAN:
        return truth(value)
    if value.kind is Kind.NUMBER and WHOLE.fullmatch(value.text):
        return Kind.NUMBER, int(value.text, 0)
    return value.text


def _shown(node: Node) -> str:
    if isinstance(node, Leaf):
        return quoted(node.value.text) if node.value.kind is Kind.TEXT else node.value.text
    return "a list" if isinstance(node, Listing) else "a mapping"
