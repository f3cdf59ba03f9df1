"""Reads a config file or a template: a LoadedConfig, or a ConfigError that names everything that is wrong at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path as FilePath

from flowfast.config.expand import Given, Typed, expand, is_template
from flowfast.config.faults import validated
from flowfast.config.hints import instead
from flowfast.config.library import is_path, named, names
from flowfast.config.merge import merge
from flowfast.config.parameters import Template, Uses
from flowfast.config.problem import ConfigError, Fault, Path, Problem, dotted, quoted
from flowfast.config.schema import Config
from flowfast.config.sources import Sources, read_text
from flowfast.config.tree import Entries, Leaf, Listing, Node, Tree, nothing

Settings = Mapping[str, str]
"""Values for the parameters of a template by name, as typed: a list with commas between its items."""

NO_SETTINGS: Settings = {}
_NEEDS = "it needs at least devices.lan and devices.wan"
_TEMPLATE_NEEDS = "it needs template, description and config"


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid config, and where each value of it was written: in its file, or in a template that it uses."""

    config: Config
    tree: Tree
    file: str

    def where(self, path: Path) -> str:
        """`file:line:column` of the value at `path`; of what it stands in, where no file gives it."""
        return str(self.tree.of(path))

    def problem(self, path: Path, sentence: str, remedy: str = "", *, about: Path | None = None) -> Problem:
        """A Problem at the place of `path`. `about` is what it is said of, if not the value at that place itself."""
        place = self.tree.of(path)
        name = place.about(dotted(path if about is None else about))
        return Problem(place.file, place.line, place.column, name, sentence, remedy)


@dataclass(frozen=True, slots=True)
class LoadedTemplate:
    """A valid template, its file and its text."""

    template: Template
    file: str
    text: str


def load(path: str | PathLike[str], settings: Settings = NO_SETTINGS) -> LoadedConfig:
    """The config in the file, or in the template of ours of that name where there is no such file.

    Raises ConfigError, and nothing else, whatever is in the file or instead of it.
    """
    file = _file(fspath(path))
    return parse(read_text(file), file, settings)


def parse(text: str, file: str, settings: Settings = NO_SETTINGS) -> LoadedConfig:
    """The config in a text; `file` is what errors call it, and where other files are looked for. Raises ConfigError."""
    sources = Sources()
    tree = sources.tree(text, file, _NEEDS)
    if is_template(tree):
        tree = expand(tree, settings, sources)
    else:
        for name, value in settings.items():
            remedy = "change the file, or use a template"
            sources.complain(tree.of(()), str(Typed(name, value)), "a config has no parameters", remedy)
        tree = _with_templates(tree, file, sources)
    config = validated(Config, tree, sources)
    if config is None or sources.problems:
        raise ConfigError(sources.problems)
    return LoadedConfig(config, tree, file)


def load_template(path: str | PathLike[str]) -> LoadedTemplate:
    """The template in the file, or the one of ours of that name, as it stands. Raises ConfigError."""
    file = _file(fspath(path))
    text, sources = read_text(file), Sources()
    tree = sources.tree(text, file, _TEMPLATE_NEEDS)
    if not is_template(tree):
        sources.complain(tree.of(()), "", "is a config, not a template", "`flowfast check` reads it")
        sources.stop()
    template = validated(Template, tree, sources)
    if template is None or sources.problems:
        raise ConfigError(sources.problems)
    return LoadedTemplate(template, file, text)


def _file(word: str) -> str:
    ours = None if is_path(word) else named(word)
    return word if ours is None or FilePath(word).exists() else str(ours)


def _with_templates(own: Tree, file: str, sources: Sources) -> Tree:
    """The config with the templates that it uses. Raises ConfigError where it does not say which these are."""
    uses = own.get(("use",))
    if not isinstance(own.root, Entries) or uses is None or nothing(uses):
        return own
    if validated(Uses, Tree(Entries(own.root.start, {"use": own.root.items["use"]}), own.places), sources) is None:
        raise ConfigError(sources.problems)
    found = [
        _used(own, ("use", at), file, sources) for at in range(len(uses.items) if isinstance(uses, Listing) else 0)
    ]
    templates = [tree for tree in found if tree is not None]
    if len(templates) < len(found):
        raise ConfigError(sources.problems)
    return merge(own, templates, sources)


def _used(own: Tree, path: Path, file: str, sources: Sources) -> Tree | None:
    """The config of one template, its parameters filled in; None where there is no such template."""
    name, given = own.get((*path, "template")), own.get((*path, "set"))
    word = name.value.text if isinstance(name, Leaf) else ""
    template = _template(word, own, (*path, "template"), file, sources)
    if template is None:
        return None
    values: dict[str, Node] = {}
    if isinstance(given, Entries):
        values = {key: node for key, (_, node) in given.items.items()}
    return expand(template, Given(word, own, path, values), sources)


def _template(word: str, own: Tree, path: Path, file: str, sources: Sources) -> Tree | None:
    found = FilePath(file).parent / word if is_path(word) else named(word)
    if found is None:
        fault = Fault(f"{quoted(word)} is not the name of a template", instead(word, names()))
        sources.blame(own, path, fault)
        return None
    try:
        text = read_text(str(found))
    except ConfigError as error:
        for problem in error.problems:
            sources.blame(own, path, Fault(f"{quoted(word)}: {problem.sentence}", problem.remedy))
        return None
    tree = sources.tree(text, str(found), _TEMPLATE_NEEDS)
    if not is_template(tree):
        sources.blame(own, path, Fault(f"{quoted(word)} is a config, not a template", "copy from it what you need"))
        return None
    return tree
