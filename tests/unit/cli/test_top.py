"""`flowfast top`: rates between looks, the order of lines, how it ends, and that it is quiet where nobody watches."""

import asyncio
import json
import os
import pty
import signal
import termios
import threading
import time

import pytest

from flowfast.cli import sight, top
from flowfast.cli.top import ORDERS, Line, Meter
from flowfast.kernel.fake import FakeKernel
from flowfast.model.sa import Direction
from flowfast.model.state import CounterValue
from flowfast.plan.ruleset import INET
from tests.unit.cli.looking import OUT, Flowfast, applied
from tests.unit.plan.router import PEER


def test_what_was_carried_between_two_looks(look: Flowfast, router: FakeKernel, site: str) -> None:
    applied(router, site)
    router.xfrm.count(PEER, OUT.spi, 5_000_000, 5000)

    async def use() -> list[Line]:
        meter = Meter()
        seen = await sight.look(site)
        assert await meter.lines(seen) is None
        router.xfrm.count(PEER, OUT.spi, 1_000_000, 1000)
        router.nft.set_counter(INET, "out_berlin", CounterValue(100, 250_000))
        await asyncio.sleep(0.05)
        lines = await meter.lines(await sight.again(seen))
        assert lines is not None
        return lines

    out, back = asyncio.run(use())
    assert (out.tunnel, out.direction, back.direction) == ("berlin", Direction.OUT, Direction.IN)
    assert out.bytes_per_second is not None
    assert out.packets_per_second is not None
    assert 0 < out.bytes_per_second <= 1_000_000 / 0.05
    assert out.bytes_per_second == pytest.approx(1000 * out.packets_per_second)
    assert out.share == pytest.approx(0.75)
    assert (out.flows, out.sas, back.flows, back.sas) == (1, 1, 1, 1)
    assert (back.bytes_per_second, back.share) == (0, None)


def test_the_share_is_of_the_last_interval_alone(look: Flowfast, router: FakeKernel, site: str) -> None:
    applied(router, site)

    async def use() -> list[float | None]:
        meter, seen, shares = Meter(), await sight.look(site), []
        slow = 0
        for fast_bytes, slow_bytes in ((0, 0), (0, 1000), (1000, 0), (0, 0)):
            slow += slow_bytes
            router.xfrm.count(PEER, OUT.spi, fast_bytes + slow_bytes, 1)
            router.nft.set_counter(INET, "out_berlin", CounterValue(1, slow))
            await asyncio.sleep(0.01)
            lines = await meter.lines(seen := await sight.again(seen))
            shares.append(lines[0].share if lines else None)
        return shares

    assert asyncio.run(use()) == [None, 0.0, 1.0, None]


def line(name: str, rate: float | None, packets: float | None, share: float | None) -> Line:
    return Line(name, Direction.OUT, rate, packets, share, 0, 1)


@pytest.mark.parametrize(("sort", "order"), [("rate", "bac"), ("packets", "abc"), ("share", "bca")])
def test_the_order(sort: str, order: str) -> None:
    lines = [line("c", None, None, 0.5), line("a", 10, 20, None), line("b", 20, 10, 0.1)]
    assert "".join(each.tunnel for each in sorted(lines, key=ORDERS[sort])) == order


def test_lines_where_nobody_watches(look: Flowfast, router: FakeKernel, site: str) -> None:
    applied(router, site)
    shown = look("top", site, "--interval", "0.1", "--count", "2")
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert len(lines) == 4
    assert lines[0].split("  ")[1:] == [
        *("berlin", "out", "0 bit/s", "0 packets/s", "- on flowtable", "1 flows", "1 SAs")
    ]


def test_as_json_one_object_a_look(look: Flowfast, router: FakeKernel, site: str) -> None:
    shown = look("top", site, "--interval", "0.1", "--count", "2", "--json")
    first, second = (json.loads(text) for text in shown.output.splitlines())
    assert second["time"] > first["time"]
    assert [each["direction"] for each in first["lines"]] == ["out", "in"]
    assert first["lines"][0]["share"] is None


def test_without_a_config_rates_are_known_and_shares_are_not(look: Flowfast, router: FakeKernel) -> None:
    shown = look("top", "--interval", "0.1", "--count", "1")
    assert "reqid-1  out  0 bit/s  0 packets/s  - on flowtable" in shown.output
    router.xfrm._policies.clear()
    assert "no tunnel is there" in look("top", "--interval", "0.1", "--count", "1").output


def test_an_unknown_order_is_refused(look: Flowfast) -> None:
    assert look("top", "--sort", "name").exit_code == 2


END = b"that was all"  # written after `top` has ended: what the reader has by then is the whole screen


@pytest.mark.parametrize("how", ["q", "signal"])
def test_a_terminal_is_left_as_it_was(
    look: Flowfast, router: FakeKernel, site: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A real terminal: the table appears, q or Ctrl-C ends it, and the line discipline is what it was."""
    ours, theirs = pty.openpty()
    screen: list[bytes] = []

    def person() -> None:
        deadline = time.monotonic() + 20
        while b"berlin" not in b"".join(screen) and time.monotonic() < deadline:
            screen.append(os.read(ours, 65536))
        if how == "q":
            os.write(ours, b"xq")
        else:
            os.kill(os.getpid(), signal.SIGINT)
        while END not in b"".join(screen):
            screen.append(os.read(ours, 65536))

    with open(theirs, "rb", buffering=0, closefd=False) as keys, open(theirs, "w", closefd=False) as paper:
        monkeypatch.setattr("sys.stdin", keys)
        monkeypatch.setattr("sys.stdout", paper)
        monkeypatch.setenv("TERM", "xterm")
        before = termios.tcgetattr(theirs)
        watcher = threading.Thread(target=person, daemon=True)
        watcher.start()
        assert top.top.callback is not None
        top.top.callback(config=site, settings={}, interval=0.1, times=None, sort="rate", as_json=False)
        assert termios.tcgetattr(theirs) == before
        paper.write(END.decode())
        paper.flush()
        watcher.join(20)
        assert not watcher.is_alive()
    shown = b"".join(screen)
    assert b"\x1b[?1049h" in shown  # the other screen, and back
    assert b"\x1b[?1049l" in shown
    assert b"on flowtable" in shown
    os.close(ours)
    os.close(theirs)
