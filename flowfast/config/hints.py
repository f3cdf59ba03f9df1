"""What somebody may have meant who wrote a key that does not exist, or left one out."""

import json
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import get_args

from flowfast.config.problem import Path, dotted
from flowfast.config.section import Section

_COMPARED = 64  # characters: difflib takes quadratic time, and no key is longer


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, if any is."""
    return next(iter(get_close_matches(word[:_COMPARED], list(known), n=1, cutoff=0.6)), None)


def instead(word: str, known: Iterable[str]) -> str:
    """A remedy for a word that is not among the known ones: the nearest of them, or all."""
    words = list(known)
    near = nearest(word, words)
    return f'did you mean "{near}"?' if near else f"there are: {', '.join(words) or 'none'}"


def meant(path: Path, model: type[Section]) -> str:
    """A remedy for the unknown key at the end of `path`, counted from the top of `model`."""
    key, here = str(path[-1]), _section(path[:-1], model)
    if near := nearest(key, here.model_fields):
        return f'did you mean "{near}"?'
    if elsewhere := next((known for known in keys(model) if known[-1] == key and known[:-1] != path[:-1]), None):
        return f"did you mean {dotted(elsewhere)}?"
    return f"known here: {', '.join(here.model_fields)}"


def example(path: Path, model: type[Section]) -> str:
    """A remedy for the missing key at the end of `path`: how it may look."""
    examples = _section(path[:-1], model).model_fields[str(path[-1])].examples or ()
    return next((f"as {path[-1]}: {json.dumps(one)}" for one in examples), "")


def _section(path: Path, model: type[Section]) -> type[Section]:
    """The model of the section at `path`, any name of a tunnel or parameter included."""
    section = model
    for step in path:
        section = _below(section, str(step)) or section
    return section


def _below(section: type[Section], key: str) -> type[Section] | None:
    field = section.model_fields.get(key)
    candidates = (field.annotation, *get_args(field.annotation)) if field else ()
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, Section)), None)


def keys(section: type[Section], above: Path = ()) -> Iterator[Path]:
    """Every key of a model; a tunnel's and a parameter's with NAME for its name."""
    for name in section.model_fields:
        yield (*above, name)
        if below := _below(section, name):
            yield from keys(below, (*above, name, "NAME") if name in ("tunnels", "parameters") else (*above, name))
