"""Devices of this project's own modules (module/*.c), as wires between namespaces.

A module is compiled for an image's kernel (out_of_tree.py) and given to each boot of it; it loads in a guest only.
"""

import subprocess
from pathlib import Path

from flowfast.lab.wires import End

FOLDER = Path("/run/lab")
"""Where the guest's init puts the modules."""


class Sims:
    """Pairs of devices of a module of this project's, called after it; `settings` are its parameters."""

    def __init__(self, module: str, pairs: int = 1, **settings: int) -> None:
        more = [f"{name}={value}" for name, value in settings.items()]
        subprocess.run(["insmod", str(FOLDER / f"{module}.ko"), "lab=1", f"pairs={pairs}", *more], check=True)
        self._module = module
        self._free = [(f"{module}{2 * pair}", f"{module}{2 * pair + 1}") for pair in range(pairs)]

    def join(self, one: End, other: End) -> None:
        """Moves a pair to where it is wanted."""
        for name, end in zip(self._free.pop(0), (one, other), strict=True):
            subprocess.run(["ip", "link", "set", name, "netns", end.ns.name, "name", end.name], check=True)

    def close(self) -> None:
        """Removes all, wherever they are."""
        subprocess.run(["rmmod", self._module], check=True)
