"""The status page: everything that comes from the router is escaped, it stays short, and its charts are the numbers."""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from flowfast.metrics.history import APART, POINTS, History, Rate
from flowfast.metrics.page.charts import bits, paths_chart, sparkline
from flowfast.metrics.page.status import ROWS, headers, status_page
from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import Direction
from flowfast.model.snapshot import ByPath, Snapshot, Traffic
from flowfast.model.tunnel import TunnelKey
from tests.unit.metrics.world import US, fixed, sa, snapshot, tunnel
from tests.unit.pace import growth

OUT, IN = ("t", Direction.OUT), ("t", Direction.IN)
EVIL = '"><script>alert(1)</script>&'


class Reader(HTMLParser):
    """Text, and what would run or be fetched."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.text, self.scripts, self.links, self.handlers = "", 0, list[str](), list[str]()
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "xlink:href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        self.text += data


def at(seconds: float, out: int = 0, fast: int = 0, slow: int = 0, *, told: bool = True) -> Snapshot:
    """A tunnel that had carried so much by then."""
    by_path = {OUT: ByPath(fast, slow)} if told else {}
    now = snapshot(tunnel("t", [sa(1)], [sa(2)]), totals={OUT: Traffic(out, 1)}, by_path=by_path)
    return replace(now, state=replace(now.state, taken_at=seconds))


def fed(*snapshots: Snapshot) -> History:
    history = History()
    for each in snapshots:
        history.update(each)
    return history


def test_rates_are_what_was_carried_between_two_looks() -> None:
    history = fed(at(100, 0, 0, 0), at(110, 5_000, 3_000, 1_000))
    assert history.rates[OUT] == Rate(400, 0.75)
    assert history.points == ((110, 300, 100, 0),)
    assert history.line("t") == (400,)


def test_what_no_counter_tells_apart_is_neither_path() -> None:
    history = fed(at(100, told=False), at(110, 5_000, told=False))
    assert history.points == ((110, 0, 0, 500),)
    assert history.rates[OUT] == Rate(500, None)


def test_rounds_that_follow_each_other_closely_are_one_point_and_a_clock_set_back_is_none() -> None:
    history = fed(at(100), at(100 + APART - 0.1, 9), at(100 + APART, 50, 50), at(50, 60, 60), at(60, 70, 70))
    assert [point.at for point in history.points] == [100 + APART, 60]


def test_counters_that_began_anew_are_no_rate_below_nothing() -> None:
    assert fed(at(100, 500, 500), at(110, 20, 20)).rates[OUT] == Rate(0, None)


def test_history_is_bounded() -> None:
    history = fed(*(at(100 + 10 * n, n, n) for n in range(3 * POINTS)))
    assert len(history.points) == len(history.line("t")) == POINTS


def test_thousands_of_tunnels_take_no_longer_each_than_hundreds() -> None:
    def work(number: int) -> Callable[[], object]:
        those = [tunnel(f"t{n}") for n in range(number)]
        totals = {(each.name, Direction.OUT): Traffic(1000, 1) for each in those}
        history, clock = History(), iter(range(0, 10**6, 10))

        def update() -> None:
            now = snapshot(*those, totals=totals)
            history.update(replace(now, state=replace(now.state, taken_at=float(next(clock)))))

        return update

    assert growth(work, 500, 5_000) < 4


def test_page_says_what_a_person_wants_to_know() -> None:
    text = Reader(status_page(fixed(), fed(fixed()))).text
    for word in (
        "berlin", "192.0.2.2", "3 tunnels", "2 down", "without meta_ipsec_netdev no guard can be written",
        "kernel 5.11 or newer", "error", "1 failed", "no flowtable: all traffic takes the full path",
    ):  # fmt: skip
        assert word in text, word


def test_page_before_the_first_look_and_without_anything_to_complain_of() -> None:
    assert "has not looked at the router yet" in Reader(status_page(None, History())).text
    assert "Nothing stands in the way" in Reader(status_page(at(1), History())).text


def test_rates_and_shares_are_on_the_page() -> None:
    history = fed(at(100), at(110, 5_000_000, 3_000_000, 1_000_000), at(120, 9_000_000, 6_000_000, 2_000_000))
    page = status_page(at(120), history)
    text = Reader(page).text
    assert "2.4 Mbit/s on the flowtable" in text
    assert "800 kbit/s on the full L3 path" in text
    assert "3.2 Mbit/s" in text and "75.0%" in text
    assert page.count(b"<polygon") == 2
    assert page.count(b"<polyline") == 1


def test_text_of_the_router_stays_text() -> None:
    reason = Reason("NOT_HELD", EVIL, EVIL, EVIL, Severity.ERROR)
    now = snapshot(tunnel(EVIL, key=TunnelKey(1, 0, US, EVIL)))
    now = replace(now, failures=(reason,), state=replace(now.state, hooked=frozenset({EVIL})))
    found = Reader(status_page(now, History(), "q=%22%3E%3Cscript%3E"))
    assert found.scripts == 1
    assert found.text.count(EVIL) >= 4


def test_page_stays_short_and_finds_by_name_or_peer() -> None:
    many = snapshot(*(tunnel(f"t{n:04}", key=TunnelKey(1, 0, US, f"10.0.{n >> 8}.{n & 255}")) for n in range(3000)))
    page = status_page(many, History())
    assert page.count(b"<tr>") <= ROWS + 1
    assert "and 2900 more tunnels" in Reader(page).text
    found = Reader(status_page(many, History(), "q=T2999")).text
    assert "t2999" in found and "t0001" not in found
    assert "t0005" in Reader(status_page(many, History(), "q=10.0.0.5")).text


def test_those_that_are_down_come_first_and_then_the_busiest() -> None:
    names = [("idle", [sa(1)], [sa(2)]), ("busy", [sa(3)], [sa(4)]), ("down", [], [])]

    def moment(seconds: float, octets: int) -> Snapshot:
        now = snapshot(*(tunnel(*each) for each in names), totals={("busy", Direction.OUT): Traffic(octets, 1)})
        return replace(now, state=replace(now.state, taken_at=seconds))

    page = status_page(moment(110, 900), fed(moment(100, 0), moment(110, 900))).decode()
    assert page.index("<td>down") < page.index("<td>busy") < page.index("<td>idle")


def test_nothing_runs_or_is_fetched_but_what_the_policy_names() -> None:
    page = status_page(fixed(), fed(fixed()))
    policy = dict(headers())["Content-Security-Policy"]
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    found = Reader(page)
    assert found.handlers == []
    assert found.links == ["/metrics"]


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "0 bit/s"), (12, "96 bit/s"), (1_250, "10.0 kbit/s"), (125_000_000, "1.0 Gbit/s"), (10**12, "8000 Gbit/s")],
)
def test_rates_in_bits(rate: float, text: str) -> None:
    assert bits(rate) == text


def test_charts_need_two_points_and_stand_still_at_nothing() -> None:
    assert paths_chart(()) == sparkline(()) == sparkline((1.0,)) == ""
    assert "polygon" not in paths_chart(fed(at(0), at(10), at(20)).points)
    assert 'points="0.0,21.0 100.0,1.0"' in sparkline((0.0, 8.0))
