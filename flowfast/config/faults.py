"""Validates a tree against a model of the schema, and says pydantic's errors in our words, at the place of each."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from flowfast.config.hints import example, meant
from flowfast.config.problem import Fault, Faulty, Path
from flowfast.config.section import Section
from flowfast.config.sources import Sources
from flowfast.config.tree import Tree, data
from flowfast.config.tunnels import Tunnels

_Model = TypeVar("_Model", bound=Section)


def validated(model: type[_Model], tree: Tree, sources: Sources) -> _Model | None:
    """The tree as a model; None where it is none, with every reason among the problems of `sources`."""
    value = data(tree.root)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for path, fault in _faults(error, value, tree, model):
            sources.blame(tree, path, fault)
        return None


def _faults(error: ValidationError, value: object, tree: Tree, model: type[Section]) -> list[tuple[Path, Fault]]:
    faults = [
        fault for entry in error.errors(include_url=False) for fault in _said(cast(dict[str, Any], entry), tree, model)
    ]
    # Tunnels are compared with each other only once each is valid: compare those that are.
    bad = {path[1] for path, _ in faults if len(path) > 1 and path[0] == "tunnels"}
    tunnels = value.get("tunnels") if isinstance(value, Mapping) else None
    if bad and isinstance(tunnels, Mapping):
        try:
            TypeAdapter(Tunnels).validate_python({name: one for name, one in tunnels.items() if name not in bad})
        except ValidationError as among:
            for entry in among.errors(include_url=False):
                said = _said(cast(dict[str, Any], entry), tree, model)
                faults += [(("tunnels", *path), fault) for path, fault in said]
    return faults


def _said(entry: dict[str, Any], tree: Tree, model: type[Section]) -> list[tuple[Path, Fault]]:
    """One of pydantic's errors in our words. Those of our own validators have them already."""
    path: Path = entry["loc"]
    match entry["type"]:
        case "value_error" if isinstance(fault := entry["ctx"]["error"], Faulty):
            return [((*path, *one.path), Fault(one.sentence, one.remedy)) for one in fault.faults]
        case "missing":
            sentence = "missing" if tree.get(path) is None else "has no value"
            return [(path, Fault(sentence, example(path, model)))]
        case "extra_forbidden":
            return [((*path, "[key]"), Fault("unknown key", meant(path, model)))]
    return [(path, Fault(str(entry["msg"])))]
