"""Our XDP programs on devices, and their maps: which SA, which slot of flows, goes to which CPU.

A program on a device, with its maps, lasts as long as the device: there is nothing on disk. Whoever comes after a crash
finds all of it by the device, and knows it by its name; another's program is never touched.
"""

import errno
import socket
import struct
from typing import Protocol

from flowfast.kernel import libbpf
from flowfast.kernel.buckets import Buckets, Slots
from flowfast.model.errors import FlowfastError, KernelError
from flowfast.model.knob import Knob
from flowfast.model.steering import GENERIC, Table

OBJECT = "steer"
OURS = "flowfast_"
NONE = "none"
QUEUE = 2048
"""Packets that may wait for a CPU; as many as xdp-tools and the kernel's samples use."""
SAS, SPREAD, CPUS = ".bss.sas", ".bss.spread", "cpus"
"""Its maps: variables in sections of these names, and the cpumap."""
_CPU = struct.Struct("=I")
_CPUMAP = struct.Struct("=II")


class Xdp(Protocol):
    """The maps of our programs."""

    def fill(self, table: Table) -> bool:
        """Makes the maps of the device's program hold the table; True if they did not. Raises KernelError."""


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
            if not found.name.startswith(OURS) or SPREAD not in found.maps:
                return found.name, ()
            with Slots(found.maps[SPREAD].fd) as slots:
                return found.name, slots.held()
    except (OSError, FlowfastError):
        return None, ()


class ProgramKnob:
    """The knob `program` of a device."""

    def read(self, knob: Knob) -> str | None:
        """The program's name, with GENERIC before it where it is that, or "none"; None where nobody can tell."""
        if not available():
            return None
        try:
            with libbpf.attached_xdp(socket.if_nametoindex(knob.object)) as found:
                return NONE if found is None else GENERIC * found.generic + found.name
        except OSError:
            return None

    def write(self, knob: Knob, value: str) -> None:
        """Puts our program there, or takes it off. Raises KernelError (EBUSY) for a device with another's program."""
        held = self.read(knob) or NONE
        name, generic = value.removeprefix(GENERIC), value.startswith(GENERIC)
        if held != NONE and not held.removeprefix(GENERIC).startswith(OURS):
            raise KernelError(f"{knob}: another XDP program is there: {held}", errno.EBUSY)
        index = socket.if_nametoindex(knob.object)
        if held != NONE and (value == NONE or held.startswith(GENERIC) is not generic):
            libbpf.attach_xdp(index, None, generic=held.startswith(GENERIC))  # a device has one mode at a time
            held = NONE
        if value == NONE:
            return
        with libbpf.loaded(OBJECT, only=name, entries={CPUS: libbpf.possible_cpus()}) as made:
            libbpf.attach_xdp(index, made.program(name), replace=held != NONE, generic=generic)


class RealXdp:
    """The kernel's."""

    def fill(self, table: Table) -> bool:
        """CPUs first, then who goes there, then the CPUs that nobody goes to any more: no packet finds its CPU gone."""
        try:
            index = socket.if_nametoindex(table.device)
        except OSError:
            return False  # gone meanwhile; the next round plans without it
        with libbpf.attached_xdp(index) as found:
            if found is None or not found.name.startswith(OURS):
                raise KernelError(f"{table.device}: flowfast's XDP program is not there any more", errno.ENOENT)
            maps = found.maps
            had = {n for n in range(libbpf.possible_cpus()) if maps[CPUS].get(_CPU.pack(n), _CPUMAP.size) is not None}
            changed = False
            for cpu in set(table.cpus) - had:
                maps[CPUS].update(_CPU.pack(cpu), _CPUMAP.pack(QUEUE, 0))
                changed = True
            if SAS in maps and not table.spread:
                with Buckets(maps[SAS].fd) as buckets:
                    changed |= buckets.hold(table.sas)
            if SPREAD in maps and table.spread:
                with Slots(maps[SPREAD].fd) as slots:
                    changed |= slots.hold(table.spread)
            for cpu in had - set(table.cpus):
                maps[CPUS].delete(_CPU.pack(cpu))
                changed = True
            return changed


class FakeXdp:
    """Maps in memory."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}

    def fill(self, table: Table) -> bool:
        """Keeps it."""
        had = self.tables.get(table.device)
        self.tables[table.device] = table
        return had != table
