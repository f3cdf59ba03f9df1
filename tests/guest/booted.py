"""systemd as the first process of namespaces of its own, in a gateway of the lab: what a router's init is to a service.

The guest's own init starts one command and is no systemd. This one gets a PID namespace, a /run and a cgroup tree,
keeps the gateway's network, and starts nothing but what it is asked for.
"""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from flowfast.lab.netns import Netns

INIT = """\
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env container=lab /lib/systemd/systemd --unit=lab.target --log-target=console
"""
TARGET = Path("/etc/systemd/system/lab.target")
PATIENCE = 300.0
"""Seconds for whatever systemd does: it is emulated."""


class Booted:
    """systemd in a namespace, while `with Booted(gw1, folder)` lasts; what it starts ends with it."""

    def __init__(self, ns: Netns, folder: Path) -> None:
        self.ns, self.log = ns, folder / "systemd.log"
        self._outside: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def __enter__(self) -> Self:
        TARGET.write_text("[Unit]\nDescription=Nothing but what is asked for\n")
        spaces = ["--pid", "--mount", "--mount-proc", "--ipc", "--uts", "--cgroup"]
        command = ["unshare", "--fork", "--kill-child", *spaces]
        with self.log.open("wb") as log:
            self._outside = self.ns.popen([*command, "sh", "-ec", INIT], stdout=log, stderr=log)
        self.until(lambda: self._inside() and self._up(), "booted")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._outside is not None
        self._outside.kill()  # and with its PID namespace all that is in it
        self._outside.wait(60)
        TARGET.unlink()

    def _inside(self) -> bool:
        assert self._outside is not None
        assert self._outside.poll() is None, self.log.read_text()
        children = Path(f"/proc/{self._outside.pid}/task/{self._outside.pid}/children").read_text().split()
        self.pid = int(children[0]) if children else 0
        return bool(self.pid)

    def _up(self) -> bool:
        return self.systemctl("is-system-running", check=False) in ("running", "degraded")

    def run(self, command: Sequence[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command as root on this router, beside what systemd started."""
        inside = ["nsenter", "--target", str(self.pid), "--all", *command]
        done = subprocess.run(inside, capture_output=True, text=True, check=False, timeout=900)
        assert not check or done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """What systemctl prints."""
        return self.run(["systemctl", *arguments], check=check).stdout.strip()

    def shows(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", "--property", name, unit)

    def journal(self) -> str:
        """What the services said."""
        return self.log.read_text()

    def until(self, what: Callable[[], bool], wanted: str, seconds: float = PATIENCE) -> None:
        """Waits for it; AssertionError if it does not come."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"not {wanted}: {self.log.read_text()[-3000:]}"
            time.sleep(0.5)
