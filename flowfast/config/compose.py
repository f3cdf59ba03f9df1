"""YAML text -> a tree that knows where each of its nodes stands.

Our own composer over PyYAML's events, because yaml.compose() recurses, expands aliases without a bound and lets the
second of two equal keys win. Values are told apart by SafeLoader's resolver (YAML 1.1).
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import yaml

from flowfast.config.problem import Path, dotted, quoted
from flowfast.config.scalar import Kind, Scalar
from flowfast.config.tree import Entries, Leaf, Listing, Node

MAX_DEPTH = 20  # the schema needs five
MAX_NODES = 2_000_000  # aliases counted as often as they are used: 100 000 tunnels fit, a bomb does not

# What YAML allows in a file (1.1, section 4.1.1): PyYAML refuses the rest too, but without a line. Also not allowed: a
# byte order mark within the text, of which PyYAML's two parsers think differently.
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_KINDS = {
    "int": Kind.NUMBER,
    "float": Kind.NUMBER,
    "bool": Kind.BOOLEAN,
    "timestamp": Kind.DATE,
    "null": Kind.NOTHING,
    "merge": Kind.MERGE,
}
_RESOLVER: Any = yaml.resolver.Resolver()
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser is ten times as fast, and not always built in


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong with the YAML itself, at an offset in the text."""

    start: int
    object: str
    sentence: str
    remedy: str = ""


class Unreadable(Exception):
    """The text cannot be read past this point."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.sentence)
        self.mistake = mistake


def plain_scalar(text: str) -> Scalar:
    """What YAML takes a text for that stands in a file without quotes."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    return Scalar(text, _KINDS.get(tag.rpartition(":")[2], Kind.TEXT))


def compose(text: str, loader: type = LOADER, *, base: int = 0) -> tuple[Node | None, list[Mistake]]:
    """The tree of the one document in `text` (None: it is empty), and what is wrong with it as far as it could be read.

    `base` is the offset that the first character has in what is returned.
    Raises Unreadable where it cannot be read on (a syntax error, nested too deep, an alias bomb).
    """
    if odd := _NOT_YAML.search(text):
        raise Unreadable(
            Mistake(base + odd.start(), "", f"the character U+{ord(odd[0]):04X} is not allowed in YAML", "remove it")
        )
    composer = _Composer(text, base)
    try:
        for event in yaml.parse(text, Loader=loader):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        mistake = _syntax(error, text)
        raise Unreadable(replace(mistake, start=base + mistake.start)) from error
    return composer.root, composer.mistakes


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Mistake:
    """A syntax error in our words, where one of the usual traps is behind it, else in PyYAML's."""
    mark, opened = error.problem_mark, error.context_mark
    start = mark.index if mark else 0
    context = f"{error.context}: " if error.context else ""
    sentence = f"not valid YAML: {context}{error.problem or 'syntax error'}"
    if start >= len(text.rstrip()) and opened and opened.index < start:
        return Mistake(opened.index, "", "not valid YAML: what is opened here is not closed before the file ends")
    line = text[text.rfind("\n", 0, start) + 1 : start + 1]
    if "\t" in line and not line.strip():
        return Mistake(start, "", "not valid YAML: a tab in the indentation", "use spaces")
    if text[start : start + 1] == ":":
        return Mistake(start, "", sentence, 'put an address that begins with ":" in quotes, as "::/0"')
    if text[start : start + 1] in ("*", "&", "%", "@", "`"):
        return Mistake(start, "", sentence, f'put a value that begins with "{text[start]}" in quotes')
    return Mistake(start, "", sentence)


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is being read. `key` is the one whose value comes next; `dropped`: not to be kept."""

    node: Listing | Entries
    key: str | None = None
    key_start: int = 0
    dropped: bool = False


class _Composer:
    """Events in, tree out, without recursion."""

    def __init__(self, text: str, base: int) -> None:
        self.root: Node | None = None
        self.mistakes: list[Mistake] = []
        self._text = text
        self._base = base
        self._frames: list[_Frame] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0
        self._nodes = 0

    def take(self, event: yaml.Event) -> None:
        """Reads one event."""
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._give_up(event, "a second document begins here", "a config is one document: remove the ---")
            case yaml.ScalarEvent():
                self._begin(event, Leaf(self._start(event), self._scalar(event)))
            case yaml.SequenceStartEvent():
                self._begin(event, Listing(self._start(event)))
            case yaml.MappingStartEvent():
                self._begin(event, Entries(self._start(event)))
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.CollectionEndEvent():
                node = self._frames.pop().node
                children = node.items if isinstance(node, Listing) else [item for _, item in node.items.values()]
                node.size += sum(child.size for child in children)
                node.height = 1 + max((child.height for child in children), default=0)
                node.open = False
                self._add(node)

    def _start(self, event: yaml.Event) -> int:
        return self._base + (event.start_mark.index if event.start_mark else 0)

    def _begin(self, event: yaml.NodeEvent, node: Node) -> None:
        if event.anchor:
            self._anchors[event.anchor] = node
        self._count(event, 1, len(self._frames))
        if isinstance(node, Leaf):
            self._add(node)
            return
        if isinstance(event, yaml.CollectionStartEvent) and event.tag:
            self._complain(node.start, f"YAML tags are not read here, found {quoted(event.tag)}", "remove it")
        self._frames.append(_Frame(node))

    def _alias(self, event: yaml.AliasEvent) -> None:
        start, meant = self._start(event), self._anchors.get(str(event.anchor))
        if meant is None:
            self._complain(
                start, f"no anchor &{event.anchor} before this alias", "define it above, or write the value out"
            )
            meant = Leaf(start, Scalar("", Kind.NOTHING))
        elif not isinstance(meant, Leaf) and meant.open:
            self._give_up(event, f"the alias *{event.anchor} stands inside of what it repeats", "write the value out")
        self._count(event, meant.size, len(self._frames) + meant.height)
        self._add(replace(meant, start=start))

    def _count(self, event: yaml.NodeEvent, nodes: int, depth: int) -> None:
        self._nodes += nodes
        if depth > MAX_DEPTH:
            self._give_up(event, f"nested deeper than {MAX_DEPTH} levels", "no key of the config needs that")
        if self._nodes > MAX_NODES:
            self._give_up(
                event, f"more than {MAX_NODES} values, aliases counted as often as they are used", "write less"
            )

    def _add(self, node: Node) -> None:
        """Puts a finished node where it belongs: the root, the next item, the next key, the value of the last key."""
        if not self._frames:
            self.root = node
            return
        frame = self._frames[-1]
        if isinstance(frame.node, Listing):
            frame.node.items.append(node)
        elif frame.key is None and not frame.dropped:
            self._key(frame, frame.node.items, node)
        else:
            if not frame.dropped:
                frame.node.items[str(frame.key)] = (frame.key_start, node)
            frame.key, frame.dropped = None, False

    def _key(self, frame: _Frame, entries: dict[str, tuple[int, Node]], node: Node) -> None:
        if not isinstance(node, Leaf):
            what = "a list" if isinstance(node, Listing) else "a mapping"
            self._complain(node.start, f"a key must be text, found {what}", "write the key as a plain word")
            frame.dropped = True
            return
        text, kind = node.value.text, node.value.kind
        if kind is Kind.MERGE:
            self._complain(node.start, "merge keys (<<) are not read here", "write the keys out")
            frame.dropped = True
            return
        if kind is not Kind.TEXT:
            found = f"YAML reads {text} as {kind}" if text else "found nothing"
            self._complain(node.start, f"a key must be text, {found}", f"write {quoted(text)}" if text else "name it")
        if text in entries:
            first = self._text.count("\n", 0, entries[text][0] - self._base) + 1
            where = dotted((*self._path(), text))
            self.mistakes.append(Mistake(node.start, where, f"given twice, first in line {first}", "keep one of them"))
            frame.dropped = True
            return
        frame.key, frame.key_start = text, node.start

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        if event.tag and event.tag != "tag:yaml.org,2002:str":
            start = self._start(event)
            self._complain(start, f"YAML tags are not read here, found {quoted(event.tag)}", "remove it")
        if event.style or not event.implicit[0] or event.tag:
            return Scalar(event.value)
        return plain_scalar(event.value)

    def _path(self) -> Path:
        steps: list[str | int] = []
        for frame in self._frames:
            if isinstance(frame.node, Listing):
                steps.append(len(frame.node.items))
            elif frame.key is not None:
                steps.append(frame.key)
        return tuple(steps)

    def _complain(self, start: int, sentence: str, remedy: str) -> None:
        self.mistakes.append(Mistake(start, dotted(self._path()), sentence, remedy))

    def _give_up(self, event: yaml.Event, sentence: str, remedy: str) -> None:
        raise Unreadable(Mistake(self._start(event), dotted(self._path()), sentence, remedy))
