"""Numbers for things that a great many others name: eight bytes each instead of a tuple of its own."""

from collections.abc import Container
from typing import Generic, TypeVar

T = TypeVar("T")


class Numbered(Generic[T]):
    """A number for each thing, the same as long as it is kept."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._next = 0
        self.things: dict[int, T] = {}
        """By number. Another one after keep(), so that who reads it in another thread is not disturbed."""

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, thing: T) -> int:
        """Its number, a new one where it has none."""
        number = self._numbers.get(thing)
        if number is None:
            number, self._next = self._next, self._next + 1
            self._numbers[thing], self.things[number] = number, thing
        return number

    def keep(self, numbers: Container[int]) -> None:
        """Forgets all others. They will not be given again."""
        self.things = {number: thing for number, thing in self.things.items() if number in numbers}
        self._numbers = {thing: number for number, thing in self.things.items()}
