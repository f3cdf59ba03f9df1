"""What a list of facts is made of: rows of plain values, and the columns in which they are shown."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

Row = Mapping[str, object]
"""What is known of one thing; None is what is not known."""


class Column(NamedTuple):
    """A column of the table: its head, the key of its values, and how one looks (never called for None)."""

    head: str
    key: str
    text: Callable[[object], str] = str
