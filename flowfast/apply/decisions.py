"""Decisions: what the governor of profile auto decided last, on disk for `flowfast show bulking` to tell."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from flowfast.apply.journal import FOLDER


class Decision(NamedTuple):
    """The stage that was chosen, in words with its figures, and when (seconds since the epoch)."""

    stage: str
    why: str
    at: float


class Decisions:
    """The last one of each device of this network namespace. In /run, beside the journals."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.path = folder / f"decisions-{Path('/proc/thread-self/ns/net').stat().st_ino}.json"

    def read(self) -> Mapping[str, Decision]:
        """By device; none where there is no file, or not one of ours."""
        try:
            return {device: Decision(*said) for device, said in json.loads(self.path.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def keep(self, device: str, decision: Decision) -> None:
        """Replaces the device's. Without a disk to write to, nothing is kept."""
        new = self.path.with_suffix(".new")
        with contextlib.suppress(OSError):
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps({**self.read(), device: decision}))
            new.replace(self.path)
