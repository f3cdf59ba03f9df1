"""What flowfast itself costs, natively and without a kernel: a hub of many tunnels in memory, planned and rekeyed.

Seconds say as much of the machine as of flowfast; so every figure stands beside one for fewer tunnels of the same run,
and the growth between them is what counts. The kernel's own costs are measured in the lab (docs/scale.md).
"""

import asyncio

from flowfast.config.load import parse
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.links import FakeLinks
from flowfast.kernel.nft import FakeNft
from flowfast.kernel.xfrm.builders import make_policy, make_sa
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.model.link import Link
from flowfast.model.sa import SA, Direction, Mark, Policy
from flowfast.model.state import RouterState
from flowfast.observe import observe

HUB = "192.0.2.1"
CONFIG = parse("devices: {lan: [lan0], wan: [wan0]}", "bench").config


def spoke(number: int) -> tuple[str, str, str]:
    """Of the hub's peer of this number, from 0: its outer address, its inner prefix, and the hub's prefix for it."""
    high, low = divmod(number, 256)
    return f"198.18.{high}.{low}", f"10.{128 + high}.{low}.0/24", "10.1.0.0/16"


def sa_pair(number: int, generation: int = 0) -> tuple[SA, SA]:
    """A peer's SAs, inbound and outbound, after so many rekeys; what arrives gets a mark of the peer's own."""
    peer, spi = spoke(number)[0], 0xC0000000 + (generation << 16) + number
    inbound = make_sa(peer, HUB, spi, reqid=number + 1, direction=Direction.IN)
    marked = inbound._replace(output_mark=Mark(number + 1, 0xFFFFFFFF))
    return marked, make_sa(HUB, peer, spi, reqid=number + 1)


def policies(number: int) -> tuple[Policy, ...]:
    """A peer's three policies."""
    peer, remote, local = spoke(number)
    here, there = (HUB, peer), (peer, HUB)
    return (
        make_policy(local, remote, Direction.OUT, tunnel=here, reqid=number + 1),
        make_policy(remote, local, Direction.IN, tunnel=there, reqid=number + 1),
        make_policy(remote, local, Direction.FORWARD, tunnel=there, reqid=number + 1),
    )


def fake_hub(tunnels: int) -> FakeKernel:
    """A router with so many peers, one tunnel each, policy-based."""
    xfrm = FakeXfrm()
    for number in range(tunnels):
        xfrm.put(*policies(number), *sa_pair(number))
    links = [Link(1, "lan0", None, True, 1500, ("10.1.0.1/16",)), Link(2, "wan0", None, True, 1500, (f"{HUB}/24",))]
    return FakeKernel(xfrm=xfrm, links=FakeLinks(links), nft=FakeNft(devices={"lan0", "wan0"}))


def hub(tunnels: int) -> RouterState:
    """The same router, observed."""

    async def look() -> RouterState:
        kernel = fake_hub(tunnels)
        return await observe(kernel, await kernel.probe.features())

    return asyncio.run(look())
