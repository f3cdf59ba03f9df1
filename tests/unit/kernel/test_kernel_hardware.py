"""Which drivers take flows: asked once for each device, in a dry run, and only where a config wants to know."""

import asyncio
import errno
from collections.abc import Sequence

import pytest

from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.links import FakeLinks
from flowfast.kernel.nft import RealNft
from flowfast.model.errors import KernelError
from flowfast.model.state import RouterState
from flowfast.model.transaction import Command, transaction_text
from flowfast.observe import observe
from tests.unit.plan.router import LAN, WAN


def test_each_device_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def check(_: RealNft, commands: Sequence[Command]) -> None:
        asked.append(transaction_text(commands))
        if '"wan0"' in asked[-1]:
            raise KernelError("nft: Operation not supported", errno.EOPNOTSUPP)

    monkeypatch.setattr(RealNft, "check", check)
    nft = RealNft()
    assert nft.takes_flows([LAN, WAN]) == nft.takes_flows([LAN, WAN]) == {"lan0"}
    assert len(asked) == 2
    assert all("flags offload;" in text and "add table inet flowfast-trial" in text for text in asked)


def test_only_a_config_that_wants_it_asks() -> None:
    kernel = FakeKernel(links=FakeLinks([LAN, WAN]))
    kernel.nft.hardware = {"wan0", "gone0"}

    async def look() -> RouterState:
        return await observe(kernel, await kernel.probe.features())

    assert asyncio.run(look()).hardware == frozenset()
    kernel.nft.with_hardware = True
    assert asyncio.run(look()).hardware == {"wan0"}
