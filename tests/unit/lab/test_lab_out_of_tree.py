"""Modules that are kept: by kernel, and our own by their source too; what does not compile is not tried again."""

from pathlib import Path

import pytest

from flowfast.lab import out_of_tree
from flowfast.lab.apt import Apt
from flowfast.lab.guest_init import first_files
from flowfast.lab.out_of_tree import ensure, kept, lacking
from flowfast.lab.steps import BuildError, Steps

VERSION = "7.2.12+deb14-amd64"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWFAST_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "espsim.c"
    path.write_text("one")
    monkeypatch.setattr(out_of_tree, "OWN", {"espsim": path})
    return path


def test_another_source_is_another_module(source: Path) -> None:
    first = kept("espsim", VERSION)
    source.write_text("two")
    assert kept("espsim", VERSION) != first
    assert kept("espsim", VERSION).parent == kept("netdevsim", VERSION).parent
    assert kept("netdevsim", VERSION).name == "netdevsim.ko"


def test_what_is_there_is_not_compiled(source: Path) -> None:
    assert lacking(["espsim"], VERSION) == ["espsim"]
    kept("espsim", VERSION).parent.mkdir(parents=True)
    kept("espsim", VERSION).write_bytes(b"ELF")
    assert lacking(["espsim"], VERSION) == []


def test_what_does_not_compile_is_said_once_and_not_tried_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    steps = Steps("debian14", tmp_path / "log", said.append)

    def compiler(*_: object) -> Path:
        raise BuildError("debian14: make failed\nmore")

    monkeypatch.setattr(out_of_tree, "_compiler", compiler)
    (tmp_path / "apt").mkdir()
    apt = Apt(tmp_path / "apt", "https://example.org/debian", "testing", lambda _argv: "")
    assert ensure(["espsim"], VERSION, apt, tmp_path / "work", steps) == {}
    assert any("going on without espsim: debian14: make failed" in line for line in said)
    assert lacking(["espsim"], VERSION) == []
    source.write_text("corrected")
    assert lacking(["espsim"], VERSION) == ["espsim"]


def test_modules_are_in_the_boot_where_init_copies_them_from() -> None:
    archive = first_files("true", False, {"espsim": b"the module"})
    assert b"lab/espsim.ko" in archive
    assert b"the module" in archive
    assert b"espsim" not in first_files("true", False)
