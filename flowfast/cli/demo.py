"""`flowfast demo`: the whole job in a guest, before one's eyes; tables on standard output, the report in a file."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import click
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column

from flowfast.lab.demo import report as reports
from flowfast.lab.demo import tables
from flowfast.lab.demo.events import Progress
from flowfast.lab.demo.host import Show, play
from flowfast.lab.demo.result import to_json
from flowfast.lab.demo.site import TITLES, PartName
from flowfast.lab.demo.verdict import problems
from flowfast.lab.image import ensure
from flowfast.lab.recipe import DEFAULT, RECIPES, Recipe, recipe
from flowfast.model.errors import UsageError

PARTS: tuple[PartName, ...] = get_args(PartName)
PLAIN_STEP = 0.05
"""Of a part's progress: without a terminal there is a line for each, not one for every step."""


@click.command("demo")
@click.option("--image", default=DEFAULT, metavar="NAME", help=f"Guest image: one of {', '.join(RECIPES)}.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("flowfast-demo.html"),
    show_default=True,
    help="Where to write the report.",
)
@click.option("--only", type=click.Choice(PARTS), help="One part instead of all.")
@click.option("--keep-going", is_flag=True, help="When one part fails, finish the others.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of tables.")
def demo(image: str, report: Path, only: PartName | None, keep_going: bool, as_json: bool) -> None:
    """Bring up real IPsec tunnels in guests and run the same traffic over the full L3 path and over the flowtable.

    Three parts: tunnels by policies, one through an xfrm interface, and two through a NIC of which one is encrypted by
    the NIC (a simulated one), the other by the CPU.

    Exits with 1 if less than 95 % of the bytes took the fast path, if any packet of a tunnel crossed the WAN
    unencrypted, or if ESP was not done where it should.
    """
    reports.check()
    _check_writable(report)
    notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=not sys.stderr.isatty())
    # Before the bars: sudo may want to ask for a password.
    built = ensure(recipe(image), notes.print)
    parts = (only,) if only else _parts(built.recipe)
    if only is None and parts != PARTS:
        notes.print(f"{image}: no NIC with IPsec offload can be simulated there (espsim is for {DEFAULT}): left out")
    with ExitStack() as stack:
        show = _bars(notes, parts, stack) if notes.is_terminal else _lines(notes)
        result = play(parts, built, show=show, say=notes.print, keep_going=keep_going)
    if as_json:
        click.echo(to_json(result))
    else:
        out = Console(highlight=False)
        tables.show(result, out if out.is_terminal else Console(highlight=False, width=160))
    report.write_text(reports.render(result))
    found = problems(result)
    for problem in found:
        click.echo(f"demo: {problem}", err=True)
    words = "failed" if found else f"all as it should be, in {result.seconds:.0f} s"
    click.echo(f"demo: {words}; report: {report.absolute()}", err=as_json)
    sys.exit(1 if found else 0)


def _parts(image: Recipe) -> tuple[PartName, ...]:
    """Those that an image has devices for."""
    return tuple(part for part in PARTS if part != "offload" or "espsim" in image.own_modules)


def _check_writable(report: Path) -> None:
    """Before minutes of work, not after. Raises UsageError."""
    folder = report.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{report}: there is no folder {folder} (make it, or name another place with --report)")
    if not os.access(report if report.exists() else folder, os.W_OK):
        raise UsageError(f"{report}: cannot be written (name another place with --report)")


def _bars(notes: Console, parts: tuple[PartName, ...], stack: ExitStack) -> Show:
    """A progress bar for each part."""
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[sentence]}", style="dim", table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=notes,
        expand=False,
    )
    stack.enter_context(bars)
    tasks = {part: bars.add_task(TITLES[part], total=1.0, sentence="waits") for part in parts}

    def show(part: PartName, progress: Progress) -> None:
        bars.update(tasks[part], completed=progress.fraction, sentence=progress.sentence)

    return show


def _lines(notes: Console) -> Show:
    """A line now and then: a log is read later."""
    said: dict[PartName, float] = {}

    def show(part: PartName, progress: Progress) -> None:
        if part not in said or progress.fraction >= min(1.0, said[part] + PLAIN_STEP):
            said[part] = progress.fraction
            notes.print(f"{TITLES[part]:>15} {progress.fraction:4.0%}  {progress.sentence}")

    return show
