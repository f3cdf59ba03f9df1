"""The bridge to the guest, with a guest that is a process of this machine: what it says of tests that fail."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

CHECKOUT = Path(__file__).parents[2]
CONFTEST = """
    import subprocess
    from pathlib import Path
    from types import SimpleNamespace

    from tests import bridge
    from tests.bridge import *

    HERE = Path(__file__).parent
    bridge.GUEST_TESTS = HERE / "guest"

    class Here:
        def __init__(self, **kind):
            with open(HERE / "boots", "a") as file:
                file.write("boot\\n")

        def run(self, command, stdout):
            done = subprocess.run(command, cwd=HERE, capture_output=True)
            stdout(done.stdout)
            return SimpleNamespace(exit_code=done.returncode, stderr=done.stderr)

    bridge.Machine = Here
"""
TESTS = """
    from pathlib import Path

    import pytest

    pytestmark = pytest.mark.guest(images={images})

    def test_steady():
        pass

    def test_unsteady():
        before = Path("before")
        if not before.exists():
            before.touch()
            raise AssertionError("the first time")

    @pytest.mark.parametrize("number", range({broken}))
    def test_broken(number):
        raise AssertionError("every time")
"""


def run(folder: Path, broken: int, *options: str, images: str = '["debian14"]') -> tuple[int, str, int]:
    """Exit code, output, and boots of a run of these tests. `images`: what the marker says of them."""
    (folder / "guest").mkdir()
    (folder / "conftest.py").write_text(dedent(CONFTEST))
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {CHECKOUT}\n")
    (folder / "guest" / "test_it.py").write_text(dedent(TESTS.format(broken=broken, images=images)))
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *options, "guest"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, len((folder / "boots").read_text().splitlines())


def test_what_passes_in_a_fresh_guest_has_passed_and_is_named(tmp_path: Path) -> None:
    code, output, boots = run(tmp_path, broken=0)
    assert (code, boots) == (0, 2), output
    assert "2 passed, 1 skipped" in output
    assert "failed once, passed in a fresh guest" in output
    assert "AssertionError: the first time" in output


def test_what_fails_again_has_failed(tmp_path: Path) -> None:
    code, output, boots = run(tmp_path, broken=2)
    assert (code, boots) == (1, 2), output
    assert "2 failed, 2 passed" in output
    assert output.count("AssertionError: every time") >= 2


def test_many_failures_are_no_accident(tmp_path: Path) -> None:
    code, output, boots = run(tmp_path, broken=6)
    assert (code, boots) == (1, 1), output
    assert "7 failed, 1 passed" in output


def test_images_that_a_test_is_also_for_are_for_the_long_run(tmp_path: Path) -> None:
    images = '["debian14"], also=["debian13"]'
    for options, seen in (((), True), (("-m", "not long"), False)):
        folder = tmp_path / str(seen)
        folder.mkdir()
        code, output, _ = run(folder, 0, *options, images=images)
        assert code == 0, output
        assert "test_steady@debian14" in output
        assert ("test_steady@debian13" in output) is seen
