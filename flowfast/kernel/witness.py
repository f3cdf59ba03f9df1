"""The witness: counts, while it looks, on which CPU the packets of each SA are really processed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from struct import Struct
from typing import NamedTuple

from flowfast.kernel import libbpf
from flowfast.model.sa import Direction

_SEEN = Struct("!I4x4x")  # struct seen of bpf/witness.bpf.c; only the SPI is in network order
_REST = Struct("=4xII")
_COUNT = Struct("=Q")


class Sighted(NamedTuple):
    """An SA's direction and SPI."""

    direction: Direction
    spi: int


Sightings = Mapping[Sighted, Mapping[int, int]]
"""By SA and CPU: packets."""


class Witness:
    """One that looks."""

    def __init__(self, held: libbpf.Loaded) -> None:
        self._seen = held.map("seen")

    def sightings(self) -> Sightings:
        """Packets by SA and CPU since it began to look; of all network namespaces."""
        found: dict[Sighted, dict[int, int]] = {}
        for key in self._seen.keys(_REST.size):
            value = self._seen.get(key, _COUNT.size)
            outbound, cpu = _REST.unpack(key)
            if value is not None:
                sa = Sighted(Direction.OUT if outbound else Direction.IN, _SEEN.unpack(key)[0])
                found.setdefault(sa, {})[cpu] = _COUNT.unpack(value)[0]
        return found


@contextmanager
def witness() -> Iterator[Witness]:
    """Looks while the context lasts. Raises Unavailable without libbpf or the program, KernelError where refused.

    It needs the kernel's BTF (CONFIG_DEBUG_INFO_BTF) and its function tracer, which Debian's kernels have.
    """
    with libbpf.loaded("witness") as held:
        for name in ("inbound", "outbound"):
            held.attach(name)
        yield Witness(held)
