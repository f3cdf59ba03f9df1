"""What flowfast itself costs, natively and without a kernel: a hub of many tunnels in memory, planned and rekeyed.

Seconds say as much of the machine as of flowfast; so every figure stands beside one for fewer tunnels of the same run,
and the growth between them is what counts. The kernel's own costs are measured in the lab (docs/scale.md).
"""

import asyncio
import contextlib
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from math import inf

from flowfast.config.load import parse
from flowfast.controller import Controller
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.links import FakeLinks
from flowfast.kernel.nft import FakeNft
from flowfast.kernel.xfrm import SaAdded
from flowfast.kernel.xfrm.builders import make_policy, make_sa
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.metrics.books import Books
from flowfast.metrics.exporter import Exporter
from flowfast.model.errors import FlowfastError
from flowfast.model.link import Link
from flowfast.model.nftables import Ruleset
from flowfast.model.sa import SA, Direction, Mark, Policy
from flowfast.model.snapshot import ByPath, Snapshot
from flowfast.model.state import RouterState
from flowfast.model.transaction import transaction_text
from flowfast.observe import observe
from flowfast.plan.diff import diff
from flowfast.plan.planner import plan

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


# measured


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: seconds, or (unit "B") bytes. `limit`: what it should stay under on a machine of its own."""

    what: str
    tunnels: int
    value: float
    unit: str = "s"
    limit: float | None = None

    @property
    def per_tunnel(self) -> float:
        """Of the unit."""
        return self.value / self.tunnels


def measure(few: int = 1_000, many: int = 10_000, rekeys: int = 200) -> Iterator[Figure]:
    """Every figure as it is known: each of a plan for both numbers of tunnels, rekeys for the smaller one."""
    for tunnels, limit in ((few, None), (many, 0.5)):
        yield from _planned(tunnels, limit)
    for tunnels, sas, limits in ((few, 10, (None, None)), (many, 2, (0.3, None)), (many, 10, (1.0, 0.5))):
        yield from _scraped(tunnels, sas, limits)
    waits = asyncio.run(_rekeyed(few, rekeys))
    yield Figure("a rekey, until the controller is done with it (p99)", few, waits[int(0.99 * rekeys)], limit=0.05)


def _planned(tunnels: int, limit: float | None) -> Iterator[Figure]:
    state = hub(tunnels)
    yield Figure("plan", tunnels, _best(lambda: plan(state, CONFIG)), limit=limit)
    tracemalloc.start()
    try:
        ruleset = plan(state, CONFIG).ruleset
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    yield Figure("memory of a plan", tunnels, peak, "B", limit=limit and 150e6)
    yield Figure("the transaction that makes it", tunnels, _best(lambda: _text(ruleset)))


def _scraped(tunnels: int, sas: int, limits: tuple[float | None, float | None]) -> Iterator[Figure]:
    """A scrape of a new snapshot, and what a round adds to its counters; with so many SAs a tunnel."""
    generations = [sa for at in range(sas // 2) for number in range(tunnels) for sa in sa_pair(number, at)]
    state = replace(hub(tunnels), sas=tuple(generations))
    desired = plan(state, CONFIG)
    books = Books()
    there = [path.tunnel for path in desired.paths]
    counting = _best(lambda: books.totals(there))
    by_path = {(each.name, way): ByPath(1, 1) for each in there for way in (Direction.OUT, Direction.IN)}
    snapshot = Snapshot(state, desired, totals=books.totals(there), by_path=by_path, flows=())
    exporter = Exporter(CONFIG.exporter.listen, per_sa=True)

    def scrape() -> None:
        exporter.publish(replace(snapshot))
        exporter.render()

    what = f"a scrape, {sas} SAs a tunnel"
    yield Figure(what, tunnels, _best(scrape), limit=limits[0])
    yield Figure(f"counting them, {sas} SAs a tunnel", tunnels, counting, limit=limits[1])


def _text(ruleset: Ruleset) -> str:
    return transaction_text([command for step in diff(ruleset, Ruleset()) for command in step.commands])


def _best(work: Callable[[], object], rounds: int = 5) -> float:
    """CPU seconds, the least of some rounds: the rest is other programs."""
    best = inf
    for _ in range(rounds):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


class _Heard(Books):
    """Says when the end of an SA has come through."""

    def __init__(self) -> None:
        super().__init__()
        self.news = asyncio.Event()

    def ended(self, sa: SA, netns: str | None = None) -> None:
        super().ended(sa, netns)
        self.news.set()


async def _rekeyed(tunnels: int, count: int) -> list[float]:
    """Seconds of each rekey, sorted: two SAs are added, the old ones go, and the controller has heard of all of it."""
    kernel, books = fake_hub(tunnels), _Heard()
    waits = []
    async with _running(kernel, books):
        committed = len(kernel.nft.committed)
        for number in range(count):
            peer, generation = number % tunnels, number // tunnels
            began = time.perf_counter()
            for sa in sa_pair(peer, generation + 1):
                kernel.xfrm.put(sa)
                kernel.xfrm.emit(SaAdded(sa))
            for sa in sa_pair(peer, generation):
                books.news.clear()
                await kernel.xfrm.delete_sa(sa.dst, sa.spi)
            await books.news.wait()
            waits.append(time.perf_counter() - began)
        if len(kernel.nft.committed) != committed:
            raise FlowfastError("a rekey changed the ruleset: report this as a bug")
    return sorted(waits)


@contextlib.asynccontextmanager
async def _running(kernel: FakeKernel, books: Books) -> AsyncIterator[None]:
    """A controller, from when its first round is over."""
    ready = asyncio.Event()
    features = await kernel.probe.features()
    controller = Controller(kernel, CONFIG, features, on_snapshot=lambda _snapshot: ready.set(), books=books)
    task = asyncio.create_task(controller.run())
    try:
        await ready.wait()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
