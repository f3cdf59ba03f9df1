"""What `flowfast run` does with signals: one controller after another, each with the config as it was last read.

SIGHUP reads the config again. One that cannot be used changes nothing: it is said in the log and among the reasons of
the status page, and the router is kept as it was. SIGINT and SIGTERM end it all and leave the router as it is.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping

from flowfast.apply.heard import Heard
from flowfast.cli.common import fit, prepare
from flowfast.cli.notify import Notifier
from flowfast.config.exporter import Exporter as ExporterSettings
from flowfast.config.load import LoadedConfig
from flowfast.controller import Controller
from flowfast.kernel import Kernel
from flowfast.metrics.books import Books
from flowfast.metrics.exporter import Exporter
from flowfast.model.errors import FlowfastError
from flowfast.model.reason import Reason, Severity
from flowfast.model.snapshot import Snapshot
from flowfast.model.state import Feature

log = logging.getLogger(__name__)


class Service:
    """`read` reads the config (raises ConfigError); `notifier` is told of READY and RELOADING."""

    def __init__(
        self,
        kernel: Kernel,
        read: Callable[[], LoadedConfig],
        features: Mapping[str, Feature],
        *,
        books: Books | None = None,
        heard: Heard | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.kernel, self._read, self._features = kernel, read, features
        self._books, self._heard = books or Books(), heard
        self._notifier = notifier or Notifier()
        self._ready, self._again = asyncio.Event(), asyncio.Event()
        self._exporter: Exporter | None = None
        self.published: Snapshot | None = None

    async def run(self, loaded: LoadedConfig) -> None:
        """Serves until it is cancelled. `loaded` fits the router. Raises UsageError where the exporter cannot start."""
        self._exporter = _exporter(loaded.config.exporter)
        watch = asyncio.create_task(self._notifier.watch(self._ready))
        try:
            while True:
                loaded = await self._serve(loaded)
        finally:
            watch.cancel()
            if self._exporter is not None:
                self._exporter.stop()

    def reload(self) -> None:
        """Has the config read again, soon."""
        self._again.set()

    def handle_signals(self, stop: Callable[[], object]) -> None:
        """SIGHUP reloads, SIGINT and SIGTERM call `stop`."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.reload)

        def end(name: str) -> None:
            log.info("ended by %s; the router stays as it is", name)
            stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end, number.name)

    async def _serve(self, loaded: LoadedConfig) -> LoadedConfig:
        """One controller's life; returns with the config of the next."""
        controller = Controller(
            self.kernel,
            loaded.config,
            self._features,
            on_snapshot=self._publish,
            books=self._books,
            heard=self._heard,
        )
        running = asyncio.create_task(controller.run())
        try:
            while True:
                again = asyncio.create_task(self._again.wait())
                await asyncio.wait((running, again), return_when=asyncio.FIRST_COMPLETED)
                again.cancel()
                if running.done():
                    await running
                self._again.clear()
                self._notifier.say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
                try:
                    new = await self._next(loaded)
                    # Not in the middle of a round: its transaction, in a thread, would meet the next controller's.
                    async with controller.busy:
                        running.cancel()
                    return new
                except FlowfastError as error:
                    for line in str(error).splitlines():
                        log.error("not reloaded: %s", line)
                    controller.complain(_not_reloaded(loaded, error))
                    prepare(self.kernel, loaded.config)
                finally:
                    self._notifier.say("READY=1")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _next(self, loaded: LoadedConfig) -> LoadedConfig:
        """The config as it is now, its exporter started. Raises FlowfastError, and then nothing has changed."""
        new = await asyncio.to_thread(self._read)
        await fit(new, self.kernel)
        was, wanted = loaded.config.exporter, new.config.exporter
        if was != wanted:
            if self._exporter is not None:
                self._exporter.stop()
            try:
                self._exporter = _exporter(wanted)
            except FlowfastError:
                self._exporter = _exporter(was)
                raise
            finally:
                if self._exporter is not None and self.published is not None:
                    self._exporter.publish(self.published)
        log.info("%s read again", new.file)
        return new

    def _publish(self, snapshot: Snapshot) -> None:
        self.published = snapshot
        if self._exporter is not None:
            self._exporter.publish(snapshot)
        self._ready.set()


def _exporter(settings: ExporterSettings) -> Exporter | None:
    """Started, where there is to be one. Raises UsageError."""
    if not settings.enabled:
        return None
    exporter = Exporter(settings.listen, tls=settings.tls, per_sa=settings.per_sa, sa_limit=settings.sa_limit)
    exporter.start()
    return exporter


def _not_reloaded(loaded: LoadedConfig, error: FlowfastError) -> Reason:
    first = str(error).splitlines()[0]
    sentence = f"flowfast goes on with the config that it had: {first}"
    return Reason("NOT_RELOADED", loaded.file, sentence, "mend it, then reload flowfast again", Severity.ERROR)
