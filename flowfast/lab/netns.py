"""Network namespaces: made, entered by programs and Python functions, taken down with all that runs in them."""

import ctypes
import multiprocessing
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from pyroute2 import config, netns

from flowfast.model.errors import FlowfastError

R = TypeVar("R")

RUN = Path("/run/netns")
CLONE_NEWNS = 0x00020000
MS_REC_SLAVE = 0x4000 | 0x80000
WAIT = 60.0
"""Seconds that a function or a program in a namespace may take, unless more is asked for: the guest is emulated."""
config.default_communicate_timeout = int(WAIT)  # of the process that makes a namespace: 2 s are too few there


class LabError(FlowfastError):
    """Something in the lab did not do what it should; the text says what, where, and what was printed."""


def enter(name: str) -> None:
    """Moves this process into the namespace `name`, for good, with a /sys that shows its devices."""
    netns.setns(name, flags=0, fork=False)
    libc = ctypes.CDLL(None, use_errno=True)
    for failed in (
        libc.unshare(CLONE_NEWNS),
        libc.mount(None, b"/", None, MS_REC_SLAVE, None),
        libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None),
    ):
        if failed:
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _child(name: str, pipe: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        enter(name)
        answer: tuple[bool, Any] = (True, function(*args))
    except Exception as e:  # noqa: BLE001 - whatever it is, it is raised again where the result is asked for
        answer = (False, e)
    pipe.send(answer)


class Worker(Generic[R]):
    """A Python function that runs in a namespace, in a process of its own."""

    def __init__(self, name: str, function: Callable[..., R], args: tuple[Any, ...]) -> None:
        self._what = f"{function.__name__} in {name}"
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe(duplex=False)
        # fork, and not exec: a new interpreter takes half a second under emulation.
        self._process = context.Process(target=_child, args=(name, theirs, function, args), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def ready(self) -> bool:
        """Whether the function has ended, so that result() need not wait."""
        return self._pipe.poll()

    def result(self, timeout: float = WAIT) -> R:
        """What the function returned, or what it raised; LabError if it takes more than `timeout` seconds."""
        try:
            if not self._pipe.poll(timeout):
                raise LabError(f"{self._what}: no result within {timeout:g} s")
            fine, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise LabError(f"{self._what}: its process died (exit code {self._process.exitcode})") from None
        finally:
            self.stop()
        if not fine:
            raise value
        return value  # type: ignore[no-any-return] # the pipe carries what `function` returned

    def stop(self) -> None:
        """Ends the function where it stands, if it still runs."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


class Netns:
    """A network namespace: `with Netns("gw1") as gw1: gw1.run(["nft", "list", "ruleset"])`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Netns({self.name!r})"

    def __enter__(self) -> Self:
        netns.create(self.name)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        netns.remove(self.name)

    def processes(self) -> list[int]:
        """Processes that live in this namespace."""
        inode = (RUN / self.name).stat().st_ino
        found = []
        for entry in Path("/proc").glob("[0-9]*/ns/net"):
            try:
                if entry.stat().st_ino == inode:
                    found.append(int(entry.parts[2]))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended since
        return found

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv` as a command line that runs in this namespace."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = WAIT,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end; with `check`, LabError (with what it printed) unless it exits with 0."""
        try:
            done = subprocess.run(
                self.command(argv),
                input=stdin if stdin is not None else "",
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                env={**os.environ, **environment} if environment else None,
            )
        except subprocess.TimeoutExpired as e:
            raise LabError(f"{self.name}: {' '.join(argv)}: no end within {timeout:g} s") from e
        if check and done.returncode != 0:
            said = (done.stderr + done.stdout).strip()
            raise LabError(f"{self.name}: {' '.join(argv)}: exit code {done.returncode}: {said}")
        return done

    def popen(self, argv: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
        """Starts a program; `options` as for subprocess.Popen. It is killed with the namespace."""
        return subprocess.Popen(self.command(argv), **{"stdin": subprocess.DEVNULL, **options})

    def start(self, function: Callable[..., R], *args: Any) -> Worker[R]:
        """Starts a Python function in this namespace, beside this process. Its result must be picklable."""
        return Worker(self.name, function, args)

    def call(self, function: Callable[..., R], *args: Any, timeout: float = WAIT) -> R:
        """Runs a Python function in this namespace, in a process of its own, and returns its result."""
        return self.start(function, *args).result(timeout)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this namespace, to use in this process."""
        made: list[socket.socket] = []

        def make() -> None:
            # The network namespace belongs to the thread, a socket keeps the one that it was made in.
            netns.setns(self.name, flags=0, fork=False)
            made.append(socket.socket(family, kind, protocol))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise LabError(f"{self.name}: no socket could be made there")
        return made[0]

    def read(self, path: str) -> str:
        """A file as this namespace sees it (/proc/net, /proc/sys/net, /sys/class/net), stripped."""
        return self.call(_read, path)

    def write(self, path: str, text: str) -> None:
        """Writes such a file."""
        self.call(_write, path, text)


def _read(path: str) -> str:
    return Path(path).read_text().strip()


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)
