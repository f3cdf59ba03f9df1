"""Modules that Debian leaves out of its kernels, compiled from its own linux-source against its own linux-headers."""

from pathlib import Path

from flowfast.lab.apt import Apt
from flowfast.lab.steps import Steps


def ensure(names: tuple[str, ...], version: str, apt: Apt, work: Path, steps: Steps) -> list[Path]:
    """The .ko files of the modules `names` for kernel `version`."""
    return []
