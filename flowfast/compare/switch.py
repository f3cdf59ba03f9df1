"""One path or the other, for the whole router: in single transactions, verified, and never for good."""

import errno
from collections.abc import Awaitable, Callable

from flowfast.kernel import Kernel
from flowfast.model.errors import FlowfastError, KernelError
from flowfast.model.nftables import Ruleset
from flowfast.plan.diff import OWN, diff
from flowfast.plan.pause import can_pause, pause, paused, resume

Planned = Callable[[], Awaitable[Ruleset]]
"""What the router should hold now, planned anew."""


class Switch:
    """`planned` gives the ruleset with its rules' text, which a kernel does not give back."""

    def __init__(self, kernel: Kernel, planned: Planned) -> None:
        self._kernel, self._planned = kernel, planned
        self._ruleset: Ruleset | None = None

    async def full(self, seconds: float) -> None:
        """All traffic on the full path, for so long at most; the kernel ends it by itself.

        Raises FlowfastError where the kernel holds another ruleset than is planned: then nothing was changed. Should
        somebody change it between this look and the transaction, no flow can begin meanwhile, and the controller, to
        whom ours is a stranger's transaction, puts its own ruleset back.
        """
        ruleset = await self.held()
        self._kernel.nft.commit(pause(ruleset, seconds))

    def fast(self) -> bool:
        """Back to what the ruleset says. False where that had happened already: the time was over, or all was removed.

        Raises KernelError where the kernel refuses; the end of its time still ends the pause.
        """
        try:
            self._kernel.nft.commit(resume())
        except KernelError as refused:
            if refused.code != errno.ENOENT:
                raise
            return False
        return True

    def left_over(self) -> bool:
        """Whether a pause is on that is none of ours: an experiment's that was killed a moment ago."""
        return paused(self._kernel.nft.read(OWN))

    async def held(self) -> Ruleset:
        """What the kernel holds, with its rules' text. Raises FlowfastError where that is not what is planned."""
        held = self._kernel.nft.read(OWN)
        if self._ruleset is None or diff(self._ruleset, held):
            self._ruleset = await self._planned()
        if not held.tables:
            raise FlowfastError("nothing of flowfast's is in the kernel, so there is no fast path: flowfast apply")
        if diff(self._ruleset, held) or not can_pause(held):
            self._ruleset = None
            raise FlowfastError("the kernel does not hold what this config asks for: flowfast plan, flowfast apply")
        return self._ruleset
