"""turn_knobs(): turns knobs, journal first, and back; whatever ends the process in between, the way back is on disk.

The journal of knobs lies beside the ruleset's, in /run: a reboot sets knobs back by itself. It keeps, for each knob
that was ever turned and not turned back, the value from before flowfast and flowfast's own: a restart changes neither.
"""

import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flowfast.apply.journal import FOLDER
from flowfast.kernel.knobs import Knobs
from flowfast.model.errors import FlowfastError, KernelError, Unavailable
from flowfast.model.knob import HIDDEN, Knob, KnobKind, Settings, Turn, Turned
from flowfast.model.reason import Reason, Severity
from flowfast.plan.knobs import answered, turns

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
                Knob(KnobKind(kind), thing, name): Turned(before, tuple(ours), *made)
                for kind, thing, name, before, ours, *made in data["turned"]
            }
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            remedy = "a reboot turns all knobs back; or delete the file, and turn them by hand"
            raise FlowfastError(f"{self.path}: not a journal of this flowfast ({error}): {remedy}") from error

    def write(self, turned: Mapping[Knob, Turned]) -> None:
        """Replaces it; when it returns, it is on disk. Raises Unavailable where it cannot be written."""
        rows = [[*knob, was.before, was.ours, was.made] for knob, was in turned.items()]
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


@dataclass(frozen=True, slots=True)
class Remark:
    """What there is to say of a knob that was turned, or could not be looked at."""

    reason: Reason


def pending(knobs: Knobs, wanted: Settings, journal: KnobJournal) -> list[Turn]:
    """The turns that would be made."""
    turned = journal.read()
    return turns(wanted, knobs.read({**dict.fromkeys(turned), **dict.fromkeys(wanted)}), turned)


def turn_knobs(knobs: Knobs, wanted: Settings, journal: KnobJournal) -> tuple[list[Turn], list[Refusal | Remark]]:
    """Turns what is not as wanted, and back what is wanted no more, and looks; returns the turns made and what
    is to be said of others.

    A knob that the kernel refuses, or of which a driver makes something else, keeps none of the others from being
    turned.
    """
    turned = journal.read()
    earlier = dict(turned)
    held = knobs.read({**dict.fromkeys(turned), **dict.fromkeys(wanted)})
    due = turns(wanted, held, turned)
    if fresh := [turn for turn in due if not turn.back]:
        for turn in fresh:
            was = turned.get(turn.knob, Turned(turn.held, ()))
            turned[turn.knob] = Turned(was.before, (*was.ours, turn.value))
        journal.write(turned)
    written = dict(turned)
    done, refused = _turn(knobs, due)
    found = {**held, **knobs.read(turn.knob for turn in due)}  # after all of them: one turn may undo another
    looked_at = {turn.knob: found[turn.knob] for turn in done if turn.knob in found}
    for knob, refusal in refused.items():
        if not refusal.turn.back and found.get(knob) == refusal.turn.held:  # nothing of ours is in it
            _as_before(turned, earlier, knob)
    settled = dict(_settled(turned, wanted, found, looked_at, refused))
    if settled != written:
        journal.write(settled)
    odd = (_odd(turn, found) for turn in done if turn.back)
    hidden = (_hidden(knob) for knob in settled if knob not in wanted and found.get(knob) == HIDDEN)
    kept = (_made(knob, wanted, was) for knob, was in settled.items() if knob not in refused)
    remarks = [Remark(reason) for reason in (*hidden, *odd, *kept) if reason is not None]
    return done, [*refused.values(), *remarks]


def _turn(knobs: Knobs, due: Iterable[Turn]) -> tuple[list[Turn], dict[Knob, Refusal]]:
    """Turns them, in their order. A knob that went meanwhile, with a NAPI that was made anew, is passed over."""
    done: list[Turn] = []
    refused: dict[Knob, Refusal] = {}
    for turn in due:
        try:
            knobs.turn(turn.knob, turn.value)
            done.append(turn)
        except KernelError as error:
            if knobs.read([turn.knob]):
                refused[turn.knob] = Refusal(turn, error)
    return done, refused


def _as_before(turned: dict[Knob, Turned], earlier: Mapping[Knob, Turned], knob: Knob) -> None:
    del turned[knob]
    if knob in earlier:
        turned[knob] = earlier[knob]


def _settled(
    turned: Mapping[Knob, Turned], wanted: Settings, found: Settings, looked_at: Settings, refused: Container[Knob]
) -> Iterator[tuple[Knob, Turned]]:
    """What is to be remembered: what is wanted, what could not be turned back, and what hides."""
    for knob, was in turned.items():
        if knob in refused or found.get(knob) == HIDDEN:
            yield knob, was
        elif knob in wanted:
            made = wanted[knob] if found.get(knob) == wanted[knob] else looked_at.get(knob, was.made)
            yield knob, Turned(was.before, (wanted[knob],), made)


def _made(knob: Knob, wanted: Settings, was: Turned) -> Reason | None:
    """Of a knob that stands otherwise than it was asked to."""
    if knob not in wanted or was.made is None or not answered(was, wanted[knob], was.made):
        return None
    sentence = f"{wanted[knob]} was asked for, and the driver made {was.made} of it"
    if was.made == was.before:
        sentence = f"the driver took {wanted[knob]} and left it at {was.made}"
    return Reason("KNOB_ROUNDED", str(knob), sentence, f"ask for {was.made}, or for nothing", Severity.INFO)


def _hidden(knob: Knob) -> Reason:
    sentence = "it cannot be turned back while its device is down, and is in the journal until it can"
    return Reason("KNOB_HIDDEN", str(knob), sentence, f"ip link set {knob.object} up, then the same again")


def _odd(turn: Turn, found: Settings) -> Reason | None:
    """Of a knob that did not come back."""
    if found.get(turn.knob, turn.value) == turn.value:
        return None
    sentence = f"it was to be {turn.value} again, as before flowfast, and is {found[turn.knob]}"
    return Reason("KNOB_NOT_BACK", str(turn.knob), sentence, _remedy(turn.knob))


def _remedy(knob: Knob) -> str:
    match knob.kind:
        case KnobKind.NTUPLE:
            return "few NICs take a rule for a SPI: steering.wan: xdp"
        case KnobKind.XDP:
            return "steering by rps needs no program"
        case KnobKind.RSS | KnobKind.IRQ:
            return "the driver keeps it to itself: steering by xdp or rps"
        case KnobKind.NIC:
            return "what the driver takes is shown by ethtool -g, -c and -l; the rest of the profile holds"
        case KnobKind.MODULE:
            return "load or unload it before any SA is made, and before flowfast: /etc/modules-load.d, or a blacklist"
        case _:
            return "see whether the driver can do it at all"


def turn_back(knobs: Knobs, journal: KnobJournal) -> tuple[list[Turn], list[Reason]]:
    """Turns every knob back that flowfast turned and nobody else has turned since; and why some could not be."""
    done, others = turn_knobs(knobs, {}, journal)
    return done, [each.reason for each in others]
