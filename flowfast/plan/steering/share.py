"""share_out(): slots to targets, evenly, and with as few changes as that takes. Queues, tables of CPUs, all of them."""

from collections import Counter
from collections.abc import Sequence


def share_out(slots: Sequence[int | None], targets: Sequence[int]) -> tuple[int, ...]:
    """A target for each slot; no target has two more slots than another, and a slot keeps what it had if it may.

    `slots` have what is there now (None, or what is no target any more: to be given anew). Targets that come first get
    the slots that do not divide. Raises ValueError without targets.
    """
    if not targets:
        raise ValueError("nothing to share out to")
    had = Counter(slot for slot in slots if slot in targets)
    least, extra = divmod(len(slots), len(targets))
    # One more for those that have more already: each of them keeps a slot that would otherwise change.
    order = sorted(targets, key=lambda target: (-min(had[target], least + 1), targets.index(target)))
    room = {target: least + (place < extra) for place, target in enumerate(order)}
    chosen: list[int | None] = []
    for slot in slots:
        kept = slot if slot is not None and room.get(slot, 0) > 0 else None
        if kept is not None:
            room[kept] -= 1
        chosen.append(kept)
    free = (target for target in targets for _ in range(room[target]))
    return tuple(next(free) if slot is None else slot for slot in chosen)
