"""Kernel modules as knobs: loaded by modprobe(8), unloaded by rmmod(8)."""

import subprocess
from pathlib import Path

from flowfast.model.errors import KernelError
from flowfast.model.knob import Knob

LOADED, ABSENT = "loaded", "absent"
_TIMEOUT = 30


class ModuleKnob:
    """Whether a module is loaded."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def read(self, knob: Knob) -> str | None:
        """One that is built in is loaded, too. None where nobody can say (no /proc/modules)."""
        try:
            loaded = {line.split()[0] for line in (self._root / "proc/modules").read_text().splitlines()}
        except OSError:
            return None
        return LOADED if knob.name in loaded or (self._root / "sys/module" / knob.name).exists() else ABSENT

    def write(self, knob: Knob, value: str) -> None:
        """Loads or unloads it. Raises KernelError: there is none, a blacklist forbids it, an SA uses it."""
        command = ["modprobe", "-b", knob.name] if value == LOADED else ["rmmod", knob.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KernelError(f"{knob}: {error}", 2) from error
        if done.returncode:
            words = " ".join(done.stderr.split()) or f"{command[0]} ended with {done.returncode}"
            raise KernelError(f"{knob} = {value}: {words}", 16)
