"""`flowfast run CONFIG`: the controller and the exporter, in the foreground, until a signal."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import click

from flowfast.apply.journal import FOLDER
from flowfast.cli.common import config_argument, fit
from flowfast.cli.lock import only_one
from flowfast.cli.notify import Notifier
from flowfast.config.load import LoadedConfig, load
from flowfast.controller import Controller
from flowfast.kernel.real import real_kernel
from flowfast.memory import give_back
from flowfast.metrics.books import Books
from flowfast.metrics.exporter import Exporter
from flowfast.metrics.store import Store
from flowfast.model.snapshot import Snapshot

SWITCH_SECONDS = 0.0005
"""Python's threads take turns this often. To take flows off, the event loop gives the interpreter away at each of many
system calls, and with Python's own 5 ms would wait that long for each while a round works in its thread."""


@click.command("run")
@config_argument
@click.option("-v", "--verbose", is_flag=True, help="Log what is looked at, too.")
def run(config: str, settings: dict[str, str], verbose: bool) -> None:
    """Keep the router as CONFIG says and export metrics. Stopping leaves the router as it is: fast."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    loaded = load(config, settings)
    give_back()
    sys.setswitchinterval(SWITCH_SECONDS)
    with only_one():
        asyncio.run(_run(loaded))


async def _run(loaded: LoadedConfig) -> None:
    kernel = real_kernel()
    await fit(loaded, kernel)
    config = loaded.config
    features = await kernel.probe.features()
    with contextlib.ExitStack() as stack:
        settings = config.exporter
        exporter = Exporter(settings.listen, tls=settings.tls, per_sa=settings.per_sa, sa_limit=settings.sa_limit)
        if config.exporter.enabled:
            exporter.start()
            stack.callback(exporter.stop)
        ready = asyncio.Event()

        def publish(snapshot: Snapshot) -> None:
            exporter.publish(snapshot)
            ready.set()

        controller = Controller(kernel, config, features, on_snapshot=publish, books=_books())
        task = asyncio.create_task(controller.run())
        watch = asyncio.create_task(Notifier.of(os.environ).watch(ready))
        stack.callback(watch.cancel)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _books() -> Books:
    """What was counted in this network namespace, by a controller before this one too."""
    namespace = Path("/proc/thread-self/ns/net").stat().st_ino
    return Books(Store(FOLDER / f"counts-{namespace}.jsonl"))
