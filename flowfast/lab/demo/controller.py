"""flowfast on a gateway, as an operator would run it: `flowfast run CONFIG`, in the gateway's namespace."""

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from flowfast.lab.netns import LabError, Netns

START = 300
"""Seconds until the first round must be done: interpreter, imports and probing, emulated."""
DONE = "flowfast_reconcile_last_success_timestamp_seconds "
"""In the exporter's page once a round has gone well."""


class Controller:
    """One gateway's. It is not stopped at the end, but killed with its namespace."""

    def __init__(self, ns: Netns, config: str, folder: Path) -> None:
        self._ns = ns
        self._config = folder / f"{ns.name}.yaml"
        self._config.write_text(config)
        self._log = folder / f"{ns.name}.log"

    def start(self) -> None:
        """Starts it; returns at once."""
        with self._log.open("wb") as log:
            command = ["python3", "-m", "flowfast", "run", str(self._config)]
            self._process = self._ns.popen(command, stdout=log, stderr=subprocess.STDOUT)

    def wait(self, tick: Callable[[], None]) -> None:
        """Returns when its ruleset is applied and verified; calls `tick` now and then.

        LabError, with the end of its log, if it ends or takes too long.
        """
        deadline = time.monotonic() + START
        while not any(line.startswith(DONE) for line in self.metrics().splitlines()):
            if self._process.poll() is not None:
                raise LabError(
                    f"flowfast in {self._ns.name} ended (exit code {self._process.returncode}): {self._said()}"
                )
            if time.monotonic() > deadline:
                raise LabError(f"flowfast in {self._ns.name}: nothing applied within {START:g} s: {self._said()}")
            tick()
            time.sleep(0.2)

    def kill(self) -> None:
        """kill -9. `ip netns exec` becomes the program that it starts, so that this is flowfast itself."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def metrics(self) -> str:
        """The exporter's page, empty while it does not answer."""
        return self._ns.call(_scrape)

    def _said(self) -> str:
        return " / ".join(self._log.read_text(errors="replace").splitlines()[-5:]) or "it said nothing"


def _scrape() -> str:
    try:
        with urllib.request.urlopen("http://127.0.0.1:9833/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
