"""Running a build's programs: all output goes to one log, a failure is one line with the log's tail and its place."""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flowfast.model.errors import FlowfastError

TAIL = 20
"""Lines of the log that an error shows."""


class BuildError(FlowfastError):
    """A step of a build failed. The text: what failed, the log's last lines, and where the whole log is."""


class Steps:
    """Runs programs for the build of `what`: what they print goes to `log`, what is going on to `progress`."""

    def __init__(self, what: str, log: Path, progress: Callable[[str], None]) -> None:
        self.what = what
        self.log = log
        self._progress = progress
        self._start = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")

    def say(self, sentence: str) -> None:
        """One line of progress, with the seconds since the build began."""
        self._progress(f"{self.what}: {time.monotonic() - self._start:.0f} s: {sentence}")

    def run(self, argv: Sequence[str]) -> str:
        """Runs `argv` to its end, standard input empty; returns its standard output (in the log too)."""
        with self.log.open("a") as log:
            log.write(f"+ {' '.join(argv)}\n")
            log.flush()
            try:
                done = subprocess.run(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, check=False
                )
            except FileNotFoundError as e:
                raise BuildError(f"{self.what}: {argv[0]} is not installed (`make setup-lab` installs it)") from e
            log.write(done.stdout)
        if done.returncode != 0:
            raise self.failure(f"{argv[0]} failed (exit code {done.returncode})")
        return done.stdout

    def failure(self, sentence: str) -> BuildError:
        """The error to raise when a step did not do what it should."""
        tail = "\n".join("    " + line for line in self.log.read_text(errors="replace").splitlines()[-TAIL:])
        return BuildError(f"{self.what}: {sentence}; the end of {self.log}:\n{tail}")
