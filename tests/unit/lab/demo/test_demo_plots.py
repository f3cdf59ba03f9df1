"""Bytes over time to rates by path, and what becomes of matplotlib's SVG."""

import re
from xml.etree import ElementTree

import pytest

from flowfast.lab.demo import plots
from flowfast.lab.demo.result import Cost
from tests.unit.lab.demo.sample import part

MEGABYTE_A_SECOND = 8e6


def test_all_is_full_path_before_flowfast_ran_and_fast_since() -> None:
    at, full, fast = plots.series(part(), "tx", 8.0, 12.0, step=0.5)
    assert at == pytest.approx([8.0, 8.5, 9.0, 9.5, 10.0, 10.5, 11.0, 11.5])
    assert full == pytest.approx([MEGABYTE_A_SECOND] * 4 + [0] * 4)
    assert fast == pytest.approx([0] * 4 + [MEGABYTE_A_SECOND] * 4)


def test_headers_that_gro_saves_are_not_taken_for_a_fast_path() -> None:
    # The forward chain saw 4 % less than the SAs, before there was any flowtable.
    merged = tuple(
        type(each)(each.at, each.tx, each.rx, round(each.forward_tx * 0.96), each.forward_rx) for each in part().samples
    )
    _, full, fast = plots.series(part(samples=merged), "tx", 1.0, 2.0, step=0.5)
    assert fast == pytest.approx([0, 0])
    assert full == pytest.approx([MEGABYTE_A_SECOND] * 2)


def test_before_the_first_and_after_the_last_sample_nothing_moves() -> None:
    _, full, fast = plots.series(part(), "rx", 20.5, 22.5, step=0.5)
    assert full == fast == pytest.approx([0] * 4)


@pytest.mark.parametrize(
    "svg",
    [
        plots.timeline(part()),
        plots.switch_over(part()),
        plots.throughput(part()),
        plots.cost([part(), part(costs=(Cost("policy-based"),))]),
        plots.shares([part()]),
    ],
    ids=["timeline", "switch_over", "throughput", "cost", "shares"],
)
def test_a_plot_is_well_formed_and_takes_the_pages_colours(svg: str) -> None:
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own
    assert root.attrib["aria-label"]
    assert "width" not in root.attrib
    assert "var(--" in svg
    # Whatever colour is left was not chosen by the page (matplotlib writes white for nothing).
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", svg)) <= {"#ffffff"}
    assert not re.search(r"<(style|metadata|script|image)\b", svg)


def test_ids_of_two_plots_do_not_collide() -> None:
    ids = [set(re.findall(r'id="([^"]+)"', plots.timeline(part()))) for _ in range(2)]
    clip = [
        {
            name
            for name in found
            if not re.match(r"(figure|axes|patch|text|matplotlib|xtick|ytick|line2d|Fill|legend)", name)
        }
        for found in ids
    ]
    assert clip[0]
    assert not clip[0] & clip[1]
