"""Pairs of prefixes as nft sets whose lookup costs a packet the same, however many pairs there are.

The kernel looks a concatenation of intervals up in all elements at once, a bit each (net/netfilter/nft_set_pipapo.c):
256 of them cost what one does, 10 000 cost 4000 instructions more. So where there are more, those of one shape (the
two lengths of their prefixes) are a set of their own, without intervals: masked, the addresses of a packet either are
in that hash table or not. There are few shapes; what is left of many shapes stays a set of intervals.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import NamedTuple

from flowfast.model.nftables import Element, Set

FEW = 256
"""Elements up to which there is one set of intervals."""
SHAPES = 8
"""Sets of one shape at most: a packet that is in none of them is looked for in each."""


class Family(NamedTuple):
    """A family in nft's words: of its headers, at the end of a set's name, of its addresses."""

    ip: str
    digit: str
    kind: str

    @property
    def bits(self) -> int:
        """Of an address."""
        return 32 if self.digit == "4" else 128


FAMILIES = {2: Family("ip", "4", "ipv4_addr"), 10: Family("ip6", "6", "ipv6_addr")}
"""By address family (AF_INET, AF_INET6)."""

Shape = tuple[int, int]


class Shared(dict[str, str]):
    """Texts that are equal as one object each: `shared[text]`."""

    def __missing__(self, text: str) -> str:
        self[text] = text
        return text


@dataclass(frozen=True, slots=True)
class Part:
    """One set, and how addresses are looked up in it. `shape` None: it has intervals."""

    family: Family
    set: Set
    shape: Shape | None = None

    def key(self, before: str = "") -> str:
        """The source and destination of a packet, as the set has them; of a tuple, with `before` "ct reply "."""
        ends = [f"{before}{self.family.ip} {end}" for end in ("saddr", "daddr")]
        if self.shape is not None:
            ends = [_masked(end, length, self.family.bits) for end, length in zip(ends, self.shape, strict=True)]
        return " . ".join(ends)


def parts(
    name: str,
    family: Family,
    elements: Mapping[Element, str],
    *,
    data: str | None = None,
    mark: bool = False,
    shared: Shared | None = None,
) -> list[Part]:
    """The sets for these elements: pairs of prefixes, with `mark` a mark as third; with `data` they are maps.

    Sets that are given the same `shared` hold each text once: 10 000 pairs are in five sets.
    """
    kind = f"{family.kind} . {family.kind}" + (" . mark" if mark else "")
    name += family.digit
    rest, found = elements, []
    if len(elements) > FEW:
        by_shape = _by_shape(elements, family.bits, Shared() if shared is None else shared)
        frequent = Counter({shape: len(those) for shape, those in sorted(by_shape.items())}).most_common(SHAPES)
        for shape in sorted(shape for shape, _ in frequent):
            of = Set(f"{name}_{shape[0]}_{shape[1]}", kind, data=data, elements=by_shape.pop(shape))
            found.append(Part(family, of, shape))
        rest = {
            (_prefix(key[0], src, family.bits), _prefix(key[1], dst, family.bits), *key[2:]): value
            for (src, dst), those in by_shape.items()
            for key, value in those.items()
        }
    if rest or not found:
        found.append(Part(family, Set(name, kind, interval=True, data=data, elements=rest)))
    return found


def prefixes(name: str, sets: Iterable[Set]) -> Iterator[tuple[str, str]]:
    """The pairs of prefixes in those of the sets that parts() makes for a name with its family's digit ("fast4")."""
    for each in sets:
        if each.name == name:
            yield from ((element[0], element[1]) for element in each.elements)
        elif each.name.startswith(f"{name}_"):
            src, dst = each.name.removeprefix(f"{name}_").split("_")
            yield from ((f"{element[0]}/{src}", f"{element[1]}/{dst}") for element in each.elements)


def _by_shape(elements: Mapping[Element, str], bits: int, shared: Shared) -> dict[Shape, dict[Element, str]]:
    """The elements by shape, prefixes without their lengths."""
    found: defaultdict[tuple[str, str], dict[Element, str]] = defaultdict(dict)
    for element, value in elements.items():
        src, _, src_length = element[0].partition("/")
        dst, _, dst_length = element[1].partition("/")
        found[src_length, dst_length][shared[src], shared[dst], *element[2:]] = value
    return {(int(src or bits), int(dst or bits)): those for (src, dst), those in found.items()}


def _prefix(base: str, length: int, bits: int) -> str:
    return base if length == bits else f"{base}/{length}"


def _masked(end: str, length: int, bits: int) -> str:
    # In parentheses: `counter name` takes no other expression behind a dot (nft 1.0.6 to 1.1.7).
    return end if length == bits else f"({end} & {_mask(length, bits)})"


@cache
def _mask(length: int, bits: int) -> str:
    ones = (1 << bits) - (1 << bits - length)
    return str(ip_address(ones.to_bytes(bits // 8)))
