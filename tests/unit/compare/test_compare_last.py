"""The last result is kept for the exporter, whole or not at all."""

from pathlib import Path

import pytest

from flowfast.compare.last import Last
from flowfast.model.comparison import Comparison, Factor


@pytest.mark.parametrize(
    "kept", [Comparison(1.5, Factor(2.0, 1.5, 2.5), {"a": Factor(1.0)}), Comparison(1.5, None)], ids=["verdict", "none"]
)
def test_what_is_written_is_read(tmp_path: Path, kept: Comparison) -> None:
    last = Last(tmp_path / "run")
    assert last.read() is None
    last.write(kept)
    assert last.read() == kept
    assert [path.suffix for path in (tmp_path / "run").iterdir()] == [".json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"taken_at": 1}', '{"taken_at": 1, "router": 5, "tunnels": {}}'])
def test_a_file_that_is_none_of_ours_is_nothing(tmp_path: Path, text: str) -> None:
    last = Last(tmp_path)
    last.path.write_text(text)
    assert last.read() is None
