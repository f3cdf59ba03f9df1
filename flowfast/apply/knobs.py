"""turn_knobs(): turns knobs, journal first, and back; whatever ends the process in between, the way back is on disk.

The journal of knobs lies beside the ruleset's, in /run: a reboot sets knobs back by itself. It keeps, for each knob
that was ever turned and not turned back, the value from before flowfast and flowfast's own: a restart changes neither.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flowfast.apply.journal import FOLDER
from flowfast.kernel.knobs import Knobs
from flowfast.model.errors import FlowfastError, KernelError, Unavailable
from flowfast.model.knob import Knob, KnobKind, Settings, Turn, Turned
from flowfast.model.reason import Reason
from flowfast.plan.knobs import turns

VERSION = 1


class KnobJournal:
    """Which knobs flowfast has turned in this network namespace."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or FOLDER

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._folder / f"knobs-{Path('/proc/thread-self/ns/net').stat().st_ino}.json"

    def read(self) -> dict[Knob, Turned]:
        """All of them; none if there is no journal. Raises FlowfastError for a file that is none of ours."""
        try:
            data = json.loads(self.path.read_text())
            if data["version"] != VERSION:
                raise ValueError(f"version {data['version']}")
            return {
                Knob(KnobKind(kind), thing, name): Turned(before, tuple(ours))
                for kind, thing, name, before, ours in data["turned"]
            }
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            remedy = "a reboot turns all knobs back; or delete the file, and turn them by hand"
            raise FlowfastError(f"{self.path}: not a journal of this flowfast ({error}): {remedy}") from error

    def write(self, turned: Mapping[Knob, Turned]) -> None:
        """Replaces it; when it returns, it is on disk. Raises Unavailable where it cannot be written."""
        rows = [[*knob, was.before, was.ours] for knob, was in turned.items()]
        new = self.path.with_suffix(".new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with new.open("w") as file:
                json.dump({"version": VERSION, "turned": rows}, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise Unavailable(f"{new}: the journal cannot be written ({error.strerror}): no knob was turned") from error


@dataclass(frozen=True, slots=True)
class Refusal:
    """A turn that the kernel would not have."""

    turn: Turn
    error: KernelError

    @property
    def reason(self) -> Reason:
        """It, for the operator."""
        return Reason("KNOB_REFUSED", str(self.turn.knob), str(self.error), _remedy(self.turn.knob))


def pending(knobs: Knobs, wanted: Settings, journal: KnobJournal) -> list[Turn]:
    """The turns that would be made."""
    turned = journal.read()
    return turns(wanted, knobs.read({**dict.fromkeys(turned), **dict.fromkeys(wanted)}), turned)


def turn_knobs(knobs: Knobs, wanted: Settings, journal: KnobJournal) -> tuple[list[Turn], list[Refusal]]:
    """Turns what is not as wanted, and back what is wanted no more; returns the turns made and the refusals.

    A knob that the kernel refuses keeps none of the others from being turned.
    """
    turned = journal.read()
    due = pending(knobs, wanted, journal)
    if fresh := [turn for turn in due if not turn.back]:
        for turn in fresh:
            was = turned.get(turn.knob, Turned(turn.held, ()))
            turned[turn.knob] = Turned(was.before, (*was.ours, turn.value))
        journal.write(turned)
    done: list[Turn] = []
    refused: dict[Knob, Refusal] = {}
    for turn in due:
        try:
            knobs.turn(turn.knob, turn.value)
            done.append(turn)
        except KernelError as error:
            refused[turn.knob] = Refusal(turn, error)
    settled = {
        knob: was if knob in refused else Turned(was.before, (wanted[knob],))
        for knob, was in turned.items()
        if knob in wanted or knob in refused
    }
    if settled != turned:
        journal.write(settled)
    return done, list(refused.values())


def _remedy(knob: Knob) -> str:
    match knob.kind:
        case KnobKind.NTUPLE:
            return "few NICs take a rule for a SPI: steering.wan: xdp"
        case KnobKind.XDP:
            return "steering by rps needs no program"
        case KnobKind.RSS | KnobKind.IRQ:
            return "the driver keeps it to itself: steering by xdp or rps"
        case _:
            return "see whether the driver can do it at all"


def turn_back(knobs: Knobs, journal: KnobJournal) -> list[Turn]:
    """Turns every knob back that flowfast turned and nobody else has turned since."""
    return turn_knobs(knobs, {}, journal)[0]
