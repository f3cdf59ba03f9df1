"""Reads and turns knobs, and a fake that holds them in memory. Whoever turns one writes the journal first."""

import errno
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from flowfast.kernel import ethtool, xdp
from flowfast.kernel.features import FeatureKnob
from flowfast.kernel.modules import ModuleKnob
from flowfast.kernel.napi import NapiKnob
from flowfast.kernel.nic_settings import NicKnob
from flowfast.kernel.shield import ShieldKnob
from flowfast.kernel.sizes import SizeKnob
from flowfast.model.bulk import napi_setting
from flowfast.model.cpu import cpu_list, cpu_mask, cpus_of, cpus_of_mask
from flowfast.model.errors import KernelError, Unavailable
from flowfast.model.knob import Knob, KnobKind, Settings

MASKS = ("rps_cpus", "xps_cpus")
"""Files that want a mask of CPUs, not a list."""


class Knobs(Protocol):
    """The knobs of this network namespace's devices, and of the machine."""

    def read(self, knobs: Iterable[Knob]) -> Settings:
        """Those of `knobs` that are there, with their values. Raises KernelError for one that may not be read."""

    def turn(self, knob: Knob, value: str) -> None:
        """Writes one value. Raises KernelError, with the kernel's word, where it is refused."""


class Adapter(Protocol):
    """The knobs of one kind."""

    def read(self, knob: Knob) -> str | None:
        """The value; None where there is no such knob. Raises OSError."""

    def write(self, knob: Knob, value: str) -> None:
        """Writes it. Raises OSError."""


class Files:
    """Knobs that are files under /sys and /proc."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def read(self, knob: Knob) -> str | None:
        """The file's content without its newline."""
        try:
            text = self._path(knob).read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as refused:
            # A device that has this file for form's sake: xps_cpus of one with a single queue.
            if refused.errno in (errno.ENOENT, errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP):
                return None
            raise
        return cpu_list(cpus_of_mask(text)) if knob.name.endswith(MASKS) else text

    def write(self, knob: Knob, value: str) -> None:
        """Writes without creating."""
        text = cpu_mask(cpus_of(value)) if knob.name.endswith(MASKS) else value
        with self._path(knob).open("r+") as file:
            file.write(text)

    def _path(self, knob: Knob) -> Path:
        match knob.kind:
            case KnobKind.DEVICE:
                folder = self._root / "sys/class/net" / knob.object
                if self._root == Path("/"):
                    _ours(knob.object, folder)
                return folder / knob.name
            case KnobKind.IRQ:
                return self._root / "proc/irq" / knob.object / knob.name
            case _:
                return self._root / "proc/sys" / knob.name.translate(str.maketrans("./", "/."))


def _ours(device: str, folder: Path) -> None:
    """/sys shows the devices of the network namespace that it was mounted in: another's must not be touched."""
    try:
        index = socket.if_nametoindex(device)
        shown = int((folder / "ifindex").read_text())
    except (OSError, ValueError):
        return  # not there: the caller finds out by itself
    if index != shown:
        raise Unavailable(
            f"{device}: /sys shows another network namespace's device of that name "
            "(start flowfast by `ip netns exec`, or mount sysfs anew)"
        )


class RealKnobs:
    """The machine's."""

    def __init__(self) -> None:
        files, features = Files(), FeatureKnob()
        self._adapters: dict[KnobKind, Adapter] = {
            KnobKind.DEVICE: files,
            KnobKind.FEATURE: features,
            KnobKind.SHIELD: ShieldKnob(features.lists),
            KnobKind.IRQ: files,
            KnobKind.SYSCTL: files,
            KnobKind.RSS: ethtool.RssKnobs(),
            KnobKind.NTUPLE: ethtool.Rule(),
            KnobKind.XDP: xdp.ProgramKnob(),
            KnobKind.NAPI: NapiKnob(),
            KnobKind.SIZE: SizeKnob(),
            KnobKind.NIC: NicKnob(),
            KnobKind.MODULE: ModuleKnob(),
        }

    def read(self, knobs: Iterable[Knob]) -> Settings:
        """Asks each."""
        found = {}
        for knob in knobs:
            try:
                value = self._adapters[knob.kind].read(knob)
            except OSError as refused:
                raise KernelError(f"{knob}: {refused.strerror}", refused.errno or 0) from refused
            if value is not None:
                found[knob] = value
        return found

    def turn(self, knob: Knob, value: str) -> None:
        """Writes it."""
        try:
            self._adapters[knob.kind].write(knob, value)
        except OSError as refused:
            raise KernelError(f"{knob} = {value or 'none'}: {refused.strerror}", refused.errno or 0) from refused


class FakeKnobs:
    """Knobs that a test makes up. `turned`: every turn, in order; `refuse`: those that cannot be turned; `makes`: what
    a driver makes of them, whatever it is asked for."""

    def __init__(self, values: Settings | None = None) -> None:
        self.values = dict(values or {})
        self.turned: list[tuple[Knob, str]] = []
        self.refuse: set[Knob] = set()
        self.makes: dict[Knob, str] = {}

    def read(self, knobs: Iterable[Knob]) -> Settings:
        """Those that were set."""
        return {knob: self.values[knob] for knob in knobs if knob in self.values}

    def turn(self, knob: Knob, value: str) -> None:
        """Sets one that is there."""
        if knob not in self.values or knob in self.refuse:
            raise KernelError(f"{knob} = {value}: {os.strerror(5)}", 5)
        self.values[knob] = self.makes.get(knob, value)
        self.turned.append((knob, value))
        if knob.kind is KnobKind.NIC and knob.name.startswith("channels"):
            self.renew(knob.object)

    def renew(self, device: str) -> None:
        """The driver makes its NAPIs anew: others, with other IDs, as they are without anybody's doing."""
        for knob in [each for each in self.values if each.kind is KnobKind.NAPI and each.object == device]:
            del self.values[knob]
            _, number, name = knob.name.split()
            self.values[Knob(KnobKind.NAPI, device, napi_setting(int(number) + 100, name))] = "0"
