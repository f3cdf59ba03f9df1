"""Our XDP programs on devices, and their maps: which SA, which slot of flows, goes to which CPU.

A program on a device, with its maps, lasts as long as the device: there is nothing on disk. Whoever comes after a crash
finds all of it by the device, and knows it by its name; another's program is never touched.
"""

import errno
import socket
import struct
from collections.abc import Mapping
from typing import Protocol

from flowfast.kernel import libbpf
from flowfast.kernel.buckets import Buckets
from flowfast.model.errors import FlowfastError, KernelError
from flowfast.model.knob import Knob
from flowfast.model.steering import SLOTS, Table

OBJECT = "steer"
OURS = "flowfast_"
NONE = "none"
QUEUE = 2048
"""Packets that may wait for a CPU; as many as xdp-tools and the kernel's samples use."""
_NO_CPU = 0xFFFFFFFF
_CPU = struct.Struct("=I")
_COUNT = struct.Struct("=Q")


class Xdp(Protocol):
    """The maps of our programs."""

    def fill(self, table: Table) -> bool:
        """Makes the maps of the device's program hold the table; True if they did not. Raises KernelError."""

    def sent(self, device: str) -> Mapping[int, Mapping[int, int]]:
        """By CPU that packets were sent to, and CPU that took them in: how many. Empty without our program there."""


def available() -> bool:
    """Whether the program is compiled, and libbpf there to load it."""
    if not (libbpf.OBJECTS / f"{OBJECT}.bpf.o").exists():
        return False
    try:
        return libbpf.possible_cpus() > 0
    except FlowfastError:
        return False


def on_device(device: str) -> tuple[str | None, tuple[int | None, ...]]:
    """The name of the XDP program on a device, and what its table of flows holds, if it is ours."""
    if not available():
        return None, ()
    try:
        with libbpf.attached_xdp(socket.if_nametoindex(device)) as found:
            if found is None:
                return None, ()
            name, maps = found
            if not name.startswith(OURS) or "spread" not in maps:
                return name, ()
            return name, _spread(maps["spread"])
    except (OSError, FlowfastError):
        return None, ()


def _spread(held: libbpf.Map) -> tuple[int | None, ...]:
    found: list[int | None] = []
    for slot in range(SLOTS):
        value = held.get(_CPU.pack(slot), _CPU.size)
        cpu = _NO_CPU if value is None else _CPU.unpack(value)[0]
        found.append(None if cpu == _NO_CPU else cpu)
    return tuple(found)


class ProgramKnob:
    """The knob `program` of a device."""

    def read(self, knob: Knob) -> str | None:
        """The program's name, or "none"; None where there is no such device, or no way to tell."""
        if not available():
            return None
        try:
            with libbpf.attached_xdp(socket.if_nametoindex(knob.object)) as found:
                return NONE if found is None else found[0]
        except OSError:
            return None

    def write(self, knob: Knob, value: str) -> None:
        """Puts our program there, or takes it off. Raises KernelError (EBUSY) for a device with another's program."""
        held = self.read(knob)
        if held not in (None, NONE) and not held.startswith(OURS):
            raise KernelError(f"{knob}: another XDP program is there: {held}", errno.EBUSY)
        index = socket.if_nametoindex(knob.object)
        if value == NONE:
            libbpf.attach_xdp(index, None)
            return
        with libbpf.loaded(OBJECT, only=value, entries=dict.fromkeys(("cpus", "sent"), libbpf.possible_cpus())) as made:
            for slot in range(SLOTS):
                made.map("spread").update(_CPU.pack(slot), _CPU.pack(_NO_CPU))
            libbpf.attach_xdp(index, made.program(value), replace=held != NONE)


class RealXdp:
    """The kernel's."""

    def fill(self, table: Table) -> bool:
        """CPUs first, then who goes there, then the CPUs that nobody goes to any more: no packet finds its CPU gone."""
        try:
            index = socket.if_nametoindex(table.device)
        except OSError:
            return False  # gone meanwhile; the next round plans without it
        with libbpf.attached_xdp(index) as found:
            if found is None or not found[0].startswith(OURS):
                raise KernelError(f"{table.device}: flowfast's XDP program is not there any more", errno.ENOENT)
            maps = found[1]
            had = {cpu for cpu in range(libbpf.possible_cpus()) if maps["cpus"].get(_CPU.pack(cpu), 8) is not None}
            changed = False
            for cpu in set(table.cpus) - had:
                maps["cpus"].update(_CPU.pack(cpu), struct.pack("=II", QUEUE, 0))
                changed = True
            if "sas" in maps and not table.spread:
                with Buckets(maps["sas"].fd) as buckets:
                    changed |= buckets.hold(table.sas)
            if "spread" in maps and table.spread:
                changed |= _fill_spread(maps["spread"], table.spread)
            for cpu in had - set(table.cpus):
                maps["cpus"].delete(_CPU.pack(cpu))
                changed = True
            return changed

    def sent(self, device: str) -> Mapping[int, Mapping[int, int]]:
        """Asks the map."""
        try:
            with libbpf.attached_xdp(socket.if_nametoindex(device)) as attached:
                if attached is None or "sent" not in attached[1] or not attached[0].startswith(OURS):
                    return {}
                held, possible = attached[1]["sent"], libbpf.possible_cpus()
                values = {cpu: held.get(_CPU.pack(cpu), _COUNT.size * possible) or b"" for cpu in range(possible)}
        except OSError:
            return {}
        counts = {cpu: [packets for (packets,) in _COUNT.iter_unpack(value)] for cpu, value in values.items()}
        return {cpu: {by: n for by, n in enumerate(each) if n} for cpu, each in counts.items() if any(each)}


def _fill_spread(held: libbpf.Map, wanted: tuple[int | None, ...]) -> bool:
    had = _spread(held)
    for slot, (old, new) in enumerate(zip(had, wanted, strict=True)):
        if old != new:
            held.update(_CPU.pack(slot), _CPU.pack(_NO_CPU if new is None else new))
    return had != wanted


class FakeXdp:
    """Maps in memory. `seen`: what sent() says."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.seen: dict[str, dict[int, dict[int, int]]] = {}

    def fill(self, table: Table) -> bool:
        """Keeps it."""
        had = self.tables.get(table.device)
        self.tables[table.device] = table
        return had != table

    def sent(self, device: str) -> Mapping[int, Mapping[int, int]]:
        """As the test has it."""
        return self.seen.get(device, {})
