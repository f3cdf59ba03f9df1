"""What the CPUs spent their time on, and what was dropped: /proc/stat, softirqs, softnet_stat, xfrm_stat, net/dev.

The time of interrupts and softirqs is what is neither idle nor a program's. /proc/stat has a column for it, but on most
kernels (tick-based accounting) a clock fills it that an idle CPU stops, so that it misses short interrupts; the idle
time is exact (NO_HZ: get_cpu_idle_time_us, kernel/time/tick-sched.c). Threaded NAPI is a program that does a softirq's
work (napi/DEVICE-ID), and counts as one.
"""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_NET = Path("/proc/thread-self/net")
_DEV_RX_PACKETS, _DEV_RX_DROP, _DEV_RX_FIFO, _DEV_TX_DROP = 1, 3, 4, 11


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds since boot of one CPU: idle, in programs (kernel or not), stolen by a hypervisor."""

    idle: float
    process: float
    steal: float


@dataclass(frozen=True, slots=True)
class Load:
    """One reading. `at`: time.monotonic(); `napi`: seconds of NAPI threads; `polls`: NET_RX softirqs; drops by name;
    `packets`: received by the devices."""

    at: float
    cpus: Mapping[int, CpuTime]
    napi: float = 0.0
    polls: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    packets: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """Between two readings: CPU seconds of all CPUs in interrupts and softirqs, and in programs; the rest as in Load.

    `busiest`: share of the time that the busiest CPU was not idle, 0 to 1.
    """

    seconds: float
    softirq: float
    process: float
    busiest: float
    polls: int
    drops: Mapping[str, int]
    packets: int


def spent(before: Load, now: Load) -> Spent:
    """Of the CPUs that were there both times. Clocks are rounded to hundredths; nothing comes out below 0."""
    seconds = now.at - before.at
    softirq = process = busiest = 0.0
    for cpu, ends in now.cpus.items():
        if (had := before.cpus.get(cpu)) is None:
            continue
        idle, programs = ends.idle - had.idle, ends.process - had.process
        softirq += seconds - idle - programs - (ends.steal - had.steal)
        process += programs
        busiest = max(busiest, 1 - idle / seconds if seconds else 0.0)
    napi = now.napi - before.napi
    drops = {name: max(0, count - before.drops.get(name, 0)) for name, count in now.drops.items()}
    return Spent(
        seconds=seconds,
        softirq=max(0.0, softirq + napi),
        process=max(0.0, process - napi),
        busiest=min(1.0, max(0.0, busiest)),
        polls=now.polls - before.polls,
        drops={name: count for name, count in drops.items() if count},
        packets=max(0, now.packets - before.packets),
    )


class RealLoad:
    """Reads this machine, and of the network what is of this network namespace and, by name, of these devices."""

    def __init__(self, devices: Iterable[str]) -> None:
        self._devices = frozenset(devices)
        self._napi = napi_threads()

    def read(self) -> Load:
        """Now. What a kernel does not have (xfrm_stat) is absent."""
        cpus = parse_stat(Path("/proc/stat").read_text(), os.sysconf("SC_CLK_TCK"))
        at = time.monotonic()
        drops = parse_xfrm_stat(_text(_NET / "xfrm_stat"))
        packets, dropped = parse_dev(_text(_NET / "dev"), self._devices)
        drops |= dropped
        drops["softnet backlog"] = parse_softnet(_text(_NET / "softnet_stat"))
        napi = sum(_ran(pid) for pid in self._napi)
        return Load(at, cpus, napi, parse_softirqs(_text(Path("/proc/softirqs"))), drops, packets)


class FakeLoad:
    """Readings that a test makes up, one after the other."""

    def __init__(self, readings: Iterable[Load]) -> None:
        self._readings = iter(readings)

    def read(self) -> Load:
        """The next one."""
        return next(self._readings)


def parse_stat(text: str, ticks: int) -> dict[int, CpuTime]:
    """By CPU, of /proc/stat (Documentation/filesystems/proc.rst, 1.7): user includes guests, iowait is idle."""
    cpus = {}
    for line in text.splitlines():
        name, *values = line.split() or [""]
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, idle, iowait, _irq, _softirq, steal = (int(value) / ticks for value in values[:8])
            cpus[int(name.removeprefix("cpu"))] = CpuTime(idle + iowait, user + nice + system, steal)
    return cpus


def parse_softirqs(text: str) -> int:
    """NET_RX of all CPUs."""
    counts = [line.split()[1:] for line in text.splitlines() if line.lstrip().startswith("NET_RX:")]
    return sum(int(count) for row in counts for count in row)


def parse_softnet(text: str) -> int:
    """Packets that found a CPU's backlog full: the second column, hexadecimal, a line a CPU."""
    return sum(int(line.split()[1], 16) for line in text.splitlines())


def parse_xfrm_stat(text: str) -> dict[str, int]:
    """Every error counter of IPsec by its name; those that are 0 too, so that their growth shows."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def parse_dev(text: str, devices: Iterable[str]) -> tuple[int, dict[str, int]]:
    """Of /proc/net/dev: packets that these devices received, and dropped ones by device and direction ("wan0 rx").

    Those that a device's ring missed are in the drops.
    """
    wanted, packets, drops = frozenset(devices), 0, {}
    for line in text.splitlines()[2:]:
        name, _, values = line.strip().partition(":")
        if name in wanted:
            counts = [int(value) for value in values.split()]
            packets += counts[_DEV_RX_PACKETS]
            drops[f"{name} rx"] = counts[_DEV_RX_DROP] + counts[_DEV_RX_FIFO]
            drops[f"{name} tx"] = counts[_DEV_TX_DROP]
    return packets, drops


def napi_threads() -> tuple[int, ...]:
    """Process ids of NAPI threads: kernel threads named napi/DEVICE-ID (netif_threaded_enable, net/core/dev.c)."""
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        if _text(comm).startswith("napi/"):
            found.append(int(comm.parts[2]))
    return tuple(found)


def _ran(pid: int) -> float:
    """Seconds that a process ran, of its schedstat; 0 of one that has ended."""
    fields = _text(Path(f"/proc/{pid}/schedstat")).split()
    return int(fields[0]) / 1e9 if fields else 0.0


def _text(path: Path) -> str:
    """The file's text; nothing where it is not there (any more)."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
