"""Heard: the last generation of nftables that the controller followed, on disk for the one that comes after it.

A flow on the flowtable never sees the firewall. Whoever changed it while no controller ran must still be obeyed: a
controller that starts at another generation than the last one left takes every flow off. Anything that goes wrong
here (no file, an old one) leads to that, too, which costs each connection one packet on the full path.
"""

import contextlib
from pathlib import Path

from flowfast.apply.journal import FOLDER


class Heard:
    """The generation of this network namespace's ruleset. In /run: a reboot starts from nothing, as the kernel does."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.path = folder / f"generation-{Path('/proc/thread-self/ns/net').stat().st_ino}"

    def read(self) -> int | None:
        """The generation that was kept; None: nothing that can be read."""
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            return None

    def keep(self, generation: int) -> None:
        """Every change up to this generation has been followed. Without a disk to write to, nothing is kept."""
        new = self.path.with_suffix(".new")
        with contextlib.suppress(OSError):
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(f"{generation}\n")
            new.replace(self.path)
