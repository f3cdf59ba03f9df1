"""Building an image, without Debian: one builder at a time, all or nothing, and what a failure says."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowfast.cli.lab import lab
from flowfast.lab import image as images
from flowfast.lab import kernel_files
from flowfast.lab.recipe import RECIPES
from flowfast.lab.steps import BuildError, Steps

RECIPE = RECIPES["debian13"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWFAST_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(images, "mirror", lambda: "https://mirror.example/debian")
    monkeypatch.setattr(images, "_debian", lambda _recipe, _uri, rootfs, _steps: (rootfs / "etc").mkdir(parents=True))
    monkeypatch.setattr(images, "_kernel", lambda *_: (kernel_files.Kernel(tmp_path, "7.0-amd64"), []))
    monkeypatch.setattr(images, "_python_packages", lambda _recipe, target, _steps: target)
    monkeypatch.setattr(kernel_files, "install_modules", lambda *_: None)
    monkeypatch.setattr(images, "_install_python", lambda *_: None)
    monkeypatch.setattr(images, "_finish_root", lambda *_: None)
    monkeypatch.setattr(images, "_file_system", lambda _rootfs, root, _steps: root.write_bytes(b"ext4"))
    monkeypatch.setattr(images, "_boot_files", lambda _k, _b, result, _steps: (result / "vmlinux").write_bytes(b""))
    monkeypatch.setattr(images, "_busybox", lambda _recipe: Path("/usr/bin/busybox"))
    return tmp_path


def quiet(_line: str) -> None:
    """No progress."""


def test_an_image_is_built_once_and_found_from_then_on(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = images.ensure(RECIPE, quiet)
    assert (image.kernel, image.root.read_bytes()) == ("7.0-amd64", b"ext4")

    def no_network() -> str:
        raise AssertionError("the network was asked for an image that is there")

    monkeypatch.setattr(images, "mirror", no_network)
    assert images.ensure(RECIPE, quiet) == image
    assert sorted(p.name for p in (cache / "images").iterdir()) == sorted([image.folder.name, "debian13.lock"])


def test_two_builders_build_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds, said = [], []

    def slowly(_recipe: object, _uri: str, rootfs: Path, _steps: Steps) -> None:
        builds.append(1)
        time.sleep(0.3)
        rootfs.mkdir()

    monkeypatch.setattr(images, "_debian", slowly)
    threads = [threading.Thread(target=images.ensure, args=(RECIPE, said.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builds == [1]
    assert any("another process is building it" in line for line in said)


def test_an_older_image_of_the_same_name_goes_and_others_stay(cache: Path) -> None:
    for name in (
        "debian13-0123456789ab",
        "debian13-bpo-0123456789ab",
        ".debian13.left.building",
        ".debian13-bpo.x.building",
    ):
        (cache / "images" / name).mkdir(parents=True)
    image = images.ensure(RECIPE, quiet)
    left = {path.name for path in (cache / "images").iterdir() if path.is_dir()}
    assert left == {image.folder.name, "debian13-bpo-0123456789ab", ".debian13-bpo.x.building"}


def test_a_failure_leaves_nothing_and_says_where_the_log_is(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_recipe: object, _uri: str, _rootfs: Path, steps: Steps) -> None:
        steps.run(["sh", "-c", "seq 100; echo the reason >&2; exit 3"])

    monkeypatch.setattr(images, "_debian", fails)
    with pytest.raises(BuildError) as caught:
        images.ensure(RECIPE, quiet)
    first, *rest = str(caught.value).splitlines()
    assert first == f"debian13: sh failed (exit code 3); the log is {cache}/logs/debian13.log"
    assert len(rest) <= 20
    assert rest[-1].strip() == "the reason"
    assert (cache / "logs/debian13.log").read_text().startswith("+ sh -c")
    assert [path.name for path in (cache / "images").iterdir()] == ["debian13.lock"]
    assert images.find(RECIPE) is None


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no-such-program is not installed \(`make setup-lab` installs it\)"):
        Steps("x", tmp_path / "log", quiet).run(["no-such-program"])


def test_a_busybox_with_shared_libraries_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    static, dynamic = Path("/usr/bin/busybox"), Path("/bin/ls")
    monkeypatch.setattr(images, "BUSYBOX", (dynamic, static))
    assert images._busybox(RECIPE) == static
    monkeypatch.setattr(images, "BUSYBOX", (dynamic, tmp_path / "none"))
    with pytest.raises(BuildError, match="busybox-static is not installed"):
        images._busybox(RECIPE)


def test_without_root_or_sudo_there_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(images.shutil, "which", lambda _name: None)  # type: ignore[attr-defined]
    with pytest.raises(BuildError, match="building an image needs root, or sudo"):
        images.ensure(RECIPE, quiet)


def test_compiled_python_is_where_the_cache_prefix_has_it_looked_for(tmp_path: Path) -> None:
    compiled = tmp_path / "usr/lib/python3/dist-packages/nftables/__pycache__/schema.cpython-313.pyc"
    compiled.parent.mkdir(parents=True)
    compiled.write_bytes(b"code")
    images.link_pycache(tmp_path)
    linked = tmp_path / "pycache/usr/lib/python3/dist-packages/nftables/schema.cpython-313.pyc"
    assert linked.samefile(compiled)


@pytest.fixture
def run(cache: Path) -> Callable[..., str]:
    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(lab, arguments)
        return f"{result.exit_code}\n{result.output}"

    return invoke


def test_list_tells_what_is_built(run: Callable[..., str]) -> None:
    images.ensure(RECIPE, quiet)
    code, listing = run("list", "--json").split("\n", 1)
    rows = {row["image"]: row for row in json.loads(listing)}
    assert code == "0"
    assert list(rows) == list(RECIPES)
    assert (rows["debian13"]["built"], rows["debian13"]["kernel"]) == (True, "7.0-amd64")
    assert (rows["debian12"]["built"], rows["debian12"]["kernel"], rows["debian12"]["bytes"]) == (False, None, None)
    assert "not built" in run("list")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["exec", "--nics", "9", "--", "true"], "0<=x<=8"),
        (["exec"], "Missing argument"),
        (["exec", "--share", "/no/such/folder", "--", "true"], "does not exist"),
        (["shell"], "a shell needs a terminal"),
    ],
)
def test_what_is_mistyped_is_refused_before_anything_boots(
    arguments: list[str], complaint: str, run: Callable[..., str]
) -> None:
    code, said = run(*arguments).split("\n", 1)
    assert code == "2"
    assert complaint in said
