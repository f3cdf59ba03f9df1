"""Unit tests keep their hands off this machine: the journal of knobs is a folder of their own."""

from collections.abc import Iterator

import pytest

from flowfast.apply import knobs


@pytest.fixture(scope="session", autouse=True)
def own_journal_of_knobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """With fakes for knobs, the machine's own journal would look like one of knobs that are gone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knobs, "FOLDER", tmp_path_factory.mktemp("journal"))
        yield
