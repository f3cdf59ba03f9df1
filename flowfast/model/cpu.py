"""CPUs: what the machine has, and the two ways in which the kernel writes sets of them."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Cpu:
    """One logical CPU. `node` is its NUMA node; CPUs with the same (package, core) are siblings (SMT).

    `isolated`: taken from the scheduler (isolcpus, or an isolated cpuset partition), and not for us to load.
    """

    number: int
    online: bool = True
    node: int = 0
    package: int = 0
    core: int | None = None
    isolated: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """(package, core); a CPU of which the kernel names no core is one of its own."""
        return (self.package, self.number if self.core is None else self.core)


def cpus_of(listed: str) -> frozenset[int]:
    """CPUs of a list ("0-3,8"), as in smp_affinity_list; raises ValueError for what is none."""
    found: set[int] = set()
    for part in listed.strip().split(","):
        if not part:
            continue
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def cpu_list(cpus: Iterable[int]) -> str:
    """CPUs as a list: "0-3,8"; "" for none."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def cpus_of_mask(mask: str) -> frozenset[int]:
    """CPUs of a mask ("00000001,0000000f"), as in rps_cpus; raises ValueError for what is none."""
    bits = int(mask.strip().replace(",", "") or "0", 16)
    return frozenset(bit for bit in range(bits.bit_length()) if bits >> bit & 1)


def cpu_mask(cpus: Iterable[int]) -> str:
    """CPUs as a mask in groups of 32 bits, the highest first (lib/bitmap.c, bitmap_parse): "1,0000000f"."""
    bits = sum(1 << cpu for cpu in set(cpus))
    groups = []
    while True:
        bits, group = bits >> 32, bits & 0xFFFFFFFF
        groups.append(f"{group:08x}" if bits else f"{group:x}")
        if not bits:
            return ",".join(reversed(groups))
