"""Counters over many rekeys, a crash and a restart: what flowfast says a tunnel carried is what was sent, to the byte.

Two gateways without an IKE daemon, whose SAs are replaced as one would: new before old, inbound before outbound.
"""

import asyncio
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowfast.kernel.xfrm import Aead, AsyncXfrmSocket, SAConfig
from flowfast.lab.manual_keys import SPI_IN, SPI_OUT, manual_keys
from flowfast.lab.topology import TwoGateways, two_gateways, wan_address
from flowfast.lab.traffic import UdpFlow, UdpResult
from tests.guest.router import Router

pytestmark = pytest.mark.guest(images=["debian14"], nics=3)

CONFIG = """
devices: {lan: [lan0], wan: [wan0]}
accounting: precise
"""
SIZE = 500
INNER = SIZE + 28
"""Bytes of a packet in the tunnel: its payload, UDP's header and IPv4's."""
RATE = 150


class Site:
    """A router under test, and its two directions of traffic."""

    def __init__(self, topo: TwoGateways, router: Router) -> None:
        self.topo, self.router = topo, router
        self.spis = (SPI_OUT + 1, SPI_IN + 1)

    def carried(self) -> dict[tuple[str, str], int]:
        """(bytes or packets, direction) -> the tunnel's total, of a look at the router that begins from now on."""
        asked, deadline = time.time(), time.monotonic() + 90
        while True:
            page = samples(self.router.metrics())
            if page.get("flowfast_snapshot_timestamp_seconds", 0.0) > asked:
                return totals(page)
            assert time.monotonic() < deadline, page
            time.sleep(1)

    def flow(self) -> UdpFlow:
        """From h1 to h2 and back."""
        return UdpFlow(self.topo.h1, self.topo.h2, self.topo.host_address(2, 4), rate=RATE, size=SIZE, port=7000)

    def one_way(self) -> UdpFlow:
        """From h1 to h2 without an answer: never established, so that it keeps to the full path."""
        return UdpFlow(self.topo.h1, self.topo.h2, self.topo.host_address(2, 4), rate=RATE, size=SIZE, echo=False)

    def rekey(self, times: int) -> None:
        """Replaces the pair of SAs on both gateways, so many times."""
        asyncio.run(self._rekey(times))

    async def _rekey(self, times: int) -> None:
        ends = wan_address(1, 4), wan_address(2, 4)
        async with AsyncXfrmSocket("gw1") as gw1, AsyncXfrmSocket("gw2") as gw2:
            for _ in range(times):
                old, self.spis = self.spis, (self.spis[0] + 16, self.spis[1] + 16)
                there, back = (
                    SAConfig(src=src, dst=dst, spi=spi, reqid=1, esn=True, replay_window=128,
                             aead=Aead("rfc4106(gcm(aes))", secrets.token_bytes(20)))
                    for (src, dst), spi in zip((ends, ends[::-1]), self.spis, strict=True)
                )  # fmt: skip
                for gateway, new in ((gw2, there), (gw1, back), (gw1, there), (gw2, back)):
                    await gateway.add_sa(new)
                await gw1.delete_sa(ends[1], old[0])
                await gw2.delete_sa(ends[0], old[1])
                await asyncio.sleep(0.02)  # what is under way under the old ones
                await gw2.delete_sa(ends[1], old[0])
                await gw1.delete_sa(ends[0], old[1])


def samples(text: str) -> dict[str, float]:
    """Series of a page of metrics, with their labels as written."""
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def totals(page: dict[str, float]) -> dict[tuple[str, str], int]:
    """(bytes or packets, direction) -> sum over the paths."""
    found = {("bytes", "out"): 0, ("bytes", "in"): 0, ("packets", "out"): 0, ("packets", "in"): 0}
    for unit, way in found:
        series = [v for name, v in page.items() if name.startswith(f"flowfast_tunnel_{unit}_total{{")
                  and f'direction="{way}"' in name]  # fmt: skip
        assert series, (unit, way, page)
        found[unit, way] = int(sum(series))
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with two_gateways("policy", families=(4,)) as topo:
        manual_keys(topo)
        assert topo.ping(4)
        with Router(topo.gw1, CONFIG, tmp_path_factory.mktemp("rekeys")) as router:
            yield Site(topo, router)


class Watch:
    """Scrapes all the while, and remembers every counter that went backwards."""

    def __init__(self, router: Router) -> None:
        self._router, self._done = router, threading.Event()
        self.backwards: list[tuple[str, float, float]] = []
        self.scrapes = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(60)

    def _watch(self) -> None:
        last: dict[str, float] = {}
        while not self._done.wait(2):
            page = samples(self._router.metrics())
            for name, value in page.items():
                if name.startswith("flowfast_tunnel_") and "_total" in name:
                    if value < last.get(name, 0.0):
                        self.backwards.append((name, last[name], value))
                    last[name] = value
            self.scrapes += bool(page)


def check(
    before: dict[tuple[str, str], int], after: dict[tuple[str, str], int], echoed: UdpResult, one_way: UdpResult
) -> None:
    """Out: every byte that h1 sent. In: every byte that came out of the tunnel: all that h1 received, at least."""
    grown = {key: after[key] - before[key] for key in after}
    assert echoed.sent > 0
    assert one_way.sent > 0
    assert grown["bytes", "out"] == (echoed.sent + one_way.sent) * INNER
    assert echoed.received * INNER <= grown["bytes", "in"] <= echoed.sent * INNER
    assert grown["bytes", "in"] % INNER == 0


def rekeyed(site: Site, times: int) -> None:
    before = site.carried()
    with Watch(site.router) as watch:
        with site.flow() as echoing, site.one_way() as one_way:
            time.sleep(1)
            site.rekey(times)
            time.sleep(1)
            echoed, sent = echoing.stop(), one_way.stop()
        after = site.carried()
    assert watch.backwards == []
    assert watch.scrapes > 0
    check(before, after, echoed, sent)
    # The SAs' own counters over all their generations: every end was heard.
    assert after["packets", "out"] - before["packets", "out"] == echoed.sent + sent.sent
    page = samples(site.router.metrics())
    assert page["flowfast_sa_ends_missed_total"] == 0
    assert any("flowfast_tunnel_bytes_total" in name and "flowtable" in name and page[name] > 0 for name in page)
    assert echoed.lost <= times // 20 + 1, echoed


@pytest.mark.long(seconds=150)  # make test has the last counters of an SA that goes (test_xfrm), and the ledger's units
def test_bytes_and_packets_are_exact_over_rekeys(site: Site) -> None:
    rekeyed(site, 40)


@pytest.mark.long(seconds=400)
def test_bytes_and_packets_are_exact_over_a_thousand_rekeys(site: Site) -> None:
    rekeyed(site, 1000)


@pytest.mark.long(seconds=300)
def test_bytes_are_exact_over_a_crash_and_a_restart(site: Site) -> None:
    before = site.carried()
    with Watch(site.router) as watch, site.flow() as echoing, site.one_way() as one_way:
        time.sleep(1)
        site.rekey(3)
        site.router.stop(signal.SIGKILL)
        site.rekey(2)
        site.router.start()
        site.rekey(3)
        site.router.stop()
        site.router.start()
        time.sleep(1)
        echoed, sent = echoing.stop(), one_way.stop()
    after = site.carried()
    assert watch.backwards == []
    check(before, after, echoed, sent)
    assert list(Path("/run/flowfast").glob("counts-*.jsonl"))
