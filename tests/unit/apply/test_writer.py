"""One transaction at a time, and what takes flows off speaks of the ruleset that the kernel holds then."""

import asyncio
import threading
from collections.abc import Sequence

from flowfast.apply import Writer
from flowfast.kernel.nft import FakeNft
from flowfast.model.nftables import Ruleset
from flowfast.model.transaction import Command
from flowfast.plan.diff import OWN, diff
from flowfast.plan.planner import plan
from tests.unit.plan.router import as_read, config, policies, router

ONE = plan(router(policies()), config()).ruleset
OTHER = plan(router(policies()), config("offload: {protocols: [tcp]}")).ruleset


class SlowNft(FakeNft):
    """Commits when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.let = threading.Event(), threading.Event()
        self.let.set()

    def commit(self, commands: Sequence[Command]) -> None:
        self.asked.set()
        assert self.let.wait(10)
        super().commit(commands)


def test_flows_that_leave_during_a_commit_leave_the_new_ruleset_as_it_is() -> None:
    """With the text of the old one, its rules would come back: a WAN without its guard, a protocol that is excluded."""
    nft = SlowNft()

    async def scenario() -> None:
        writer = Writer(nft)
        await writer.change(diff(ONE, Ruleset()), ONE)
        nft.asked.clear()
        nft.let.clear()
        change = asyncio.create_task(writer.change(diff(OTHER, nft.read(OWN)), OTHER))
        await asyncio.to_thread(nft.asked.wait, 10)
        flush = asyncio.create_task(writer.flush())
        await asyncio.sleep(0)
        nft.let.set()
        await change
        assert await flush

    asyncio.run(scenario())
    assert len(nft.committed) == 4
    assert nft.read(OWN) == as_read(OTHER)


def test_without_a_ruleset_of_ours_there_is_nothing_to_take_off() -> None:
    nft = FakeNft()
    assert not asyncio.run(Writer(nft).flush())
    assert nft.committed == []
