"""The bridge itself: a test of this folder runs on the guest's kernel, and not on the host's."""

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.guest(images=["debian14"], nics=3)


def test_runs_as_root_on_the_guests_kernel(image: str) -> None:
    assert os.getuid() == 0
    assert "+deb14-" in os.uname().release
    assert image == "debian14"


def test_has_the_nics_that_it_asked_for() -> None:
    assert sum(path.name.startswith("eth") for path in Path("/sys/class/net").iterdir()) == 6
