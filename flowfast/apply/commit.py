"""commit(): steps to the kernel, in one transaction, or in as many as it takes to be safe at every instant."""

from collections.abc import Iterable, Sequence

from flowfast.kernel import Nft
from flowfast.model.desired import Step
from flowfast.model.errors import KernelError
from flowfast.model.transaction import AddTable, Command, DeleteTable


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

    Where the first of several transactions takes something away, the others are tried before it; one that fails all the
    same (no memory) leaves the router on more of the full path than it was, which is always correct. What the first
    ones only added is taken out again where it was a table of its own, and else left: it only keeps out.
    """
    parts = transactions(steps)
    if len(parts) > 1 and steps[0].flushes:
        for part in parts[1:]:
            nft.check(part)
    made: list[Command] = []
    for part in parts:
        try:
            nft.commit(part)
        except KernelError:
            if made:
                nft.commit(made)
            raise
        made += [DeleteTable(command.table) for command in part if isinstance(command, AddTable)]
