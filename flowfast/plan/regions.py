"""Cuts overlapping pairs of prefixes into disjoint ones, as nft's concatenated interval sets demand.

An SPD is ordered, an nft set is not, and the kernel refuses elements that overlap (ENOTEMPTY,
net/netfilter/nft_set_pipapo.c). So the SPD is decorrelated (RFC 4301 appendix B), for rectangles of prefixes: whoever
comes first owns the overlap, and a later one keeps what is left. Intersections and differences of prefixes are prefixes
again, so that nothing is lost and the elements stay readable.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Generic, NamedTuple, TypeVar

Owner = TypeVar("Owner")
Prefix = tuple[int, int]
"""First address as a number, and prefix length."""


class Pair(NamedTuple):
    """A rectangle: source prefix times destination prefix."""

    src: Prefix
    dst: Prefix


class TooFragmented(Exception):
    """A rectangle would have to be cut into more than `limit` pieces."""


@lru_cache(maxsize=65536)
def parse(text: str) -> Prefix:
    """`10.1.0.0/16` -> (number, 16); an address alone is a host. Raises ValueError or OSError on anything else."""
    address, _, length = text.partition("/")
    packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    bits = len(packed) * 8
    size = int(length) if length else bits
    return int.from_bytes(packed) >> (bits - size) << (bits - size), size


@lru_cache(maxsize=65536)
def text_of(prefix: Prefix, bits: int) -> str:
    """The prefix as nft writes it: a host without its length. `bits` is 32 or 128."""
    address = inet_ntop(AF_INET6 if bits == 128 else AF_INET, prefix[0].to_bytes(bits // 8))
    return address if prefix[1] == bits else f"{address}/{prefix[1]}"


def _ancestor(prefix: Prefix, length: int, bits: int) -> Prefix:
    return prefix[0] >> (bits - length) << (bits - length), length


def _contains(outer: Prefix, inner: Prefix, bits: int) -> bool:
    return outer[1] <= inner[1] and _ancestor(inner, outer[1], bits) == outer


def _difference(whole: Prefix, hole: Prefix, bits: int) -> Iterator[Prefix]:
    """`whole` without `hole` (which lies in it): the sibling at every length between."""
    for length in range(whole[1] + 1, hole[1] + 1):
        base, _ = _ancestor(hole, length, bits)
        yield base ^ (1 << (bits - length)), length


def subtract(pair: Pair, other: Pair, bits: int) -> Iterator[Pair]:
    """`pair` without `other`, as disjoint rectangles; the two must overlap."""
    src, dst = pair
    if not _contains(other.src, src, bits):
        for rest in _difference(src, other.src, bits):
            yield Pair(rest, dst)
        src = other.src
    if not _contains(other.dst, dst, bits):
        for rest in _difference(dst, other.dst, bits):
            yield Pair(src, rest)


Value = TypeVar("Value")


class _Index(Generic[Value]):
    """Prefixes by containment: finds those that contain a prefix, and those that lie in it.

    There is one for each source prefix, most of them with one value, so that one is made of as little as will do.
    """

    __slots__ = ("_lengths", "_sorted", "bits", "values")

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.values: dict[Prefix, Value] = {}
        self._lengths = 0  # a bit for each length that there ever was
        self._sorted: list[Prefix] | None = None  # from when somebody first asks what lies in a prefix

    def add(self, prefix: Prefix, value: Value) -> None:
        if self._sorted is not None and prefix not in self.values:
            insort(self._sorted, prefix)
        self._lengths |= 1 << prefix[1]
        self.values[prefix] = value

    def remove(self, prefix: Prefix) -> None:
        del self.values[prefix]
        if self._sorted is not None:
            del self._sorted[bisect_left(self._sorted, prefix)]

    def overlapping(self, prefix: Prefix) -> Iterator[tuple[Prefix, Value]]:
        base, own = prefix
        longer = self._lengths >> (own + 1)
        shorter = self._lengths ^ longer << (own + 1)
        while shorter:
            length = (shorter & -shorter).bit_length() - 1
            shorter &= shorter - 1
            above = prefix if length == own else _ancestor(prefix, length, self.bits)
            if above in self.values:
                yield above, self.values[above]
        if not longer:
            return
        if self._sorted is None:
            self._sorted = sorted(self.values)
        end = base + (1 << (self.bits - own))
        for at in range(bisect_left(self._sorted, (base, own + 1)), len(self._sorted)):
            below = self._sorted[at]
            if below[0] >= end:
                break
            if below[1] > own:
                yield below, self.values[below]


class Regions(Generic[Owner]):
    """Disjoint rectangles with their owners, first come first served. `bits` is 32 for IPv4, 128 for IPv6."""

    def __init__(self, bits: int, limit: int = 256) -> None:
        self.bits = bits
        self.limit = limit
        self._by_src: _Index[_Index[Owner]] = _Index(bits)

    def overlapping(self, pair: Pair) -> Iterator[tuple[Pair, Owner]]:
        """Every rectangle placed so far that shares an address pair with this one."""
        for src, by_dst in self._by_src.overlapping(pair.src):
            for dst, owner in by_dst.overlapping(pair.dst):
                yield Pair(src, dst), owner

    def add(self, pair: Pair, owner: Owner) -> None:
        """Gives the owner what of the rectangle nobody has yet; of his own, the larger absorbs the smaller.

        Raises TooFragmented, and then nothing was changed.
        """
        overlapping = list(self.overlapping(pair))
        if not overlapping:
            self._place(pair, owner)
            return
        pieces = [pair]
        absorbed: list[Pair] = []
        for taken, who in overlapping:
            if who is owner or who == owner:
                if self._covers(taken, pair):
                    return
                if self._covers(pair, taken):
                    absorbed.append(taken)
                    continue
            pieces = [rest for piece in pieces for rest in self._without(piece, taken)]
            if len(pieces) > self.limit:
                raise TooFragmented
        for old in absorbed:
            self._by_src.values[old.src].remove(old.dst)
        for piece in pieces:
            self._place(piece, owner)

    def _place(self, piece: Pair, owner: Owner) -> None:
        by_dst = self._by_src.values.get(piece.src)
        if by_dst is None:
            by_dst = _Index(self.bits)
            self._by_src.add(piece.src, by_dst)
        by_dst.add(piece.dst, owner)

    def _covers(self, outer: Pair, inner: Pair) -> bool:
        return _contains(outer.src, inner.src, self.bits) and _contains(outer.dst, inner.dst, self.bits)

    def _without(self, piece: Pair, taken: Pair) -> Iterable[Pair]:
        apart = not (
            (_contains(piece.src, taken.src, self.bits) or _contains(taken.src, piece.src, self.bits))
            and (_contains(piece.dst, taken.dst, self.bits) or _contains(taken.dst, piece.dst, self.bits))
        )
        return (piece,) if apart else subtract(piece, taken, self.bits)

    def elements(self) -> Iterator[tuple[tuple[str, str], Owner]]:
        """Every rectangle as an nft element (source, destination), with its owner."""
        for src, by_dst in self._by_src.values.items():
            for dst, owner in by_dst.values.items():
                yield (text_of(src, self.bits), text_of(dst, self.bits)), owner
