"""Which elements of a set overlap, as the kernel judges it."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import ip_address, ip_network

from flowfast.model.nftables import Element

Span = tuple[int, int]
"""First and last value of a part of an element."""


@lru_cache(maxsize=1 << 16)
def span(part: str) -> Span:
    """The values that a part of an element covers. A name covers one value, that nothing else has."""
    try:
        if "/" in part:
            network = ip_network(part)
            return int(network.network_address), int(network.broadcast_address)
        if "-" in part:
            first, last = (span(end)[0] for end in part.split("-"))
            return first, last
        number = int(part) if part.isdigit() else int(ip_address(part))
    except ValueError:
        number = int.from_bytes(part.encode())
    return number, number


class Overlaps:
    """Elements of one interval set, and whether a further one may join them."""

    def __init__(self, elements: Iterable[Element]) -> None:
        self._members: dict[tuple[Span, ...], Element] = {}
        self._sizes: dict[tuple[int, ...], int] = {}
        self._odd: list[tuple[Span, ...]] = []
        self._starts: list[int] = []
        for element in elements:
            self.add(element)

    def add(self, element: Element) -> None:
        """Takes it in, whatever it overlaps."""
        key = tuple(map(span, element))
        self._members[key] = element
        if len(key) == 1:
            self._starts.insert(bisect_left(self._starts, key[0][0]), key[0][0])
        if all(_aligned(part) for part in key):
            sizes = tuple(last - first for first, last in key)
            self._sizes[sizes] = self._sizes.get(sizes, 0) + 1
        else:
            self._odd.append(key)

    def clash(self, element: Element) -> bool:
        """True where the kernel would refuse it.

        A set of one interval (nft_set_rbtree.c) refuses any overlap. A set of concatenated ones (nft_set_pipapo.c) only
        looks whether the first or the last value of the new element lies in one that it has: a wider one may be added
        after a narrower one, not the other way round.
        """
        key = tuple(map(span, element))
        if key in self._members:
            return False
        if len(key) == 1 and self._inside(key[0]):
            return True
        return self._holds(tuple(first for first, _ in key)) or self._holds(tuple(last for _, last in key))

    def _inside(self, part: Span) -> bool:
        """True where an element of one part begins within `part`."""
        index = bisect_left(self._starts, part[0])
        return index < len(self._starts) and self._starts[index] <= part[1]

    def _holds(self, point: tuple[int, ...]) -> bool:
        return any(key in self._members for key in self._around(point)) or any(
            all(first <= value <= last for value, (first, last) in zip(point, key, strict=True)) for key in self._odd
        )

    def _around(self, point: tuple[int, ...]) -> Iterator[tuple[Span, ...]]:
        """The one key of each size of prefix that would hold the point."""
        for sizes in self._sizes:
            yield tuple((value & ~size, value | size) for value, size in zip(point, sizes, strict=True))


def _aligned(part: Span) -> bool:
    """True for a prefix: a power of two values that begin at a multiple of it."""
    size = part[1] - part[0] + 1
    return size & (size - 1) == 0 and part[0] % size == 0
