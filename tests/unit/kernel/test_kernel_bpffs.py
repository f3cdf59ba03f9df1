"""Where a link is pinned: only in a bpffs that outlives this process, and that is seen where it is mounted."""

from pathlib import Path

import pytest

from flowfast.kernel import bpffs

OTHER = "22 1 0:21 / /sys rw shared:7 - sysfs sysfs rw"
USUAL = "30 22 0:28 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700"
OWN = "90 22 0:77 / /run/own rw - bpf none rw"
SPACED = r"91 22 0:78 / /run/of\040many rw master:3 - bpf none rw"
SEEN = {Path("/sys/fs/bpf"): "0:28", Path("/run/own"): "0:77", Path("/run/of many"): "0:78"}


def given(folder: Path, monkeypatch: pytest.MonkeyPatch, here: list[str], of_init: list[str]) -> None:
    for name, lines in (("MOUNTS", here), ("OF_INIT", of_init)):
        file = folder / name
        file.write_text("".join(f"{line}\n" for line in lines))
        monkeypatch.setattr(bpffs, name, file)
    monkeypatch.setattr(bpffs, "_seen", SEEN.get)


@pytest.mark.parametrize(
    ("here", "of_init", "folder"),
    [
        ([OTHER, USUAL], [OTHER, USUAL], "/sys/fs/bpf"),
        ([OWN, USUAL], [USUAL], "/sys/fs/bpf"),
        ([OTHER, OWN], [OTHER, USUAL], None),  # goes with the namespace that it was mounted in
        ([OWN, SPACED], [USUAL, SPACED], "/run/of many"),
        ([SPACED, USUAL], [SPACED, USUAL], "/sys/fs/bpf"),
        ([OTHER], [OTHER], None),
    ],
)
def test_a_bpffs_lasts_that_the_first_process_has_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: list[str], of_init: list[str], folder: str | None
) -> None:
    given(tmp_path, monkeypatch, here, of_init)
    assert bpffs.lasting() == (Path(folder) if folder else None)


def test_one_below_another_mount_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(tmp_path, monkeypatch, [USUAL, SPACED], [USUAL, SPACED])
    monkeypatch.setattr(bpffs, "_seen", {**SEEN, Path("/sys/fs/bpf"): "0:21"}.get)
    assert bpffs.lasting() == Path("/run/of many")


def test_where_it_cannot_be_seen_nothing_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(tmp_path, monkeypatch, [USUAL], [USUAL])
    monkeypatch.setattr(bpffs, "OF_INIT", tmp_path / "hidden")
    assert bpffs.lasting() is None
