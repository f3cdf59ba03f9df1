"""What the scenario says on its standard output, one JSON line an event, and reading it as it comes in pieces."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flowfast.lab.demo.result import Part, part_of


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scenario is, 0 to 1, and what it is about to do."""

    fraction: float
    sentence: str

    def line(self) -> str:
        """As the scenario says it."""
        return json.dumps({"progress": round(self.fraction, 4), "sentence": self.sentence})


@dataclass(frozen=True, slots=True)
class Failed:
    """A scenario that ended early, in one line."""

    sentence: str

    def line(self) -> str:
        """As the scenario says it."""
        return json.dumps({"failed": self.sentence})


Event = Progress | Failed | Part


class Reader:
    """Bytes of a scenario's output to its events. What is no event is kept in `noise`."""

    def __init__(self) -> None:
        self._rest = b""
        self.noise: list[str] = []

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = _event(line)
            if event is not None:
                yield event
            elif line.strip():
                self.noise.append(line.decode(errors="replace"))


def _event(line: bytes) -> Event | None:
    try:
        data: Any = json.loads(line)
    except ValueError:
        return None
    match data:
        case {"progress": float() | int() as fraction, "sentence": str() as sentence}:
            return Progress(float(fraction), sentence)
        case {"failed": str() as sentence}:
            return Failed(sentence)
        case {"part": dict() as part}:
            return part_of(part)
    return None
