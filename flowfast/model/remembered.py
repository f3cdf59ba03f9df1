"""What a function gave for each argument, in less memory than lru_cache: there are caches of 10 000s of tunnels."""

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Remembered(dict[K, V]):
    """`remembered[key]` is what `make(key)` gave the first time.

    Nobody needs lru_cache's order: all is forgotten when there are `limit` of them.
    """

    def __init__(self, make: Callable[[K], V], limit: int = 1 << 16) -> None:
        super().__init__()
        self._make, self._limit = make, limit

    def __missing__(self, key: K) -> V:
        if len(self) >= self._limit:
            self.clear()
        value = self[key] = self._make(key)
        return value
