"""How much a daemon that runs for years remembers of what is gone."""

from itertools import islice
from typing import Any, TypeVar

SPARE = 1000
"""How many absent things are remembered at least."""

_Key = TypeVar("_Key")


def trim(known: dict[_Key, Any], most: int) -> None:
    """Forgets what came first, down to `most` entries."""
    for key in list(islice(known, max(0, len(known) - most))):
        del known[key]
