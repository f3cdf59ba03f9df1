"""What the lab qualified: one file for each kernel, written by `flowfast lab qualify`, read by all that plan."""

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

from flowfast.model.bulk import Case, Cell, Side, Stage, Verdict, kernel_id

FOLDER = Path(__file__).parent


def kernels(folder: Path = FOLDER) -> tuple[str, ...]:
    """The kernels that there are cells of."""
    return tuple(sorted(path.name.removesuffix(".json") for path in folder.glob("*.json")))


@cache
def cells(release: str, folder: Path = FOLDER) -> tuple[Cell, ...]:
    """The cells of the kernel with this release (uname -r); none where nobody tried it."""
    path = folder / f"{kernel_id(release)}.json"
    if not path.exists():
        return ()
    data = json.loads(path.read_text())
    return tuple(_cell(each, data["kinds"]) for each in data["cells"])


def save(release: str, image: str, new: Iterable[Cell], folder: Path = FOLDER) -> Path:
    """Puts cells into the kernel's file, in place of those of the same case. One cell a line."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kernel_id(release)}.json"
    cells.cache_clear()
    held = {cell.case: cell for cell in cells(release, folder)} | {cell.case: cell for cell in new}
    cells.cache_clear()
    kinds = list(dict.fromkeys(kind for cell in held.values() for kind in cell.verdicts))
    lines = ",\n".join(json.dumps(_plain(held[case])) for case in sorted(held))
    head = json.dumps({"kernel": kernel_id(release), "image": image, "kinds": kinds})
    path.write_text(f'{head[:-1]}, "cells": [\n{lines}\n]}}\n')
    return path


def case_json(case: Case) -> dict[str, Any]:
    """A case in the table's words, which are also those that a guest is told it in."""
    return {**asdict(case), "side": str(case.side), "stage": str(case.stage)}


def case_of(data: dict[str, Any]) -> Case:
    """The same, read back."""
    return Case(**{**data, "side": Side(data["side"]), "stage": Stage(data["stage"])})


def _plain(cell: Cell) -> dict[str, Any]:
    """A cell as it is written: kinds that are not named arrived whole."""
    return {
        **case_json(cell.case),
        "date": cell.date,
        "merged": cell.merged,
        "failed": {kind: str(verdict) for kind, verdict in cell.failing().items()},
    }


def _cell(data: dict[str, Any], kinds: list[str]) -> Cell:
    case = case_of({each.name: data[each.name] for each in fields(Case) if each.name in data})
    verdicts = {kind: Verdict(data["failed"].get(kind, Verdict.WHOLE)) for kind in kinds}
    return Cell(case, data["date"], verdicts, data["merged"])
