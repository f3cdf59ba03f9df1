"""Runs the tests of tests/guest where they belong: on a real kernel, in one boot for each image and kind of machine.

On the host a test in tests/guest stands once for each image of its marker; the first one that is run boots the guest,
pytest runs there, and its reports come back as they happen: a failure is shown like any other, with the guest's output.

    pytestmark = pytest.mark.guest(images=["debian14"], also=["debian13", "debian12"], nics=3, cpus=1)

Those of `also` are for `make test-long`: there such a test is `long`, whatever it is on the others.

Guests are emulated, beside each other, on machines that others use. A few tests that failed are run once more at the
end, alone in a fresh guest: what fails there has failed; what passes is named in the summary, with its first failure.

In the guest (FLOWFAST_GUEST is the image's name) the same tests are ordinary ones. Guests that a run needs are booted
side by side, as many as there are cores.
"""

import contextlib
import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flowfast.lab.machine import Machine
from flowfast.model.errors import FlowfastError

GUEST_TESTS = Path(__file__).parent / "guest"
RECORD = "\x1e"  # before a report on the guest's standard output; nothing else begins a line so
IN_GUEST = os.environ.get("FLOWFAST_GUEST")


class Kind(NamedTuple):
    """The machine that a test asks for: tests of one kind share a boot."""

    image: str
    nics: int = 0
    cpus: int = 1
    icount: bool = False
    memory: int = 2048
    queues: int = 1
    nic_model: str = "virtio-net-pci"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "guest(images=[...], also=[...], nics=0, cpus=1, ...): the machines that a test runs on (bridge.Kind)",
    )
    config.addinivalue_line("markers", "long(seconds=60): not among what `make test` runs, but in `make test-long`")
    config.addinivalue_line("markers", "changes_foreign: changes other programs' nft tables on purpose")
    if IN_GUEST:
        config.pluginmanager.register(_Reporter(config))


@pytest.fixture
def image() -> str:
    """The name of the image that this guest was booted from."""
    assert IN_GUEST is not None
    return IN_GUEST


# --- in the guest: every report goes out as one line ---------------------------------------------------------------

REPORTS = 9
"""Descriptor that the guest's pytest reports on: its standard output is captured before any plugin is asked."""


class _Reporter:
    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        os.write(REPORTS, f"{RECORD}{json.dumps(data, default=str)}\n".encode())


# --- on the host ---------------------------------------------------------------------------------------------------


@dataclass
class Guest:
    """One boot: the reports that came out of it, by test and phase."""

    kind: Kind
    nodeids: list[str]
    timeout: float
    reports: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    news: threading.Condition = field(default_factory=threading.Condition)
    ended: str | None = None
    started: bool = False
    _rest: str = ""

    def run(self) -> None:
        with self.news:
            self.started = True
            self.news.notify_all()
        kind = self.kind._asdict()
        machine = Machine(**kind, timeout=self.timeout, progress=lambda line: print(line, file=sys.stderr))
        # Reports on the real standard output; what pytest prints beside them goes where errors go.
        script = f'exec {REPORTS}>&1 >&2; exec python3 -m pytest -q -p no:cacheprovider "$@"'
        command = ["env", f"FLOWFAST_GUEST={self.kind.image}", "sh", "-c", script, "pytest", *self.nodeids]
        try:
            result = machine.run(command, stdout=self._take)
            end = f"the guest ended without a report of this test (exit code {result.exit_code}):\n"
            end += _tail(result.stderr)
        except FlowfastError as error:
            end = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it was, every waiting test must hear of it
            end = repr(error)
        with self.news:
            self.ended = end
            self.news.notify_all()

    def _take(self, data: bytes) -> None:
        self._rest += data.decode(errors="replace")
        *lines, self._rest = self._rest.split("\n")
        with self.news:
            for line in lines:
                if line.startswith(RECORD):
                    report = json.loads(line[1:])
                    self.reports.setdefault(report["nodeid"], []).append(report)
            self.news.notify_all()

    def wait_for(self, nodeid: str) -> list[dict[str, Any]] | str:
        """The reports of one test, from setup to teardown; or why there are none."""
        with self.news:
            while True:
                got = self.reports.get(nodeid, [])
                if got and got[-1]["when"] == "teardown":
                    return got
                if self.ended is not None:
                    return self.ended
                self.news.wait()


def _tail(output: bytes) -> str:
    return "\n".join(output.decode(errors="replace").splitlines()[-40:])


class GuestItem(pytest.Item):
    """A test as the host sees it: one for each image."""

    guest: Guest

    def __init__(self, *, item: pytest.Item, kind: Kind, **more: Any) -> None:
        super().__init__(**more)
        self.guest_nodeid, self.kind, self._location = item.nodeid, kind, item.location
        self.own_markers.extend(item.own_markers)

    def runtest(self) -> None:
        raise AssertionError("a guest's test is run by the guest")

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, self._location[1], self.name


def _kinds(item: pytest.Item) -> Iterator[tuple[Kind, bool]]:
    """Each machine that the test asks for, and whether it is for the long run only."""
    marks = list(item.iter_markers("guest"))
    asked = {key: value for mark in reversed(marks) for key, value in mark.kwargs.items()}
    images, also = asked.pop("images", ["debian14"]), asked.pop("also", [])
    for name in (*images, *also):
        yield Kind(name, **asked), name in also


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    if IN_GUEST or config.option.collectonly:
        return
    guests: dict[Kind, list[GuestItem]] = {}
    others: list[pytest.Item] = []
    for item in items:
        if not item.path.is_relative_to(GUEST_TESTS):
            others.append(item)
            continue
        for kind, long in _kinds(item):
            name = f"{item.name}@{kind.image}"
            standing = GuestItem.from_parent(item.parent, name=name, item=item, kind=kind)
            if long and item.get_closest_marker("long") is None:
                standing.add_marker("long")
            guests.setdefault(kind, []).append(standing)
    # The longest first, so that no core idles at the end: tests with traffic take several times as long.
    order = sorted(guests, key=lambda kind: (-len(guests[kind]) * (4 if kind.nics else 1), kind))
    items[:] = others + [item for kind in order for item in guests[kind]]


BOOT = 120
"""Seconds for everything but the tests."""


def _seconds(item: GuestItem) -> int:
    """What a test adds to its guest's time: the guest is killed only when all are far beyond what they take."""
    mark = item.get_closest_marker("long")
    return int(mark.kwargs.get("seconds", 60)) if mark else 60


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """After the last word on which tests are wanted (-k, --lf): one guest for each kind of machine."""
    wanted: dict[Kind, list[GuestItem]] = {}
    for item in session.items:
        if isinstance(item, GuestItem):
            wanted.setdefault(item.kind, []).append(item)
    if not wanted or session.config.option.collectonly:
        return
    waiting: queue.SimpleQueue[Guest] = queue.SimpleQueue()
    for kind, those in wanted.items():
        guest = Guest(kind, [item.guest_nodeid for item in those], timeout=BOOT + sum(map(_seconds, those)))
        for item in those:
            item.guest = guest
        waiting.put(guest)
    for _ in range(os.cpu_count() or 1):
        # Daemons, so that an interrupted run ends at once: QEMU dies with the thread that started it.
        threading.Thread(target=_run_all, args=(waiting,), daemon=True).start()


def _run_all(waiting: "queue.SimpleQueue[Guest]") -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get_nowait().run()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not isinstance(item, GuestItem):
        return None
    again = item.config.stash.setdefault(AGAIN, [])
    got = _reports(item)
    if any(report.failed for report in got):
        again.append((item, got))
    else:
        _tell(item, got)
    if nextitem is None and again:
        _once_more(again, item.config)
    return True


def _reports(item: GuestItem) -> list[pytest.TestReport]:
    """What the item's guest said of it; waits for it."""
    got = item.guest.wait_for(item.guest_nodeid)
    if isinstance(got, str):
        return [pytest.TestReport(item.nodeid, item.location, {}, "failed", got, "call")]
    reports: list[pytest.TestReport] = []
    for data in got:
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        report.nodeid, report.location = item.nodeid, item.location
        if isinstance(report.longrepr, list):  # of a skip: a tuple, before it was JSON
            report.longrepr = tuple(report.longrepr)
        reports.append(report)
    return reports


def _tell(item: GuestItem, reports: list[pytest.TestReport]) -> None:
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


# --- a second time -------------------------------------------------------------------------------------------------

Failed = tuple[GuestItem, list[pytest.TestReport]]
AGAIN = pytest.StashKey[list[Failed]]()
UNSTEADY = pytest.StashKey[list[Failed]]()
MOST = 6
"""More failures than these are no accident: none of them is run again."""


def _once_more(failed: list[Failed], config: pytest.Config) -> None:
    guests: dict[Kind, Guest] = {}
    if len(failed) <= MOST:
        for item, _ in failed:
            guest = guests.setdefault(item.kind, Guest(item.kind, [], timeout=BOOT))
            guest.nodeids.append(item.guest_nodeid)
            guest.timeout += _seconds(item)
            item.guest = guest
    for guest in guests.values():
        guest.run()
    for item, first in failed:
        second = _reports(item) if guests else first
        _tell(item, second)
        if not any(report.failed for report in second):
            config.stash.setdefault(UNSTEADY, []).append((item, first))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    unsteady = config.stash.get(UNSTEADY, [])
    if unsteady:
        terminalreporter.section("failed once, passed in a fresh guest")
    for item, first in unsteady:
        terminalreporter.write_line(item.nodeid, yellow=True)
        for report in first:
            if report.failed:
                terminalreporter.write_line(report.longreprtext)
