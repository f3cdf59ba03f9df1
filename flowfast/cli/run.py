"""`flowfast run CONFIG`: the controller and the exporter, in the foreground, until a signal."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from flowfast.apply.heard import Heard
from flowfast.apply.journal import FOLDER
from flowfast.cli.common import config_argument, fit
from flowfast.cli.lock import only_one
from flowfast.cli.notify import Notifier
from flowfast.cli.service import Service
from flowfast.config.load import LoadedConfig, load
from flowfast.kernel.real import real_kernel
from flowfast.memory import give_back
from flowfast.metrics.books import Books
from flowfast.metrics.store import Store

SWITCH_SECONDS = 0.0005
"""Python's threads take turns this often. To take flows off, the event loop gives the interpreter away at each of many
system calls, and with Python's own 5 ms would wait that long for each while a round works in its thread."""


@click.command("run")
@config_argument
@click.option("-v", "--verbose", is_flag=True, help="Log what is looked at, too.")
def run(config: str, settings: dict[str, str], verbose: bool) -> None:
    """Keep the router as CONFIG says and export metrics. Stopping leaves the router as it is: fast.

    SIGHUP reads CONFIG again; one that cannot be used is reported, and changes nothing.
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    loaded = load(config, settings)
    give_back()
    sys.setswitchinterval(SWITCH_SECONDS)
    with only_one():
        asyncio.run(_run(loaded, partial(load, config, settings)))


async def _run(loaded: LoadedConfig, read: Callable[[], LoadedConfig]) -> None:
    kernel = real_kernel()
    await fit(loaded, kernel)
    features = await kernel.probe.features()
    notifier = Notifier.of(os.environ)
    service = Service(kernel, read, features, books=_books(), heard=Heard(), notifier=notifier)
    task = asyncio.create_task(service.run(loaded))
    service.handle_signals(stop=task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _books() -> Books:
    """What was counted in this network namespace, by a controller before this one too."""
    namespace = Path("/proc/thread-self/ns/net").stat().st_ino
    return Books(Store(FOLDER / f"counts-{namespace}.jsonl"))
