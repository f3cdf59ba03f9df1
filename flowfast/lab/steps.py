"""Running a build's programs: what they print goes to one log; a failure is one line, the end of it, and the log."""

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flowfast.model.errors import FlowfastError

TAIL = 20
"""Lines of what a program printed that an error shows."""


class BuildError(FlowfastError):
    """A step of a build failed. The text: what failed, the last lines of what it printed, and where the log is."""


class Steps:
    """Runs programs for the build of `what`: what they print goes to `log`, what is going on to `progress`."""

    def __init__(self, what: str, log: Path, progress: Callable[[str], None]) -> None:
        self.what = what
        self.log = log
        self._progress = progress
        self._start = time.monotonic()
        # Steps run beside each other: the log has the whole of one before that of the next.
        self._lock = threading.Lock()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")

    def say(self, sentence: str) -> None:
        """One line of progress, with the seconds since the build began."""
        self._progress(f"{self.what}: {time.monotonic() - self._start:.0f} s: {sentence}")

    def run(self, argv: Sequence[str]) -> str:
        """Runs `argv` to its end, standard input empty; returns its standard output (in the log too)."""
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
            )
        except FileNotFoundError as e:
            raise BuildError(f"{self.what}: {argv[0]} is not installed (`make setup-lab` installs it)") from e
        said = done.stdout + done.stderr
        with self._lock, self.log.open("a") as log:
            log.write(f"+ {' '.join(argv)}\n{said}")
        if done.returncode != 0:
            raise self.failure(f"{argv[0]} failed (exit code {done.returncode})", said)
        return done.stdout

    def failure(self, sentence: str, said: str = "") -> BuildError:
        """The error to raise when a step did not do what it should, having `said` something."""
        tail = "".join(f"\n    {line}" for line in said.splitlines()[-TAIL:])
        return BuildError(f"{self.what}: {sentence}; the log is {self.log}{tail}")
