"""SIGHUP: the config is read again while the router is served; one that cannot be used changes nothing."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path

import pytest

from flowfast.cli.service import Service
from flowfast.config.load import load
from flowfast.kernel.fake import FakeKernel
from flowfast.plan.diff import OWN
from flowfast.plan.ruleset import INET, NETDEV
from tests.unit.cli.looking import fake_kernel

GOOD = "devices: {lan: [lan0], wan: [wan0]}\nexporter: {enabled: false}\n"


class Bench:
    """A service that runs in memory, from a config file that a test rewrites."""

    def __init__(self, path: Path, text: str = GOOD) -> None:
        self.path, self.kernel = path, fake_kernel()
        path.write_text(text)

    def run(self, scenario: Callable[["Bench"], Coroutine[None, None, None]]) -> None:
        asyncio.run(self._run(scenario))

    async def _run(self, scenario: Callable[["Bench"], Coroutine[None, None, None]]) -> None:
        read = partial(load, str(self.path))
        self.service = Service(self.kernel, read, await self.kernel.probe.features())
        self.task = asyncio.create_task(self.service.run(read()))
        self.service.handle_signals(stop=self.task.cancel)
        try:
            await self.until(lambda: self.service.published is not None)
            await scenario(self)
        finally:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.002)

    def codes(self) -> set[str]:
        assert self.service.published is not None
        return {reason.code for reason in self.service.published.reasons}

    def hang_up(self, text: str) -> None:
        """The file is another one now, and the process hears SIGHUP."""
        self.path.write_text(text)
        os.kill(os.getpid(), signal.SIGHUP)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "site.yaml")


def guarded(kernel: FakeKernel) -> bool:
    return NETDEV in kernel.nft.read(OWN).tables


def test_a_changed_config_is_taken_up_without_a_restart(bench: Bench) -> None:
    async def scenario(bench: Bench) -> None:
        assert guarded(bench.kernel)
        bench.hang_up(GOOD + "offload: {mode: outbound-only}\n")
        await bench.until(lambda: not guarded(bench.kernel))
        bench.hang_up(GOOD)
        await bench.until(lambda: guarded(bench.kernel))
        assert not bench.task.done()

    bench.run(scenario)


@pytest.mark.parametrize("bad", ["devices: {lan: [lan0], wan: [nowhere0]}\n", "devices: [\n", "devices: {lan: 7}\n"])
def test_a_config_that_cannot_be_used_changes_nothing_and_is_told(
    bench: Bench, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(bench: Bench) -> None:
        held, committed = bench.kernel.nft.read(OWN), len(bench.kernel.nft.committed)
        bench.hang_up(bad)
        await bench.until(lambda: "NOT_RELOADED" in bench.codes())
        assert bench.kernel.nft.read(OWN) == held
        assert len(bench.kernel.nft.committed) == committed
        assert re.search(rf"not reloaded: {bench.path}:\d+:\d+: ", caplog.text)
        # The controller goes on, and a config that is right again ends the complaint.
        bench.hang_up(GOOD + "offload: {mode: outbound-only}\n")
        await bench.until(lambda: not guarded(bench.kernel))
        await bench.until(lambda: "NOT_RELOADED" not in bench.codes())

    bench.run(scenario)


def test_a_config_that_is_gone_changes_nothing_and_is_told(bench: Bench) -> None:
    async def scenario(bench: Bench) -> None:
        held = bench.kernel.nft.read(OWN)
        bench.path.unlink()
        os.kill(os.getpid(), signal.SIGHUP)
        await bench.until(lambda: "NOT_RELOADED" in bench.codes())
        assert bench.kernel.nft.read(OWN) == held

    bench.run(scenario)


def test_a_reload_with_nothing_new_commits_nothing(bench: Bench) -> None:
    async def scenario(bench: Bench) -> None:
        committed, before = len(bench.kernel.nft.committed), bench.service.published
        bench.hang_up(GOOD)
        await bench.until(lambda: bench.service.published is not before)
        assert len(bench.kernel.nft.committed) == committed

    bench.run(scenario)


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def exporting(port: int) -> str:
    return f"devices: {{lan: [lan0], wan: [wan0]}}\nexporter: {{listen: '127.0.0.1:{port}'}}\n"


def test_the_exporter_moves_and_stays_where_it_was_if_it_cannot(tmp_path: Path) -> None:
    first, second = free_port(), free_port()

    async def scenario(bench: Bench) -> None:
        assert listens(first)
        bench.hang_up(exporting(second))
        await bench.until(lambda: listens(second) and not listens(first))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", first))
            taken.listen()
            bench.hang_up(exporting(first))
            await bench.until(lambda: "NOT_RELOADED" in bench.codes())
        assert listens(second)
        assert not listens(first)

    Bench(tmp_path / "site.yaml", exporting(first)).run(scenario)


def test_it_ends_when_it_is_told_to_and_leaves_the_router_fast(bench: Bench) -> None:
    async def scenario(bench: Bench) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await bench.until(bench.task.done)
        assert INET in bench.kernel.nft.read(OWN).tables

    bench.run(scenario)


def test_the_log_says_what_ended_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        with caplog.at_level("INFO"):
            os.kill(os.getpid(), signal.SIGTERM)
            await bench.until(bench.task.done)
        assert "ended by SIGTERM; the router stays as it is" in caplog.text

    bench.run(scenario)
