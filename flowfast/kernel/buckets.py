"""The tables of the XDP program, through memory that it shares with us: SPI -> CPU in buckets of four, slot -> CPU.

They are variables of the program, which cost a packet no lookup, and not hash maps, which cost it a hundred
instructions; so the hashing is done here. Each entry is one aligned write: no packet sees half of it.
"""

import errno
import mmap
import struct
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from flowfast.model.errors import KernelError
from flowfast.model.steering import SLOTS

BITS, WAYS = 16, 4  # BUCKETS_BITS and WAYS of bpf/steer.bpf.c
GOLDEN = 0x9E3779B1
_WAY = struct.Struct("=4sI")  # struct sa: the SPI in network order, and its CPU
_BUCKET = _WAY.size * WAYS
SIZE = _BUCKET << BITS
_SLOT = struct.Struct("=I")  # 1 + CPU; 0: flows of this slot pass
_PAGE = 4096


def bucket_of(spi: int) -> int:
    """The bucket of a SPI: it is hashed as the program reads it, in the machine's own order."""
    (read,) = struct.unpack("=I", spi.to_bytes(4))
    return (int(read) * GOLDEN & 0xFFFFFFFF) >> (32 - BITS)


def placed(held: bytes | mmap.mmap | bytearray, wanted: Mapping[int, int]) -> tuple[bytearray, list[int]]:
    """The whole map with these SAs, and the SPIs that found no room. Those that are there stay where they are."""
    new, full = bytearray(SIZE), []
    buckets: dict[int, list[int]] = {}
    for spi in wanted:
        buckets.setdefault(bucket_of(spi), []).append(spi)
    for number, spis in buckets.items():
        at = number * _BUCKET
        ways = [int.from_bytes(spi) for spi, _ in _WAY.iter_unpack(held[at : at + _BUCKET])]
        free = [way for way in range(WAYS) if ways[way] not in spis]
        for spi in spis:
            if spi not in ways and not free:
                full.append(spi)
                continue
            way = ways.index(spi) if spi in ways else free.pop(0)
            _WAY.pack_into(new, at + way * _WAY.size, spi.to_bytes(4), wanted[spi])
    return new, full


class _Shared:
    """A table's memory, from its map's descriptor, while `with Buckets(fd)` lasts."""

    size: int

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, self.size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._memory.close()


class Slots(_Shared):
    """The table `spread`: the CPU of each slot of flows; None: they pass."""

    size = _SLOT.size * SLOTS

    def held(self) -> tuple[int | None, ...]:
        """What it holds."""
        return tuple(number - 1 if number else None for (number,) in _SLOT.iter_unpack(self._memory[: self.size]))

    def hold(self, wanted: Sequence[int | None]) -> bool:
        """Makes it hold these; True if it did not."""
        had = self.held()
        for slot, (old, new) in enumerate(zip(had, wanted, strict=True)):
            if old != new:
                at = slot * _SLOT.size
                self._memory[at : at + _SLOT.size] = _SLOT.pack(0 if new is None else 1 + new)
        return had != tuple(wanted)


class Buckets(_Shared):
    """The table `sas`."""

    size = SIZE

    def hold(self, wanted: Mapping[int, int]) -> bool:
        """Makes it hold just these; True if it did not. Raises KernelError (ENOSPC), when all others are in, for SAs
        whose bucket is full: 10 000 random SPIs all fit 24 times of 25.
        """
        new, full = placed(self._memory, wanted)
        changed = False
        for page in range(0, SIZE, _PAGE):
            if self._memory[page : page + _PAGE] != new[page : page + _PAGE]:
                changed = True
                for at in range(page, page + _PAGE, _WAY.size):
                    if self._memory[at : at + _WAY.size] != new[at : at + _WAY.size]:
                        self._memory[at : at + _WAY.size] = bytes(new[at : at + _WAY.size])
        if full:
            shown = ", ".join(f"0x{spi:08x}" for spi in full[:4])
            raise KernelError(f"{len(full)} SAs found no room in the map of steered SAs: {shown}", errno.ENOSPC)
        return changed

    def held(self) -> dict[int, int]:
        """What it holds: SPI -> CPU."""
        ways = _WAY.iter_unpack(bytes(self._memory))
        return {int.from_bytes(spi): cpu for spi, cpu in ways if any(spi)}
