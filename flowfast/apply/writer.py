"""Writer: the one hand that changes our tables while a controller runs, so that two changes never meet.

A round works in a thread, so that a change of the firewall finds the event loop free to react. What takes all flows off
must speak of the ruleset that the kernel holds at that moment: not of the one before a round's commit, nor after it.
"""

import asyncio
from collections.abc import Sequence

from flowfast.apply.commit import commit
from flowfast.kernel import Nft
from flowfast.model.desired import Step
from flowfast.model.nftables import Ruleset
from flowfast.plan.diff import flush_flows


class Writer:
    """Commits one change at a time. `held` is the ruleset that the kernel holds by it; None: nothing of ours."""

    def __init__(self, nft: Nft) -> None:
        self.held: Ruleset | None = None
        self._nft = nft
        self._turn = asyncio.Lock()

    async def change(self, steps: Sequence[Step], to: Ruleset | None) -> None:
        """Commits the steps to the ruleset `to`. Raises KernelError, and then nothing was changed."""
        async with self._turn:
            if steps:
                await asyncio.to_thread(commit, self._nft, steps)
            self.held = to

    async def flush(self) -> bool:
        """Takes every flow off the flowtable, at once. False where there is no flowtable. Raises KernelError."""
        async with self._turn:
            commands = flush_flows(self.held) if self.held is not None else []
            self._nft.commit(commands)  # a few commands, at any number of tunnels: sooner done than handed to a thread
            return bool(commands)
