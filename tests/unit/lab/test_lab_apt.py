"""Which mirror the machine uses, and which kernel is the newest of a suite."""

from pathlib import Path

import pytest

from flowfast.lab.apt import Apt, mirror, newest_kernel
from flowfast.model.errors import Unavailable

SOURCES = """\
Types: deb
# a comment
URIs: https://security.example/debian-security
Suites: bookworm-security
Components: main

Types: deb-src
URIs: https://source.example/debian
Suites: bookworm

Types: deb
URIs: https://disabled.example/debian
Suites: bookworm
Enabled: no

Types: deb
 deb-src
URIs: https://mirror.example/debian
Suites: bookworm
 bookworm-updates
Components: main
"""


def write(etc: Path, name: str, text: str) -> None:
    path = etc / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_mirror_is_the_source_of_the_machines_own_release(tmp_path: Path) -> None:
    write(tmp_path, "sources.list.d/debian.sources", SOURCES)
    write(tmp_path, "sources.list.d/vendor.list", "deb [signed-by=/x] https://vendor.example stable-vendor main\n")
    assert mirror(tmp_path, "bookworm") == "https://mirror.example/debian"


def test_the_old_one_line_format_with_and_without_options(tmp_path: Path) -> None:
    write(
        tmp_path,
        "sources.list",
        "# deb https://old.example/debian trixie main\n"
        "deb-src https://source.example/debian trixie main\n"
        "deb [arch=amd64 signed-by=/usr/share/k.gpg] https://mirror.example/debian/ trixie main contrib\n",
    )
    assert mirror(tmp_path, "trixie") == "https://mirror.example/debian/"


def test_a_machine_without_a_debian_mirror_is_told_so(tmp_path: Path) -> None:
    write(tmp_path, "sources.list", "deb https://ubuntu.example/ubuntu noble main\n")
    with pytest.raises(Unavailable, match="no Debian mirror for noble-ish is configured"):
        mirror(tmp_path, "noble-ish")


@pytest.mark.parametrize(
    ("packages", "newest"),
    [
        (["linux-image-6.1.0-9-amd64", "linux-image-6.1.0-50-amd64"], "6.1.0-50-amd64"),
        (["linux-image-7.2.9+deb13-amd64", "linux-image-7.2.12+deb13-amd64"], "7.2.12+deb13-amd64"),
        (["linux-image-7.3.4+deb13-amd64", "linux-image-7.2.12+deb13-amd64"], "7.3.4+deb13-amd64"),
        (["linux-image-7.3.4+deb13-cloud-amd64", "linux-image-6.19.8+deb13-amd64"], "6.19.8+deb13-amd64"),
        (["linux-image-7.3.4+deb13-rt-amd64", "linux-image-7.3.4+deb13-amd64-dbg", "linux-image-amd64"], None),
        (["linux-image-7.3.4+deb13-amd64-unsigned"], None),
        ([], None),
    ],
)
def test_the_newest_full_kernel(packages: list[str], newest: str | None) -> None:
    assert newest_kernel(packages) == newest


def test_a_private_apt_touches_none_of_the_machines_own_state(tmp_path: Path) -> None:
    ran: list[list[str]] = []

    def run(argv: object) -> str:
        ran.append(list(argv))  # type: ignore[call-overload]
        return "linux-image-amd64 linux-base"

    apt = Apt(tmp_path / "apt", "https://mirror.example/debian", "testing", run)
    apt.update()
    assert apt.names("linux-") == ["linux-image-amd64", "linux-base"]
    apt.download(["linux-base"], tmp_path / "debs")
    for argv in ran:
        options = [argv[i + 1] for i, arg in enumerate(argv) if arg == "-o"]
        assert f"Dir::State::Lists={tmp_path}/apt/lists" in options
        assert "Dir::State::Status=/dev/null" in options
        assert "Acquire::Check-Valid-Until=false" in options
    line = (tmp_path / "apt/sources.list").read_text()
    assert line.endswith("https://mirror.example/debian testing main\n")
