"""`flowfast confirm` and `flowfast rollback`: keep the last change, or take it back; and who waits for which.

`apply --confirm N` leaves a process behind that takes the change back after N seconds, unless it is told to keep it. It
listens on an abstract unix socket (one for each network namespace), has a session of its own, and so outlives the ssh
connection that the change may have cut off. Should it be killed, the journal still knows the way back.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import click

from flowfast.apply.commit import commit
from flowfast.apply.journal import Entry, Journal
from flowfast.apply.knobs import KnobJournal, turn_knobs
from flowfast.cli.common import need_root
from flowfast.cli.lock import only_one
from flowfast.cli.output import console, print_reasons, print_steps, print_turns
from flowfast.kernel.real import real_kernel
from flowfast.model.errors import FlowfastError
from flowfast.plan.diff import OWN, diff

NAME = "\0flowfast-confirm"
KEEP, BACK = b"keep", b"back"


def leave_waiting(seconds: float) -> None:
    """Starts the process that takes the change back after `seconds`, and returns once it listens."""
    command = [sys.executable, "-m", "flowfast", "rollback", "--wait", str(seconds)]
    subprocess.Popen(
        command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not waits_to_be_confirmed():
        if time.monotonic() > deadline:
            raise FlowfastError("the process that would take the change back did not start: nothing was changed")
        time.sleep(0.1)


@click.command("confirm")
def confirm() -> None:
    """Keep what `flowfast apply --confirm` changed."""
    if not _tell(KEEP):
        raise FlowfastError("nothing waits to be confirmed: it was confirmed, or has been taken back already")
    console().print("Confirmed: the change stays.")


@click.command("rollback")
@click.option("--wait", type=click.FloatRange(0), hidden=True, help="Wait to be told, then do it.")
def rollback(wait: float | None) -> None:
    """Take the last `flowfast apply` back: the ruleset is what it was before."""
    if wait is not None:
        if _told_to_keep(wait):
            _settle()
            return
    elif _tell(BACK):
        console().print("Being taken back.")
        return
    asyncio.run(_back())


@contextlib.contextmanager
def _turn(seconds: float = 30) -> Iterator[None]:
    """The lock, waited for: the change that is to be taken back may just be ending."""
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(only_one())
                break
            except FlowfastError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield


async def _back() -> None:
    with _turn():
        kernel, journal = real_kernel(), Journal()
        need_root(kernel)
        last = journal.read()
        if last is None:
            raise FlowfastError("nothing to take back: no `flowfast apply` since the router started")
        steps = diff(last.previous, kernel.nft.read(OWN))
        commit(kernel.nft, steps)
        turns, refused = turn_knobs(kernel.knobs, last.knobs, KnobJournal())
        journal.write(Entry(last.previous, last.previous, knobs=last.knobs))
    out = console()
    print_steps(out, steps)
    print_turns(out, turns)
    print_reasons(out, [each.reason for each in refused])
    out.print("Taken back.")


def _settle() -> None:
    journal = Journal()
    if last := journal.read():
        journal.write(Entry(last.previous, last.current, knobs=last.knobs))


def _told_to_keep(seconds: float) -> bool:
    """Listens for `seconds`; True if told to keep the change, False if told to take it back or told nothing."""
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ear:
        ear.bind(NAME)
        ear.listen()
        while (left := deadline - time.monotonic()) > 0:
            ear.settimeout(left)
            with contextlib.suppress(TimeoutError):
                caller, _ = ear.accept()
                with caller:
                    caller.settimeout(1)
                    word = caller.recv(8)
                    if word in (KEEP, BACK):
                        caller.sendall(b"done")
                        return word == KEEP
    return False


def waits_to_be_confirmed() -> bool:
    """Whether a change is there that will be taken back unless it is confirmed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mouth:
        return mouth.connect_ex(NAME) == 0


def _tell(word: bytes) -> bool:
    """Says the word to the process that waits; False if none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mouth:
        mouth.settimeout(5)
        try:
            mouth.connect(NAME)
            mouth.sendall(word)
            return mouth.recv(8) == b"done"
        except OSError:
            return False
