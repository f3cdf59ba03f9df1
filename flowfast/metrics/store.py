"""Writes down what was counted, so that it goes on after a restart: in the controller's runtime folder.

A file of JSON, one document a line, each of some rows; later rows replace earlier ones. So an SA's end is one line
more, and a file whose last line was cut off (a crash, a full disk) is worth all the lines before it. Numbers and
addresses only: there is no key in it. It holds for one boot: with the kernel's counters it starts anew.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from flowfast.metrics.ledger import LedgerState, SaRow
from flowfast.metrics.paths import WayRow
from flowfast.model.sa import Mark

VERSION = 3
ROWS = 500
"""Rows a line: what is encoded in one go, about 2 ms, during which no other thread runs."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Written:
    """What a file holds."""

    ledger: LedgerState
    paths: tuple[WayRow, ...] = ()
    ends_missed: int = 0


class Store:
    """One file. Errors are OSError; what is in the file is never one: what cannot be read is not there."""

    def __init__(self, path: Path, boot: str | None = None) -> None:
        self.path = path
        self._boot = _boot_id() if boot is None else boot

    def read(self) -> Written | None:
        """What was written during this boot; None where nothing was."""
        try:
            lines = self.path.read_text().splitlines()
        except FileNotFoundError:
            return None
        documents = _documents(lines)
        head = next(documents, {})
        if head.get("version") != VERSION or head.get("boot") != self._boot:
            return None
        accounts, sas, ways = [], [], []
        for document in documents:
            accounts += [tuple(row) for row in document.get("accounts", ())]
            sas += [_sa_row(row) for row in document.get("sas", ())]
            ways += [tuple(row) for row in document.get("paths", ())]
        return Written(LedgerState(tuple(accounts), tuple(sas)), tuple(ways), head.get("ends_missed", 0))

    def write(self, written: Written) -> None:
        """Replaces the file as a whole. May be called from another thread."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        with new.open("w") as file:
            head = {"version": VERSION, "boot": self._boot, "ends_missed": written.ends_missed}
            file.write(json.dumps(head) + "\n")
            for name, rows in (
                ("accounts", written.ledger.accounts),
                ("sas", written.ledger.sas),
                ("paths", written.paths),
            ):
                for some in _chunks(rows):
                    file.write(json.dumps({name: some}) + "\n")
        new.replace(self.path)

    def append(self, changed: LedgerState) -> None:
        """One line more. The file must be there."""
        line = json.dumps({"accounts": changed.accounts, "sas": list(changed.sas)})
        with self.path.open("r+") as file:
            file.seek(0, os.SEEK_END)
            file.write(line + "\n")


def _boot_id() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _documents(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            document = json.loads(line)
        except ValueError:
            return
        if not isinstance(document, dict):
            return
        yield document


def _chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    each = iter(rows)
    while some := list(islice(each, ROWS)):
        yield some


def _sa_row(row: list[Any]) -> SaRow:
    ended, name, way, dst, spi, proto, mark, *rest = row
    return (ended, name, way, dst, spi, proto, Mark(*mark) if mark else None, *rest)
