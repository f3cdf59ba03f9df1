"""The archive that the kernel unpacks as its first root: "newc" cpio.

Documentation/driver-api/early-userspace/buffer-format.rst describes it.

Archives may follow one another in one file, each padded to four bytes: so a machine adds its own few files to the
image's initrd at every boot, and no tool is needed.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A file (`data` is its content) or a folder (`data` is None) by its path without a leading slash."""

    path: str
    data: bytes | None = None
    executable: bool = False


def _record(ino: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def archive(entries: Iterable[Entry]) -> bytes:
    """One archive with `entries`, in their order: a folder must come before what is in it."""
    records = []
    for ino, entry in enumerate(entries, 1):
        if entry.data is None:
            records.append(_record(ino, entry.path, stat.S_IFDIR | 0o755, b""))
        else:
            mode = stat.S_IFREG | (0o755 if entry.executable else 0o644)
            records.append(_record(ino, entry.path, mode, entry.data))
    return b"".join([*records, _record(0, "TRAILER!!!", 0, b"")])
