"""The status page in a real browser: headless Chromium (Debian's package, which `make setup-lab` installs)."""

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from flowfast.config.values import Endpoint
from flowfast.metrics.exporter import Exporter
from flowfast.model.sa import Direction
from flowfast.model.snapshot import ByPath, Snapshot, Traffic
from tests.unit.metrics.world import fixed

OUT = ("berlin", Direction.OUT)
BROWSER = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,1000",
)  # fmt: skip


def moment(number: int) -> Snapshot:
    """The fixed router, and what a tunnel had carried ten seconds later each time."""
    now = fixed()
    by_path = {OUT: ByPath(number * 9_000_000, number * 1_000_000)}
    state = replace(now.state, taken_at=now.state.taken_at + 10 * number, hooked=frozenset({"lan0"}))
    return replace(now, state=state, totals={OUT: Traffic(number * 10_000_000, number)}, by_path=by_path)


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    one = Exporter(Endpoint(IPv4Address("127.0.0.1"), 0))
    for number in range(5):
        one.publish(moment(number))
    one.start()
    yield one
    one.stop()


def browse(exporter: Exporter, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*BROWSER, f"--user-data-dir={folder / 'profile'}", *options, f"http://{exporter.endpoint}/"]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)


def test_browser_shows_the_page_with_its_style_and_script(exporter: Exporter, tmp_path: Path) -> None:
    seen = browse(exporter, tmp_path, "--enable-logging=stderr", "--dump-dom")
    assert "Content Security Policy" not in seen.stderr  # what the policy forbids is logged
    assert "7.2 Mbit/s on the flowtable" in seen.stdout
    assert seen.stdout.count("<polygon") == 2
    picture = tmp_path / "page.png"
    browse(exporter, tmp_path, f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000  # an empty page is a tenth of it


def test_page_follows_the_router_by_itself(exporter: Exporter, tmp_path: Path) -> None:
    """The script asks again after five seconds of the browser's time, which is virtual here."""
    asked: list[str] = []
    answer = exporter._answer

    def listening(request: dict[str, str]) -> object:
        if request["PATH_INFO"] == "/":
            asked.append(request["PATH_INFO"])
            exporter.publish(moment(4 + len(asked)))
            return answer({**request})
        return answer(request)

    exporter._answer = listening  # type: ignore[method-assign,assignment]
    seen = browse(exporter, tmp_path, "--virtual-time-budget=12000", "--dump-dom")
    assert len(asked) >= 2
    at = fixed().state.taken_at + 10 * (4 + len(asked))
    assert socket.gethostname() in seen.stdout
    assert 'class="lost"' not in seen.stdout
    assert str(int(at) % 60) in seen.stdout
