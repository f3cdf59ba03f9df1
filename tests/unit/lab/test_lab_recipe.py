"""What names an image: its hash, the dependencies that go in, and where the cache is."""

import dataclasses
from pathlib import Path

import pytest

from flowfast.lab import recipe
from flowfast.model.errors import UsageError


def test_the_digest_follows_everything_that_was_decided() -> None:
    first = recipe.RECIPES["debian13"]
    assert first.digest(("click",)) == first.digest(("click",))
    others = [
        first.digest(("click>=8",)),
        dataclasses.replace(first, packages=("nftables",)).digest(("click",)),
        dataclasses.replace(first, suite="testing").digest(("click",)),
        dataclasses.replace(first, out_of_tree=("netdevsim",)).digest(("click",)),
    ]
    assert len({first.digest(("click",)), *others}) == 5


def test_a_module_of_our_own_makes_no_other_image() -> None:
    first = recipe.RECIPES["debian14"]
    assert first.own_modules
    assert dataclasses.replace(first, own_modules=()).digest(()) == first.digest(())


def test_another_format_rebuilds_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe.RECIPES["debian13"].digest(())
    monkeypatch.setattr(recipe, "FORMAT", recipe.FORMAT + 1)
    assert recipe.RECIPES["debian13"].digest(()) != before


def test_the_dependencies_are_the_projects_own_and_its_test_tools() -> None:
    names = recipe.dependencies()
    assert any(name.startswith("pyroute2") for name in names)
    assert any(name.startswith("pytest") for name in names)
    assert not any(name.startswith(("ruff", "mypy")) for name in names)


def test_an_unknown_image_names_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"debian99: no such image \(there are: debian14, "):
        recipe.recipe("debian99")


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"FLOWFAST_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/flowfast"),
        ({"HOME": "/c"}, "/c/.cache/flowfast"),
    ],
)
def test_the_cache_folder(environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLOWFAST_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert recipe.cache_folder() == Path(folder)
