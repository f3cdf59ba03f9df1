"""The report: one file that needs nothing but itself, says what the terminal says, and draws what it has."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flowfast.compare import plots, report, view
from flowfast.compare.estimate import Estimate
from flowfast.compare.result import Latency, Result, Window, to_json
from flowfast.compare.verdict import find, pairs_of
from tests.unit.compare.world import draws, experiment, several


def result(windows: list[Window] | None = None, **more: object) -> Result:
    seen = experiment() if windows is None else windows
    fingerprint = {"kernel": "7.2.12", "cpu": "<script>"}
    values = {"settle": 1.0, "seed": 7, "fingerprint": fingerprint, "fingerprint_hash": "abc"} | more
    return Result("0.1.0", "gw<1>", 1_764_000_000.0, tuple(seen), find(seen), **values)  # type: ignore[arg-type]


PAGE = report.render(result())


def test_it_needs_nothing_but_itself() -> None:
    assert not re.search(r"<(link|script|img|iframe|object|embed|base)\b", PAGE)
    assert not re.search(r"<[^>]*\s(src|srcset|action|formaction|poster)\s*=", PAGE)
    assert set(re.findall(r'https?://[^\s"<]+', PAGE)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "None" not in re.sub(r"<[^>]+>", " ", PAGE)


def test_it_says_what_the_terminal_says() -> None:
    text = re.sub(r"<[^>]+>", " ", PAGE)
    assert view.verdict(result()) in text
    for said in ("berlin", "0x00001000", "7.2.12", "2.0", "95 %", "seed 7", "2025-11-24"):
        assert said in text


@pytest.mark.parametrize(
    "windows",
    [[], experiment()[:1], experiment()[:3], experiment(packets=0), experiment(share=0.05)],
    ids=["none", "one", "three", "silent", "slow"],
)
def test_without_a_verdict_it_says_why(windows: list[Window]) -> None:
    page = report.render(result(windows, ended="it was stopped"))
    assert "No verdict." in page
    assert "Ended early: it was stopped." in page
    assert to_json(result(windows))


def test_plots_are_well_formed() -> None:
    windows = [replace(each, latency=Latency(1e-5, 1e-4, 9)) for each in experiment()]
    windows[2] = replace(windows[2], spoiled="why not")
    for plot in (plots.cost, plots.carried, plots.factors):
        assert ElementTree.fromstring(plot(result(windows))).attrib["aria-label"]  # noqa: S314 - our own


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (Estimate(2.0, 1.9, 2.1, 6), "On the full L3 path a packet costs 2.00x the CPU time of the fast path (1.90"),
        (Estimate(1.1, 0.9, 1.3, 6), "No difference shows"),
        (Estimate(0.5, 0.4, 0.6, 6), "On the fast path a packet costs 2.00x the CPU time"),
        (None, "No verdict."),
    ],
)
def test_the_verdict_in_words(factor: Estimate | None, words: str) -> None:
    found = result()
    changed = replace(found, findings=replace(found.findings, factor=factor))
    assert view.verdict(changed).startswith(words)


def test_rows_are_of_the_pairs() -> None:
    found = result([replace(each, latency=Latency(2e-5, 1e-4, 9)) for each in experiment()])
    rows = {row.what: row for row in view.rows(pairs_of(found.windows), found.findings)}
    assert rows["carried"].full == "40 Mbit/s, 10 kpackets/s"
    assert rows["through the router, median"].fast == "20 us"
    assert rows["bytes on the flowtable"].full == "0.0%"
    assert rows["bytes on the flowtable"].fast == "98.0%"
    costs = {"a": (2e-5, 1e-5), "b": (2e-5, 1e-5)}
    many = result(several(costs, [{"a": 50_000, "b": 70_000}] * 8, draws(1)))
    assert [(row.tunnel, row.direction) for row in view.tunnel_rows(pairs_of(many.windows), many.findings)] == [
        ("b", "out"),
        ("a", "out"),
    ]


def test_a_rate_has_three_digits(tmp_path: Path) -> None:
    assert view.rate(0, "bit/s") == "0 bit/s"
    assert view.rate(999.4, "bit/s") == "999 bit/s"
    assert view.rate(999.6, "bit/s") == "1 kbit/s"
    assert view.rate(12_345_678_901, "bit/s") == "12.3 Gbit/s"
