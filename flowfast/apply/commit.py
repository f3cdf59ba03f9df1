"""commit(): steps to the kernel, in one transaction, or in as many as it takes to be safe at every instant."""

from collections.abc import Iterable, Sequence

from flowfast.kernel import Nft
from flowfast.model.desired import Step
from flowfast.model.transaction import Command


def commands_of(steps: Iterable[Step]) -> list[Command]:
    """All commands, in order."""
    return [command for step in steps for command in step.commands]


def transactions(steps: Iterable[Step]) -> list[list[Command]]:
    """The commands by transaction: a step that must hold before the others begins to ends one."""
    parts: list[list[Command]] = [[]]
    for step in steps:
        parts[-1] += step.commands
        if step.before:
            parts.append([])
    return [part for part in parts if part]


def commit(nft: Nft, steps: Sequence[Step]) -> None:
    """Commits all steps. Raises KernelError where the kernel will not have them; then nothing was changed.

    What comes after a first transaction was tried before it; if it fails all the same (no memory), the router is left
    on more of the full path than it was, which is always correct.
    """
    first, *more = transactions(steps) or [[]]
    for part in more:
        nft.check(part)
    for part in (first, *more):
        if part:
            nft.commit(part)
