"""Where a BPF link is pinned so that it outlives who made it: in a bpffs that the machine's first process has, too.

`ip netns exec` and systemd's sandboxes have mounts of their own; what is pinned in one of those goes with them.
"""

import os
from contextlib import suppress
from pathlib import Path

MOUNTS, OF_INIT = Path("/proc/thread-self/mountinfo"), Path("/proc/1/mountinfo")
USUAL = Path("/sys/fs/bpf")


def lasting() -> Path | None:
    """The folder; None where no bpffs is mounted that lasts."""
    try:
        here, lasts = _mounts(MOUNTS.read_text()), set(_mounts(OF_INIT.read_text()).values())
    except OSError:
        return None
    found = [folder for folder, device in here.items() if device in lasts and _seen(folder) == device]
    return USUAL if USUAL in found else next(iter(found), None)


def _seen(folder: Path) -> str | None:
    """The file system that is found there: another mount may lie over it (a network namespace's own /sys)."""
    with suppress(OSError):
        device = folder.stat().st_dev
        return f"{os.major(device)}:{os.minor(device)}"
    return None


def _mounts(text: str) -> dict[Path, str]:
    """Every bpffs of a mountinfo (proc(5)): where it is, and the number of its file system."""
    found = {}
    for line in text.splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.split(" ", 1)[0] == "bpf":
            _, _, device, _, folder, *_ = mount.split(" ")
            found[Path(folder.encode().decode("unicode_escape"))] = device
    return found
