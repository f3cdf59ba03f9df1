"""Guests side by side: what comes of them when they answer, fail, break or are ended for another's sake."""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from flowfast.lab.demo import host
from flowfast.lab.demo.events import Failed, Progress
from flowfast.lab.demo.host import DemoError, play
from flowfast.lab.demo.result import Result, to_json
from flowfast.lab.demo.site import PartName
from flowfast.lab.image import Image
from flowfast.lab.machine import GuestError
from flowfast.lab.machine import Result as Ran
from flowfast.lab.recipe import RECIPES
from tests.unit.lab.demo.sample import part

Guest = Callable[[Callable[[bytes], None]], Ran]


def ran(code: int = 0, stderr: bytes = b"") -> Ran:
    return Ran(code, b"", stderr, "", 1.0, 0.5)


def answers(sink: Callable[[bytes], None]) -> Ran:
    sink(f"{Progress(0.5, 'halfway').line()}\n".encode())
    sink(f'{{"part": {to_json(part())}}}\n'.encode())
    return ran()


def fails(sink: Callable[[bytes], None]) -> Ran:
    sink(f"{Failed('gw1: nft: no such thing').line()}\n".encode())
    return ran(1)


def breaks(_sink: Callable[[bytes], None]) -> Ran:
    return ran(1, b"Traceback\n  somewhere\nKeyError: 'tx'\n")


def hangs(_sink: Callable[[bytes], None]) -> Ran:
    raise GuestError("debian14: the guest was killed at its time limit of 900 s (--timeout)", "")


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch) -> dict[str, Guest]:
    """What each part's guest does, in place of Machine."""
    doing: dict[str, Guest] = {}

    class FakeMachine:
        def __init__(self, **options: Any) -> None:
            assert options["nics"] == 3
            assert options["icount"]

        def run(self, argv: Sequence[str], stdout: Callable[[bytes], None]) -> Ran:
            return doing[argv[-1]](stdout)

    monkeypatch.setattr(host, "Machine", FakeMachine)
    monkeypatch.setattr(host.os, "cpu_count", lambda: 2)
    return doing


def start(keep_going: bool = False, shown: list[Any] | None = None) -> Result:
    def show(which: PartName, progress: Progress) -> None:
        if shown is not None:
            shown.append((which, progress))

    image = Image(RECIPES["debian14"], Path(), "7.2.12")
    return play(("policy", "interface"), image, show=show, say=lambda _line: None, keep_going=keep_going)


def test_without_a_nic_that_offloads_there_is_no_third_part(
    guests: dict[str, Guest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOWFAST_CACHE", str(tmp_path))
    guests.update(offload=answers)
    for name, said in (("debian13", "no such NIC for debian13"), ("debian14", "espsim did not compile for kernel 7.2")):
        with pytest.raises(DemoError, match=f"^offloading NIC: .*{said}"):
            play(("offload",), Image(RECIPES[name], Path(), "7.2"), show=lambda *_: None, say=print)


def test_puts_the_answers_together(guests: dict[str, Guest]) -> None:
    guests.update(policy=answers, interface=answers)
    shown: list[Any] = []
    result = start(shown=shown)
    assert result.parts == (part(), part())
    assert (result.failures, result.kernel, result.image) == ((), "7.2.12", "debian14 (Debian 14 (testing))")
    assert [each for each in shown if each[0] == "policy"] == [
        ("policy", Progress(0.0, "the guest boots")),
        ("policy", Progress(0.5, "halfway")),
        ("policy", Progress(1.0, "done")),
    ]


@pytest.mark.parametrize(
    ("guest", "said"),
    [
        (fails, "policy-based: gw1: nft: no such thing"),
        (breaks, "policy-based: the scenario ended without a result (exit code 1): KeyError: 'tx'"),
        (
            hangs,
            "policy-based: debian14: the guest was killed at its time limit of 900 s (--timeout)",
        ),
    ],
)
def test_a_guest_that_does_not_answer_is_one_line(guests: dict[str, Guest], guest: Guest, said: str) -> None:
    guests.update(policy=guest, interface=guest)
    with pytest.raises((DemoError, GuestError)) as caught:
        start(keep_going=True)
    assert str(caught.value).partition("; its console said")[0] == said


def test_one_that_fails_ends_the_other(guests: dict[str, Guest]) -> None:
    running = threading.Event()
    ended = []

    def fails_then(sink: Callable[[bytes], None]) -> Ran:
        assert running.wait(10)
        return fails(sink)

    def goes_on(sink: Callable[[bytes], None]) -> Ran:
        running.set()
        for _ in range(1000):
            try:
                sink(f"{Progress(0.1, 'still here').line()}\n".encode())
            except Exception:
                ended.append(True)
                raise
            threading.Event().wait(0.01)
        return ran()

    guests.update(policy=fails_then, interface=goes_on)
    with pytest.raises(DemoError, match=r"^policy-based: gw1: nft: no such thing$"):
        start()
    assert ended == [True]


def test_keep_going_has_the_other_finish(guests: dict[str, Guest]) -> None:
    guests.update(policy=answers, interface=fails)
    result = start(keep_going=True)
    assert result.parts == (part(),)
    assert result.failures == ("xfrm interface: gw1: nft: no such thing",)


def test_a_bug_of_ours_is_not_hidden(guests: dict[str, Guest]) -> None:
    def bug(_sink: Callable[[bytes], None]) -> Ran:
        raise ZeroDivisionError

    guests.update(policy=bug, interface=answers)
    with pytest.raises(ZeroDivisionError):
        start(keep_going=True)


def test_an_answer_that_is_none_is_a_failure(guests: dict[str, Guest]) -> None:
    def lies(sink: Callable[[bytes], None]) -> Ran:
        sink(json.dumps({"part": {"name": "policy"}}).encode() + b"\n")
        return ran()

    guests.update(policy=lies, interface=lies)
    with pytest.raises(DemoError, match="what it answered is no result"):
        start(keep_going=True)
