"""The journal: what our tables held before the last change, on disk before the change is made.

It lies in /run, one for each network namespace: what it describes is gone with a reboot, and so is it. A rollback
brings back what it says, whatever became of the process that wrote it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flowfast.model.errors import FlowfastError, Unavailable
from flowfast.model.knob import Knob, KnobKind, Settings
from flowfast.model.nftables import Chain, Flowtable, Hook, Ruleset, Set, Table, TableState
from flowfast.plan.diff import diff

FOLDER = Path("/run/flowfast")
VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """The last change, from which ruleset to which. `confirm_by`: seconds since the epoch, None: it is confirmed.

    `knobs`: what flowfast had turned before it, and to what.
    """

    previous: Ruleset
    current: Ruleset
    confirm_by: float | None = None
    knobs: Settings = field(default_factory=dict)


class Journal:
    """The journal of this network namespace."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or FOLDER

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._folder / f"journal-{Path('/proc/thread-self/ns/net').stat().st_ino}.json"

    def read(self) -> Entry | None:
        """The last change; None if there was none. Raises FlowfastError for a file that is none of ours."""
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return None
        try:
            data = json.loads(text)
            if data["version"] != VERSION:
                raise ValueError(f"version {data['version']}")
            knobs = {Knob(KnobKind(kind), thing, name): value for kind, thing, name, value in data.get("knobs", ())}
            return Entry(_ruleset(data["previous"]), _ruleset(data["current"]), data["confirm_by"], knobs)
        except (ValueError, KeyError, TypeError) as error:
            remedy = "`flowfast apply --remove` takes everything out; then delete the file"
            raise FlowfastError(f"{self.path}: not a journal of this flowfast ({error}): {remedy}") from error

    def write(self, entry: Entry) -> None:
        """Replaces the entry; when it returns, the entry is on disk. Raises Unavailable where it cannot be written."""
        data = {
            "version": VERSION,
            "previous": _plain(entry.previous),
            "current": _plain(entry.current),
            "confirm_by": entry.confirm_by,
            "knobs": [[*knob, value] for knob, value in entry.knobs.items()],
        }
        new = self.path.with_suffix(".new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with new.open("w") as file:
                json.dump(data, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise Unavailable(
                f"{new}: the journal cannot be written ({error.strerror}): nothing was changed"
            ) from error


def before(journal: Journal, held: Ruleset) -> Ruleset:
    """What a rollback should bring back: the last change's ruleset if the kernel still holds it, else nothing of ours.

    From the kernel alone it cannot be told: rules come back as hashes. Nothing of ours is the full L3 path, and right.
    """
    last = journal.read()
    return last.current if last is not None and not diff(last.current, held) else Ruleset()


def _plain(ruleset: Ruleset) -> list[dict[str, Any]]:
    tables = []
    for state in ruleset.tables.values():
        table = asdict(state)
        table["flowtables"] = [each | {"devices": sorted(each["devices"])} for each in table["flowtables"].values()]
        table["sets"] = [each | {"elements": list(each["elements"].items())} for each in table["sets"].values()]
        table["chains"] = list(table["chains"].values())
        table["counters"] = sorted(table["counters"])
        tables.append(table)
    return tables


def _ruleset(tables: list[dict[str, Any]]) -> Ruleset:
    return Ruleset({Table(**table["table"]): _table(table) for table in tables})


def _table(data: Mapping[str, Any]) -> TableState:
    chains = [
        Chain(each["name"], tuple(each["rules"]), Hook(**each["hook"]) if each["hook"] else None)
        for each in data["chains"]
    ]
    sets = [
        Set(**{**each, "elements": {tuple(key): value for key, value in each["elements"]}}) for each in data["sets"]
    ]
    flowtables = [Flowtable(**{**each, "devices": frozenset(each["devices"])}) for each in data["flowtables"]]
    return TableState(
        Table(**data["table"]),
        {chain.name: chain for chain in chains},
        {each.name: each for each in sets},
        {each.name: each for each in flowtables},
        frozenset(data["counters"]),
    )
