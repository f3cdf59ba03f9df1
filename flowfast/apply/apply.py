"""converge(): commits the difference, verifies it, and retreats to the full path if it does not hold."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from flowfast.apply.commit import commit
from flowfast.apply.knobs import KnobJournal, Refusal, turn_knobs
from flowfast.apply.steering import fill, note
from flowfast.apply.verify import verify
from flowfast.apply.writer import Writer
from flowfast.kernel import Kernel
from flowfast.model.desired import Desired, Step
from flowfast.model.knob import Turn
from flowfast.model.reason import Reason
from flowfast.model.state import RouterState
from flowfast.observe import observe
from flowfast.plan.diff import diff, remove_all


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, what the router looks like now, and (if not held) why it was taken back."""

    steps: tuple[Step, ...]
    state: RouterState
    failures: tuple[Reason, ...] = ()
    turned: tuple[Turn, ...] = ()
    refused: tuple[Reason, ...] = ()
    """Knobs and tables that the kernel would not have: the rest works all the same, so nothing is taken back."""
    again: bool = False
    """Something of that was noted, by which the next plan is another one."""

    @property
    def held(self) -> bool:
        """True where the kernel holds what was wanted."""
        return not self.failures


async def converge(
    kernel: Kernel,
    desired: Desired,
    state: RouterState,
    underlay_netns: Sequence[str] = (),
    *,
    journal: KnobJournal | None = None,
    writer: Writer | None = None,
) -> Outcome:
    """Brings the kernel from `state` to `desired`. Nothing to do changes nothing, and drops no flow.

    Where the kernel took the transaction but does not hold it, everything of ours is removed: the full L3 path is
    always correct. `writer`: whose turns the changes wait for, where others make some too. Raises KernelError where it
    refused the transaction; then nothing was changed.
    """
    writer = writer or Writer(kernel.nft)
    steps = tuple(await asyncio.to_thread(diff, desired.ruleset, state.ruleset))
    await writer.change(steps, desired.ruleset)
    if steps:
        state = await observe(kernel, state.features, sas_of=state)
    failures = tuple(await asyncio.to_thread(verify, desired, state))
    if failures:
        await writer.change(remove_all(state.ruleset), None)
        state = await observe(kernel, state.features, sas_of=state)
    turned, kept = turn_knobs(kernel.knobs, desired.knobs, journal or KnobJournal())
    refused, again = [each.reason for each in kept], False
    denied = [each for each in kept if isinstance(each, Refusal)]
    if desired.steering is not None:
        refused += fill(kernel.xdp, desired.steering)
        again = state.machine is not None and note(kernel.machine, state.machine, turned, denied)
    return Outcome(steps, state, failures, tuple(turned), tuple(refused), again)


async def remove(kernel: Kernel, state: RouterState) -> tuple[Step, ...]:
    """Takes everything of ours out of nftables. Knobs are turned back by turn_back()."""
    steps = tuple(remove_all(state.ruleset))
    commit(kernel.nft, steps)
    return steps
