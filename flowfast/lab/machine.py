"""Boots an image for one command and brings back what it printed and its exit code.

A guest lives for one command. Its disk is read-only under a RAM disk, so nothing that happens in it lasts, except in
the folder that is shared with it. The checkout is at /src (writable there, in RAM), compiled Python is kept on the
host for the next boot: compiling it anew under emulation would cost seconds each time.
"""

import os
import re
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flowfast.lab import guest_init, qemu
from flowfast.lab import image as images
from flowfast.lab.recipe import CHECKOUT, DEFAULT, cache_folder, recipe
from flowfast.model.errors import FlowfastError, Unavailable, UsageError

Sink = Callable[[bytes], None]
CONSOLE_TAIL = 40
"""Lines of the console that an error shows."""

PANIC = re.compile(rb"Kernel panic - not syncing: [^\r\n]*")
TROUBLE = re.compile(r"BUG|Oops|panic|segfault|skb_(under|over)_panic|WARNING")


def excerpt(console: str) -> str:
    """What an error shows of the console: its last lines, or where trouble began, if that is further up."""
    lines = console.splitlines()
    first = next((number for number, line in enumerate(lines) if TROUBLE.search(line)), len(lines))
    start = min(max(first - 5, 0), max(len(lines) - CONSOLE_TAIL, 0))
    return "".join(f"\n    {line}" for line in lines[start : start + CONSOLE_TAIL])


class GuestError(FlowfastError):
    """The guest did not come to the end of its command: it panicked, hung or did not boot. Shows the console."""

    def __init__(self, sentence: str, console: str) -> None:
        super().__init__(f"{sentence}; its console said:{excerpt(console) or ' nothing'}")
        self.console = console


@dataclass(frozen=True, slots=True)
class Result:
    """What a command in the guest did. `seconds` from start to end, `boot` of them before the command ran."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    console: str
    seconds: float
    boot: float


@dataclass(slots=True)
class _Run:
    """What has come out of a guest so far."""

    started: float
    booted: float | None = None
    exit_code: int | None = None
    output: dict[str, bytearray] = field(default_factory=dict)

    @property
    def console(self) -> str:
        return self.output["console"].decode(errors="replace").replace("\r", "")


@dataclass(frozen=True, slots=True)
class Machine:
    """A guest to run commands in, each in a boot of its own. `memory` in MiB, `timeout` in seconds.

    `nics` pairs of emulated NICs, joined outside the guest, with so many `queues` each (more than one: lab/taps.py);
    `icount` makes guest time count instructions, of all CPUs together; `share` is a folder of the host, writable at
    /share.
    """

    image: str = DEFAULT
    cpus: int = 1
    nics: int = 0
    queues: int = 1
    icount: bool = False
    share: Path | None = None
    timeout: float = 600
    memory: int = 2048
    nic_model: str = "virtio-net-pci"
    progress: Callable[[str], None] = lambda _line: None

    def run(self, argv: Sequence[str], stdout: Sink | None = None, stderr: Sink | None = None) -> Result:
        """Boots the guest and runs `argv` as root in /src, its standard input empty.

        The sinks get output as it comes; all of it is in the result too. Raises GuestError when the guest panics, hangs
        past the time limit or does not boot, BuildError when its image cannot be built.
        """
        sinks: dict[str, Sink] = {}
        if stdout:
            sinks["stdout"] = stdout
        if stderr:
            sinks["stderr"] = stderr
        command = guest_init.exec_script(argv)
        try:
            return self._boot(command, sinks)
        except _BootFailed as first:
            # One boot in many oopses under emulation before our init runs (measured.md); nothing was done yet.
            self.progress(f"{self.image}: {str(first).splitlines()[0]}; booting once more")
            return self._boot(command, sinks)

    def shell(self, argv: Sequence[str] = ("bash", "-l")) -> int:
        """Boots the guest with a shell on this terminal, without a time limit; returns the shell's exit code."""
        size = shutil.get_terminal_size()
        term = os.environ.get("TERM", "linux")
        script = guest_init.shell_script(argv, size.lines, size.columns, term)
        return self._boot(script, {}, terminal=True).exit_code

    def _boot(self, command: str, sinks: dict[str, Sink], terminal: bool = False) -> Result:
        self._check()
        built = images.ensure(recipe(self.image), self.progress)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowfast-lab-")))
            initrd = folder / "initrd"
            first_files = guest_init.first_files(command, self.share is not None, built.own_modules)
            initrd.write_bytes(built.initrd + first_files)
            ours: dict[str, socket.socket] = {}
            theirs: dict[str, socket.socket] = {}
            for name in ("console", *guest_init.PORTS):
                one, other = socket.socketpair()
                ours[name], theirs[name] = stack.enter_context(one), stack.enter_context(other)
            taps = self._taps()
            tap_fds = [fd for each in (taps or {}).values() for fd in each]
            for fd in tap_fds:
                stack.callback(os.close, fd)
            argv = qemu.command(
                qemu.Boot(
                    kernel=built.vmlinux,
                    initrd=initrd,
                    root=built.root,
                    memory=self.memory,
                    cpus=self.cpus,
                    nics=self.nics,
                    nic_model=self.nic_model,
                    taps=taps,
                    icount=self.icount,
                    console=theirs["console"].fileno(),
                    ports={name: theirs[name].fileno() for name in guest_init.PORTS},
                    shares=self._shares(built),
                    terminal=terminal,
                )
            )
            run = _Run(time.monotonic(), output={name: bytearray() for name in ours})
            complaints = stack.enter_context((folder / "qemu.log").open("w+b"))
            descriptors = [*(end.fileno() for end in theirs.values()), *tap_fds]
            stack.enter_context(_qemu(argv, descriptors, complaints.fileno(), terminal))
            for end in theirs.values():
                end.close()
            timed_out = _listen(run, ours, sinks, None if terminal else run.started + self.timeout)
            complaints.seek(0)
            return self._result(run, timed_out, complaints.read().decode(errors="replace"))

    def _check(self) -> None:
        if self.share is not None and not self.share.is_dir():
            raise UsageError(f"{self.share}: no such folder to share with the guest")
        if shutil.which("qemu-system-x86_64") is None:
            raise Unavailable("qemu-system-x86_64 is not installed (`make setup-lab` installs it)")

    def _taps(self) -> Mapping[tuple[int, int], Sequence[int]] | None:
        if self.queues == 1:
            return None
        from flowfast.lab.taps import taps  # noqa: PLC0415 - pyroute2, which whoever boots other guests need not have

        return taps(self.nics, self.queues)

    def _shares(self, built: images.Image) -> dict[str, tuple[Path, bool]]:
        pycache = cache_folder() / "pycache" / built.recipe.name
        pycache.mkdir(parents=True, exist_ok=True)
        shares = {"src": (CHECKOUT, False), "pycache": (pycache, True)}
        if self.share is not None:
            shares["share"] = (self.share.absolute(), True)
        return shares

    def _result(self, run: _Run, timed_out: bool, complaints: str) -> Result:
        """What came of it, once the guest has said its exit code, or will not."""
        seconds = time.monotonic() - run.started
        if run.exit_code is not None:
            return Result(
                exit_code=run.exit_code,
                stdout=bytes(run.output["stdout"]),
                stderr=bytes(run.output["stderr"]),
                console=run.console,
                seconds=seconds,
                boot=run.booted or seconds,
            )
        if timed_out:
            limit = f"{self.image}: the guest was killed at its time limit of {self.timeout:g} s (--timeout)"
            raise GuestError(limit, run.console)
        error: type[GuestError] = GuestError if run.booted is not None else _BootFailed
        if panic := PANIC.search(run.output["console"]):
            raise error(f"{self.image}: {panic[0].decode(errors='replace')}, after {seconds:.0f} s", run.console)
        raise error(f"{self.image}: QEMU ended after {seconds:.0f} s, before the command did", run.console + complaints)


class _BootFailed(GuestError):
    """The guest died before the command began."""


@contextmanager
def _qemu(argv: list[str], fds: list[int], stderr: int, terminal: bool) -> Iterator[None]:
    """QEMU while the block lasts: killed at its end, and with this process, whatever kills that."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *argv],
        pass_fds=fds,
        stdin=None if terminal else subprocess.DEVNULL,
        stdout=None if terminal else subprocess.DEVNULL,
        stderr=stderr,
        # A group of its own: the user's Ctrl-C is ours to act on. On a terminal that would stop it from reading.
        process_group=None if terminal else 0,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _listen(run: _Run, sockets: dict[str, socket.socket], sinks: dict[str, Sink], limit: float | None) -> bool:
    """Passes on what the guest prints until it has said its exit code or QEMU has ended; True if `limit` came first."""
    with selectors.DefaultSelector() as selector:
        for name, end in sockets.items():
            selector.register(end, selectors.EVENT_READ, name)
        while selector.get_map() and run.exit_code is None:
            wait = None if limit is None else limit - time.monotonic()
            if wait is not None and wait <= 0:
                return True
            for key, _ in selector.select(wait):
                end, name = sockets[key.data], key.data
                data = end.recv(1 << 16)
                if not data:
                    selector.unregister(end)
                    continue
                run.output[name] += data
                if name in sinks:
                    sinks[name](data)
                if name == "control":
                    _control(run)
    return False


def _control(run: _Run) -> None:
    for line in run.output["control"].split(b"\n")[:-1]:
        if line == b"started" and run.booted is None:
            run.booted = time.monotonic() - run.started
        elif line.startswith(b"exit "):
            run.exit_code = int(line[5:])
