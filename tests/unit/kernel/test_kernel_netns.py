"""Another network namespace is entered by a thread; never by a child, whose signals would reach our event loop."""

import errno
import threading

import pytest

from flowfast.kernel import netns
from flowfast.kernel.netns import within


def test_it_is_done_there_by_a_thread_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[tuple[str, int]] = []
    monkeypatch.setattr(
        netns, "setns", lambda name, flags, fork: entered.append((name, threading.get_ident())) if not fork else None
    )
    done_by = within("underlay", threading.get_ident)
    assert entered == [("underlay", done_by)]
    assert done_by != threading.get_ident()


def test_where_there_is_none_nothing_is_done() -> None:
    with pytest.raises(OSError) as caught:
        within("flowfast-none", lambda: pytest.fail("done in our own namespace"))
    assert caught.value.errno == errno.ENOENT


def test_what_fails_there_fails_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "setns", lambda name, flags, fork: None)
    with pytest.raises(ZeroDivisionError):
        within("underlay", lambda: 1 // 0)
