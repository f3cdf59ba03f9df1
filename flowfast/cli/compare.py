"""`flowfast compare [CONFIG]`: an experiment on this router: the fast path against the full L3 path, in turns."""

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from flowfast.cli.common import config_argument, json_option, router
from flowfast.cli.compared import show
from flowfast.cli.confirm import waits_to_be_confirmed
from flowfast.cli.lock import COMPARING, only_one
from flowfast.cli.output import console
from flowfast.compare import report as reports
from flowfast.compare.experiment import SLACK, Now
from flowfast.compare.last import Last
from flowfast.compare.latency import Sample, devices
from flowfast.compare.result import WORDS, Result, to_json
from flowfast.compare.schedule import Schedule, schedule
from flowfast.compare.session import Session
from flowfast.kernel.load import RealLoad
from flowfast.model.errors import FlowfastError, UsageError

BUSY = 0.45
"""Of a CPU's time now: with twice the work for each packet it might come to its limit."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class _How:
    """The options of one call."""

    as_json: bool
    seconds: float
    windows: int | None
    seed: int | None
    keep_going: bool
    dry_run: bool
    yes: bool
    report: Path | None

    @property
    def asks(self) -> bool:
        """Whether somebody is there who can be asked."""
        return not (self.yes or self.as_json) and sys.stdin.isatty()


@click.command("compare")
@config_argument
@json_option
@click.option("--seconds", type=click.FloatRange(1), default=120, show_default=True, help="How long it may take.")
@click.option("--windows", type=int, metavar="N", help="Windows, an even number. [default: one for every 10 seconds]")
@click.option("--seed", type=int, help="Of the order of the windows, to have the same again.")
@click.option("--keep-going", is_flag=True, help="Also where the full path drops packets for want of CPU time.")
@click.option("--dry-run", is_flag=True, help="Say what it would do, and stop.")
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="An HTML report, too.")
def compare(config: str, settings: dict[str, str], **options: Any) -> None:
    """Measure on this router, under its own traffic, what the fast path saves.

    Windows on the fast path and on the full L3 path take turns, in an order decided by lot. The full path forwards
    everything, only slower; connections stay. Ctrl-C puts the fast path back and reports what there is; should this
    program be killed, the kernel itself puts it back seconds later. A running controller goes on running.

    Exits with 1 if there is no verdict: the reasons say why.
    """
    how = _How(**options)
    if how.report:
        reports.check()
        _check_writable(how.report)
    planned = schedule(how.seconds, how.windows, random.randrange(2**32) if how.seed is None else how.seed)  # noqa: S311
    with only_one(COMPARING), _nobody_interferes():
        result = asyncio.run(_compare(config, settings, planned, how))
    if result is None:
        return
    if how.report:
        how.report.write_text(reports.render(result))
    if how.as_json:
        click.echo(to_json(result))
    else:
        show(result, console())
    if how.report:
        click.echo(f"report: {how.report.absolute()}", err=how.as_json)
    sys.exit(0 if result.findings.factor else 1)


@contextlib.contextmanager
def _nobody_interferes() -> Iterator[None]:
    """A controller may run beside it, and puts right what others do; without one, nobody else may change anything."""
    if waits_to_be_confirmed():
        raise FlowfastError("a change waits to be confirmed, and may be taken back at any moment: flowfast confirm")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FlowfastError):
            stack.enter_context(only_one())
        yield


async def _compare(config: str, settings: dict[str, str], planned: Schedule, how: _How) -> Result | None:
    found = await router(config, settings)
    kernel, loaded = found.kernel, found.loaded.config
    arriving, leaving = devices(found.state, loaded)
    session = Session(kernel, loaded, found.state, found.desired, RealLoad([*arriving, *leaving]), Last())
    await session.ready()
    notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=not sys.stderr.isatty())
    _announce(notes, planned, await session.busiest())
    if how.dry_run or (how.asks and not click.confirm("Go ahead?", default=False, err=True)):
        return None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    with _telling(notes) as tell:
        latency = Sample(found.state, loaded, found.desired.paths, planned.sample)
        return await session.run(planned, stop, latency=latency, keep_going=how.keep_going, tell=tell)


def _announce(out: Console, planned: Schedule, busiest: float) -> None:
    """What will happen, before it does."""
    count, window = len(planned.arms), planned.window
    out.print(f"{count} windows of {window:.3g} s, half of them on the full L3 path, the other half on the fast path.")
    out.print(f"A killed experiment: the kernel puts the fast path back within {window + SLACK:.0f} s, by itself.")
    out.print(f"The busiest CPU is busy for {busiest:.0%} of its time now.")
    if busiest > BUSY:
        out.print("The full path may bring it to its limit: then the experiment ends at once.", style="yellow")


@contextlib.contextmanager
def _telling(out: Console) -> Iterator[Any]:
    """A line that changes on a terminal; elsewhere a line for each window."""
    if not out.is_terminal:
        yield lambda now: out.print(_line(now))
        return
    with out.status("") as status:
        yield lambda now: status.update(_line(now))


def _line(now: Now) -> str:
    return f"window {now.number} of {now.count}: {WORDS[now.arm]}"


def _check_writable(report: Path) -> None:
    """Before minutes of work, not after. Raises UsageError."""
    if not report.absolute().parent.is_dir():
        raise UsageError(f"{report}: there is no folder {report.absolute().parent} (make it, or name another place)")
