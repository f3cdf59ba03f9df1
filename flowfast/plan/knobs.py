"""turns(): from the knobs as they are to the knobs that are wanted, and back where one is not wanted any more."""

from collections.abc import Mapping

from flowfast.model.knob import Knob, KnobKind, Settings, Turn, Turned


def turns(wanted: Settings, held: Settings, turned: Mapping[Knob, Turned]) -> list[Turn]:
    """The changes; none where all knobs stand as they should. Those that go back come first.

    `held` has the wanted and the turned knobs that are there now: one that is not is passed over. A knob that somebody
    else has turned since is his: it is not taken back, and so it is nobody's to wonder about.
    """
    back = [
        Turn(knob, was.before, held[knob], back=True)
        for knob, was in turned.items()
        if knob not in wanted and knob in held and held[knob] in was.ours and held[knob] != was.before
    ]
    due = back + [Turn(knob, value, held[knob]) for knob, value in wanted.items() if held.get(knob, value) != value]
    return sorted(due, key=_unshields)  # what needs the shield is off before it goes


def _unshields(turn: Turn) -> bool:
    return turn.knob.kind is KnobKind.SHIELD and turn.value == "off"
