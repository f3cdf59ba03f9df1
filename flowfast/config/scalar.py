"""A single value as it stands in a YAML file: its text, and what YAML takes that text for.

Validators get this instead of a finished Python value, because only the field knows what was meant: `off` is a mode to
one and a boolean to another, and `1:30` is 90 to YAML 1.1 and nonsense to everybody else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What YAML 1.1 takes a value for, with the article, as an error says it. Text in quotes is always TEXT."""

    TEXT = "text"
    NUMBER = "a number"
    BOOLEAN = "a boolean"
    DATE = "a date"
    NOTHING = "nothing"
    MERGE = "a merge key"


@dataclass(frozen=True, slots=True)
class Scalar:
    """`text` is what was written, without quotes."""

    text: str
    kind: Kind = Kind.TEXT


def scalar(value: object) -> Scalar | None:
    """The value as a Scalar, also one given by Python code; None for a list, a mapping and everything else."""
    match value:
        case Scalar():
            return value
        case None:
            return Scalar("", Kind.NOTHING)
        case bool():
            return Scalar(str(value).lower(), Kind.BOOLEAN)
        case int() | float():
            return Scalar(str(value), Kind.NUMBER)
        case str():
            return Scalar(str(value), Kind.TEXT)
    return None


def found(value: object) -> str:
    """What a value is, in words: "a number", "a list"."""
    one = scalar(value)
    if one is not None:
        return str(one.kind)
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple | set | frozenset) else f"a {type(value).__name__}"
