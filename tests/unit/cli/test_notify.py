"""What systemd is told of `flowfast run`, and how tightly its unit is sandboxed."""

import asyncio
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowfast.cli import notify
from flowfast.cli.notify import Notifier

UNIT = Path(__file__).parents[3] / "deploy" / "systemd" / "flowfast.service"


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        one.setblocking(False)
        yield one


def heard(listener: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(listener.recv(4096).decode())
        except BlockingIOError:
            return found


async def watched(notifier: Notifier, ready: asyncio.Event, seconds: float) -> None:
    task = asyncio.create_task(notifier.watch(ready))
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_ready_is_said_when_the_router_was_looked_at_and_not_before(listener: socket.socket) -> None:
    async def scenario() -> None:
        ready = asyncio.Event()
        task = asyncio.create_task(Notifier(listener.getsockname()).watch(ready))
        await asyncio.sleep(0.05)
        assert heard(listener) == []
        ready.set()
        await asyncio.sleep(0.05)
        assert heard(listener) == ["READY=1"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_ready_is_said_after_a_while_whatever_comes(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "PATIENCE", 0.01)
    asyncio.run(watched(Notifier(listener.getsockname()), asyncio.Event(), 0.3))
    assert heard(listener) == ["READY=1"]


def test_watchdog_is_told_as_long_as_the_loop_turns(listener: socket.socket) -> None:
    asyncio.run(watched(Notifier(listener.getsockname(), 0.01), asyncio.Event(), 0.3))
    first = heard(listener)
    assert len(first) > 1
    assert set(first) == {"WATCHDOG=1"}
    assert heard(listener) == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Notifier()),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "60000000"}, Notifier("/run/n", 30.0)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, Notifier("@n", None)),
        ({"WATCHDOG_USEC": "soon", "WATCHDOG_PID": str(os.getpid())}, Notifier()),
    ],
)
def test_environment_says_where_and_how_often(environment: dict[str, str], expected: Notifier) -> None:
    assert Notifier.of(environment) == expected


def test_nobody_who_listens_is_no_error(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "nobody")).say("READY=1")
    Notifier().say("READY=1")


def test_unit_is_sandboxed() -> None:
    """systemd-analyze's score: 0 is tight, 10 open. Most of what is left is the capabilities that it needs."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    score = re.search(r"exposure level for flowfast\.service: ([\d.]+)", done.stdout)
    assert score is not None, done.stdout + done.stderr
    assert float(score[1]) <= 4.5


def test_unit_is_understood() -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert complaints == []
    text = UNIT.read_text()
    assert "Type=notify\n" in text and "WatchdogSec=" in text and "RuntimeDirectoryPreserve=yes\n" in text
