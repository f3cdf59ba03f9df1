"""Boots a guest for each part of the demo, side by side, follows what they say and puts their answers together."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime

from flowfast import __version__
from flowfast.lab.demo.events import Failed, Progress, Reader
from flowfast.lab.demo.result import Part, Result
from flowfast.lab.demo.site import TITLES, PartName
from flowfast.lab.image import Image
from flowfast.lab.machine import GuestError, Machine
from flowfast.lab.machine import Result as Ran
from flowfast.model.errors import FlowfastError

TIMEOUT = 900.0
"""Seconds for one guest; 140 on an idle machine with two cores, beside two others."""

Show = Callable[[PartName, Progress], None]


class DemoError(FlowfastError):
    """A part did not come to its end; the text says which, and why."""


class _Cancelled(Exception):
    """Ends a guest from its sink: another one failed, or the user has had enough."""


def play(
    parts: Sequence[PartName], image: Image, *, show: Show, say: Callable[[str], None], keep_going: bool = False
) -> Result:
    """Runs the parts side by side, each in a guest with emulated NICs whose time counts instructions.

    One that fails ends the others, unless `keep_going`; it is in the result's `failures` if any part came through.
    Raises FlowfastError if none did.
    """
    began, date = time.monotonic(), datetime.now(UTC)
    cancelled = threading.Event()
    # More guests than cores: what they count is instructions, and so no core is idle until the last one is done.
    pool = ThreadPoolExecutor(max_workers=len(parts))
    runs = [pool.submit(_Run(part, image, show, say, cancelled).run) for part in parts]
    try:
        if not keep_going:
            wait(runs, return_when=FIRST_EXCEPTION)
            if any(run.done() and run.exception() for run in runs):
                cancelled.set()
        wait(runs)
    finally:
        cancelled.set()
        pool.shutdown(cancel_futures=True)
    came, failures = _sort(runs)
    if not came:
        raise DemoError(failures[0])
    return Result(
        version=__version__,
        date=date.isoformat(timespec="seconds"),
        image=f"{image.recipe.name} ({image.recipe.release})",
        kernel=image.kernel,
        host=f"{_qemu_version()}, {os.cpu_count()} cores",
        seconds=time.monotonic() - began,
        parts=tuple(came),
        failures=tuple(failures),
    )


def _sort(runs: Sequence[Future[Part]]) -> tuple[list[Part], list[str]]:
    """The parts that came through, and the words of those that did not."""
    came, failures = [], []
    for run in runs:
        error = run.exception()
        if error is None:
            came.append(run.result())
        elif isinstance(error, FlowfastError):
            failures.append(str(error))
        elif not isinstance(error, _Cancelled):
            raise error
    return came, failures


@dataclass(slots=True)
class _Run:
    """One part in its guest."""

    part: PartName
    image: Image
    show: Show
    say: Callable[[str], None]
    cancelled: threading.Event
    answer: Part | Failed | None = None

    def run(self) -> Part:
        if self.cancelled.is_set():
            raise _Cancelled
        if self.part == "offload" and "espsim" not in self.image.own_modules:
            raise DemoError(f"{TITLES[self.part]}: {_no_espsim(self.image)}")
        machine = Machine(image=self.image.recipe.name, nics=3, icount=True, timeout=TIMEOUT, progress=self.say)
        reader = Reader()
        self.show(self.part, Progress(0.0, "the guest boots"))

        def take(data: bytes) -> None:
            # QEMU is killed when its sink raises: a guest says something every few seconds.
            if self.cancelled.is_set():
                raise _Cancelled
            try:
                events = list(reader.feed(data))
            except ValueError as error:
                raise DemoError(f"{TITLES[self.part]}: what it answered is no result: {error}") from error
            for event in events:
                if isinstance(event, Progress):
                    self.show(self.part, event)
                else:
                    self.answer = event

        try:
            ran = machine.run(["python3", "-m", "flowfast.lab.demo.scenario", self.part], stdout=take)
        except GuestError as error:
            raise DemoError(f"{TITLES[self.part]}: {error}") from error
        if isinstance(self.answer, Part):
            self.show(self.part, Progress(1.0, "done"))
            return self.answer
        raise DemoError(f"{TITLES[self.part]}: {self._why(ran)}")

    def _why(self, ran: Ran) -> str:
        if isinstance(self.answer, Failed):
            return self.answer.sentence
        said = ran.stderr.decode(errors="replace").strip().splitlines()
        return f"the scenario ended without a result (exit code {ran.exit_code}): {said[-1] if said else 'no word'}"


def _no_espsim(image: Image) -> str:
    if "espsim" not in image.recipe.own_modules:
        return f"there is no such NIC for {image.recipe.name} (use --only, or an image that has espsim)"
    return (
        f"espsim did not compile for kernel {image.kernel} of {image.recipe.name}, whose headers may be gone from the "
        f"mirror (remove {image.folder}, and the image is built anew with a kernel of today)"
    )


def _qemu_version() -> str:
    said = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\S+)", said)
    return f"QEMU {found[1] if found else 'of unknown version'} (tcg, icount)"
