"""In every test on a router: somebody else's tables are byte-identical afterwards (foreign.py)."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from flowfast.lab.netns import Netns
from tests.guest import foreign


@pytest.fixture(scope="session", autouse=True)
def somebodys_tables() -> Iterator[None]:
    """A router has them as soon as it is there, and is looked at once more before it goes."""
    if "FLOWFAST_GUEST" not in os.environ:
        yield
        return
    enter, leave = Netns.__enter__, Netns.__exit__

    def entered(self: Netns) -> Netns:
        ns = enter(self)
        if ns.name in foreign.ROUTERS:
            foreign.install(ns)
        return ns

    def left(self: Netns, *error: Any) -> None:
        try:
            if error[0] is None:
                foreign.check(self)
        finally:
            foreign.forget(self)
            leave(self, *error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Netns, "__enter__", entered)
        patch.setattr(Netns, "__exit__", left)
        yield


@pytest.fixture(autouse=True)
def somebodys_tables_are_as_they_were(request: pytest.FixtureRequest, somebodys_tables: None) -> Iterator[None]:
    """After the test, in all routers that outlive it."""
    yield
    if request.node.get_closest_marker("changes_foreign"):
        foreign.repair()
    else:
        for ns in foreign.routers():
            foreign.check(ns)
