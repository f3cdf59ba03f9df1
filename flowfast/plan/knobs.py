"""turns(): from the knobs as they are to the knobs that are wanted, and back where one is not wanted any more."""

from collections.abc import Mapping

from flowfast.model.knob import HIDDEN, Knob, KnobKind, Settings, Turn, Turned


def turns(wanted: Settings, held: Settings, turned: Mapping[Knob, Turned]) -> list[Turn]:
    """The changes; none where all knobs stand as they should. Those that go back come first.

    `held` has the wanted and the turned knobs that are there now: one that is not is passed over. A knob that somebody
    else has turned since is his: it is not taken back, and so it is nobody's to wonder about. One of which a driver
    makes something else than what it was asked for is not asked again.
    """
    there = {knob: value for knob, value in held.items() if value != HIDDEN}
    back = [
        Turn(knob, was.before, there[knob], back=True)
        for knob, was in turned.items()
        if knob not in wanted and knob in there and was.is_ours(knob, there[knob]) and there[knob] != was.before
    ]
    due = back + [
        Turn(knob, value, there[knob])
        for knob, value in wanted.items()
        if there.get(knob, value) != value and not answered(turned.get(knob), value, there[knob])
    ]
    return sorted(due, key=_rank)


def answered(was: Turned | None, wanted: str, held: str) -> bool:
    """Whether this is what the driver makes of what is wanted."""
    return was is not None and was.ours[-1:] == (wanted,) and was.made == held != wanted


def _rank(turn: Turn) -> int:
    """What has to come before what else.

    What needs the shield is off before it goes. Channels and rings come before what they make anew: NAPIs. A driver
    that adapts by itself may refuse fixed times: adapting goes before them, and comes after them.
    """
    name = turn.knob.name
    if turn.knob.kind is KnobKind.SHIELD and turn.value == "off":
        return 5
    if turn.knob.kind is KnobKind.NAPI:
        return 4
    if turn.knob.kind is not KnobKind.NIC:
        return 3
    if name.startswith("channels"):
        return 0
    if name.startswith("coalesce"):
        return 2 if turn.value == "on" else 1 if turn.value != "off" else 0
    return 0
