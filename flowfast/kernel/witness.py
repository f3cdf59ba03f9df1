"""The witness: counts, while it looks, on which CPU the packets of each SA are really processed."""

from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct
from typing import Protocol

from flowfast.kernel import libbpf
from flowfast.model.sa import Direction
from flowfast.model.steering import Sighted, Sightings

_SEEN = Struct("!I4x4x")  # struct seen of bpf/witness.bpf.c; only the SPI is in network order
_REST = Struct("=4xII")
_COUNT = Struct("=Q")


class Witness(Protocol):
    """One that looks."""

    def sightings(self) -> Sightings:
        """Packets by SA and CPU since it began to look; of all network namespaces."""


class RealWitness:
    """Our tracing programs (bpf/witness.bpf.c)."""

    def __init__(self, held: libbpf.Loaded) -> None:
        self._seen = held.map("seen")

    def sightings(self) -> Sightings:
        """Asks the map."""
        found: dict[tuple[Direction, int], dict[int, int]] = {}
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
        yield RealWitness(held)


class FakeWitness:
    """One that saw what a test has it see: `with kernel.witness() as seen`."""

    def __init__(self, seen: Sightings | None = None) -> None:
        self.seen: Sightings = seen or {}

    @contextmanager
    def __call__(self) -> Iterator[Witness]:
        yield self

    def sightings(self) -> Sightings:
        """As it was made."""
        return self.seen
