"""A clock that does not run away: keeps the guest's CPU busy when nothing else does."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class Awake:
    """With --icount an idle guest's clock jumps to the next timer: while it waits for its disk, to any timeout.

    Paused, it does so again: exact in a load that keeps the CPU busy anyway, and quick where nothing happens.
    """

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(["chrt", "--idle", "0", "sh", "-c", "while :; do :; done"])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While something is measured."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)
