"""Fills a template: the values of its parameters in place of their names.

A value comes from the command line (text), from `use: set:` of a config or from the default (nodes of a file). What is
put in is a node again, so that whatever is wrong with it later is said of the place where it was written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowfast.config.compose import plain_scalar
from flowfast.config.faults import validated
from flowfast.config.hints import instead
from flowfast.config.parameters import Parameter, Template, Type
from flowfast.config.problem import ConfigError, Fault, Faulty, Path, dotted, quoted
from flowfast.config.scalar import Kind, Scalar
from flowfast.config.sources import Sources
from flowfast.config.tree import Entries, Leaf, Listing, Node, Tree, data, nothing

MARKS = ("template", "parameters", "config")
"""Keys that a template has and a config has not."""


def is_template(tree: Tree) -> bool:
    """True for a file that is meant as a template."""
    return isinstance(tree.root, Entries) and any(key in tree.root.items for key in MARKS)


@dataclass(frozen=True, slots=True)
class Given:
    """What a config gives to a template that it uses: its own name for it, and values. `path` is that of the use."""

    name: str
    tree: Tree
    path: Path
    values: Mapping[str, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Typed:
    """A value from the command line."""

    name: str
    text: str
    type: Type = Type.STRING

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= 60 else self.text[:57] + "..."
        return f"--set {self.name}={shown}"

    def node(self, start: int) -> Node:
        """The value: text for all but numbers and booleans, with commas between the items of a list."""
        if self.type.listed:
            words = self.text.split(",") if self.text.strip() else []
            items: list[Node] = [Leaf(start, Scalar(word.strip())) for word in words]
            return Listing(start, items, size=1 + len(items), height=1)
        resolved = self.type in (Type.INTEGER, Type.BOOLEAN)
        return Leaf(start, plain_scalar(self.text) if resolved else Scalar(self.text))


Value = Node | Typed | None
"""What a parameter stands for; None for nothing, and for what is wrong and was said."""


def expand(tree: Tree, settings: Mapping[str, str] | Given, sources: Sources) -> Tree:
    """The config of a template, with its parameters filled in. Raises ConfigError with all that is wrong.

    `settings` are the values as typed, or as a config gives them.
    """
    template = validated(Template, tree, sources)
    if template is None:
        raise ConfigError(sources.problems)
    if isinstance(settings, Given):
        values = _written(template, tree, settings, sources)
    else:
        values = _typed(template, tree, settings, sources)
    filling = _Filling(tree, values, sources)
    filled = Tree(filling.config(), tree.places)
    sources.stop()
    return filled


def _typed(template: Template, tree: Tree, settings: Mapping[str, str], sources: Sources) -> dict[str, Value]:
    for name, text in settings.items():
        if name not in template.parameters:
            place, remedy = tree.of(("parameters",), key=True), instead(name, template.parameters)
            sources.complain(place, str(Typed(name, text)), "no such parameter", remedy)
    values: dict[str, Value] = {}
    for name, parameter in template.parameters.items():
        place = tree.of(("parameters", name), key=True)
        if name in settings:
            typed = Typed(name, settings[name], parameter.type)
            faults = _faults(parameter, typed.node(0))
            for fault in faults:
                sources.complain(place, str(typed), fault.sentence, fault.remedy)
            values[name] = None if faults else typed
        else:
            values[name] = tree.get(("parameters", name, "default"))
            if parameter.required:
                about, remedy = dotted(("parameters", name)), f"give it one: --set {name}=..."
                sources.complain(place, about, "has no value, and no default", remedy)
    return values


def _written(template: Template, tree: Tree, use: Given, sources: Sources) -> dict[str, Value]:
    given = {name: node for name, node in use.values.items() if not nothing(node)}
    for name in given.keys() - template.parameters.keys():
        fault = Fault(f"no parameter of the template {quoted(use.name)}", instead(name, template.parameters))
        sources.blame(use.tree, (*use.path, "set", name, "[key]"), fault)
    values: dict[str, Value] = {}
    for name, parameter in template.parameters.items():
        values[name] = given.get(name, tree.get(("parameters", name, "default")))
        for fault in _faults(parameter, given[name]) if name in given else ():
            sources.blame(use.tree, (*use.path, "set", name, *fault.path), fault)
        if parameter.required and name not in given:
            sentence = f"the template {quoted(use.name)} needs a value for {name} ({parameter.description})"
            sources.blame(use.tree, use.path, Fault(sentence, f"add it, as set: {{{name}: ...}}"))
    return values


def _faults(parameter: Parameter, node: Node) -> tuple[Fault, ...]:
    try:
        parameter.read(data(node))
    except Faulty as error:
        return error.faults
    return ()


class _Filling:
    """Copies the config of a template, with values in place of `$name`."""

    def __init__(self, tree: Tree, values: Mapping[str, Value], sources: Sources) -> None:
        self._tree = tree
        self._values = values
        self._sources = sources
        self._used: set[str] = set()

    def config(self) -> Node:
        """The config. What is wrong with it is among the problems of the sources."""
        root = self._tree.get(("config",)) or Entries(self._tree.root.start)
        if isinstance(root, Entries) and "use" in root.items:
            fault = Fault("a template does not use others", "use both of them in a config")
            self._sources.blame(self._tree, ("config", "use", "[key]"), fault)
        filled = self._filled(root)
        for name in self._values:
            if name not in self._used:
                fault = Fault("is used nowhere in config", f"write ${name} where its value belongs")
                self._sources.blame(self._tree, ("parameters", name, "[key]"), fault)
        return filled

    def _filled(self, node: Node) -> Node:
        match node:
            case Leaf():
                return self._leaf(node)
            case Listing():
                items: list[Node] = []
                for item in node.items:
                    filled = self._filled(item)
                    if isinstance(item, Leaf) and isinstance(filled, Listing):
                        items += filled.items
                    elif not (filled is not item and nothing(filled)):
                        items.append(filled)
                return Listing(node.start, items)
            case Entries():
                return Entries(
                    node.start, {key: (start, self._filled(item)) for key, (start, item) in node.items.items()}
                )

    def _leaf(self, leaf: Leaf) -> Node:
        text = leaf.value.text
        if leaf.value.kind is not Kind.TEXT or "$" not in text:
            return leaf
        if text.startswith("$$"):
            return Leaf(leaf.start, Scalar(text[1:]))
        place, name = self._tree.places.at(leaf.start), text[1:]
        if not text.startswith("$"):
            remedy = "write the value out, or make all of it a parameter"
            self._sources.complain(place, quoted(text), "a parameter stands for a whole value only", remedy)
            return leaf
        if name not in self._values:
            self._sources.complain(place, quoted(text), "no such parameter", instead(name, self._values))
            return leaf
        self._used.add(name)
        value = self._values[name]
        if value is None:
            return Leaf(leaf.start, Scalar("", Kind.NOTHING))
        node = value.node(self._tree.places.stand_in(leaf.start, str(value))) if isinstance(value, Typed) else value
        self._sources.count(node, place)
        return node
