"""Prometheus and promtool: installed, or where deploy/setup.sh unpacks Debian's package."""

import shutil

from flowfast.lab.recipe import cache_folder


def tool(name: str) -> str:
    """The program's path."""
    unpacked = cache_folder() / "tools" / "usr" / "bin" / name
    found = shutil.which(name) or (str(unpacked) if unpacked.exists() else None)
    assert found is not None, f"{name} is missing: make setup-lab"
    return found
