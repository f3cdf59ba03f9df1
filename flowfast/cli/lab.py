"""`flowfast lab`: the guest with a real kernel, from the command line."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from flowfast.lab import image as images
from flowfast.lab.machine import Machine
from flowfast.lab.qualify.host import MODELS, TOPOLOGIES, matrix
from flowfast.lab.qualify.host import qualify as run_cases
from flowfast.lab.recipe import DEFAULT, RECIPES, recipe
from flowfast.lab.topology import Family
from flowfast.model.bulk import Cell, Stage
from flowfast.model.errors import FlowfastError
from flowfast.qualified import FOLDER, cells, save

Command = Callable[..., None]
OUTERS: dict[str, Family] = {"4": 4, "6": 6}
"""What is typed for the version of IP that carries ESP."""


@click.group()
def lab() -> None:
    """A guest with a real kernel, this checkout at /src, and the tools of two IPsec gateways."""


def _progress(line: str) -> None:
    click.echo(line, err=True)


def machine_options(command: Command) -> Command:
    """The options that say which machine to boot; the command gets them as keywords of Machine."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    for option in (
        click.option("--memory", type=click.IntRange(256), default=2048, help="MiB of memory."),
        click.option("--share", type=folder, help="A folder of this machine, writable at /share."),
        click.option("--icount", is_flag=True, help="Guest time counts instructions."),
        click.option("--nics", type=click.IntRange(0, 8), default=0, help="Pairs of emulated NICs, joined outside."),
        click.option("--cpus", type=click.IntRange(1, 16), default=1, help="CPUs of the guest."),
        click.option("--image", default=DEFAULT, metavar="NAME", help=f"One of {', '.join(RECIPES)}."),
    ):
        command = option(command)
    return command


@lab.command("exec")
@machine_options
@click.option("--timeout", type=click.FloatRange(1), default=600, help="Seconds until a hung guest is killed.")
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...")
def run(command: tuple[str, ...], **options: Any) -> None:
    """Boot a fresh guest, run COMMAND in it as root, pass on its output and exit code, power off."""

    def to(stream: Any) -> Callable[[bytes], None]:
        def write(data: bytes) -> None:
            stream.buffer.write(data)
            stream.buffer.flush()

        return write

    machine = Machine(**options, progress=_progress)
    sys.exit(machine.run(command, stdout=to(sys.stdout), stderr=to(sys.stderr)).exit_code)


@lab.command()
@machine_options
def shell(**options: Any) -> None:
    """The same with a shell on this terminal; leaving it powers off."""
    if not sys.stdin.isatty():
        raise click.UsageError("a shell needs a terminal (`flowfast lab exec` runs a command without one)")
    sys.exit(Machine(**options, progress=_progress).shell())


@lab.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every image there is.")
def build(names: tuple[str, ...], everything: bool) -> None:
    """Build the images NAME (the default one if none is named), unless they are there."""
    for name in tuple(RECIPES) if everything else names or (DEFAULT,):
        image = images.ensure(recipe(name), _progress)
        click.echo(f"{name}: kernel {image.kernel}, {image.folder}")


@lab.command()
@click.option("--image", "image_names", multiple=True, default=[DEFAULT], help="Kernels: images of the lab.")
@click.option("--driver", "drivers", multiple=True, default=["virtio_net"], type=click.Choice(list(MODELS)))
@click.option("--topology", "topologies", multiple=True, default=list(TOPOLOGIES), type=click.Choice(TOPOLOGIES))
@click.option(
    "--stage", "stages", multiple=True, default=[str(stage) for stage in Stage], type=click.Choice([*map(str, Stage)])
)
@click.option(
    "--outer", "outers", multiple=True, default=["4"], type=click.Choice(list(OUTERS)), help="ESP's IP version."
)
@click.option(
    "--shield",
    "shields",
    multiple=True,
    default=["on", "off"],
    type=click.Choice(["on", "off"]),
    help="With our XDP program on the LAN (docs/bulking.md), or without.",
)
@click.option("--missing", is_flag=True, help="Only cells that the table does not have.")
@click.option(
    "--into", type=click.Path(file_okay=False, path_type=Path), help="Folder of the table, if not flowfast's."
)
@click.option("-v", "--verbose", is_flag=True, help="Every kind of packet that did not arrive whole, as it happens.")
def qualify(
    *,
    image_names: Sequence[str],
    drivers: Sequence[str],
    topologies: Sequence[str],
    stages: Sequence[str],
    outers: Sequence[str],
    shields: Sequence[str],
    missing: bool,
    into: Path | None,
    verbose: bool,
) -> None:
    """Try every aggregation stage on every kind of packet, in guests, and write the table that the planner reads.

    Each option may be given several times. A case takes some ten seconds under emulation; one that kills the kernel
    costs a boot. Cells that are there already are replaced, all others stay.
    """
    folder = into or FOLDER
    for name in image_names:
        kernel = images.ensure(recipe(name), _progress).kernel
        for driver in drivers:
            cases = matrix(
                [driver],
                topologies=topologies,
                stages=[*map(Stage, stages)],
                outers=[OUTERS[each] for each in outers],
                shields=[each == "on" for each in shields],
            )
            if missing:
                held = {cell.case for cell in cells(kernel, folder)}
                cases = [case for case in cases if case not in held]

            def told(cell: Cell, name: str = name, kernel: str = kernel) -> None:
                save(kernel, name, [cell], folder)
                failing = ", ".join(f"{kind} {verdict}" for kind, verdict in cell.failing().items())
                click.echo(f"{kernel}: {cell.case}: {failing or 'whole'}")

            run_cases(name, driver, cases, told=told, say=_progress if verbose else lambda _line: None)


@lab.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_images(as_json: bool) -> None:
    """The images: which release, which kernel, built or not, how large, where."""
    built = {entry: images.find(entry) for entry in RECIPES.values()}
    if as_json:
        rows = [
            {
                "image": entry.name,
                "release": entry.release,
                "built": image is not None,
                "kernel": image.kernel if image else None,
                "bytes": image.size if image else None,
                "folder": str(images.folder_of(entry)),
            }
            for entry, image in built.items()
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("image", "release", "kernel", "size", "folder", box=None, pad_edge=False)
    for entry, image in built.items():
        kernel, size = (image.kernel, f"{image.size / 1e6:.0f} MB") if image else ("not built", "-")
        table.add_row(entry.name, entry.release, kernel, size, str(images.folder_of(entry)))
    # A path that is wrapped or cut cannot be copied.
    Console(width=200).print(table)


def main() -> None:
    """`python -m flowfast.cli.lab`: this group by itself; an image's build under sudo starts it so."""
    try:
        lab(prog_name="flowfast lab")
    except FlowfastError as e:
        click.echo(str(e), err=True)
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
