"""A plot as inline SVG, drawn by matplotlib. Colours are CSS variables, so that the page chooses them."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from typing import Any

# Placeholders: matplotlib wants a colour, the page wants a variable.
INK, SOFT, FULL, FAST, MARK = "#010101", "#010102", "#010103", "#010104", "#010105"
_VARIABLES = {INK: "--ink", SOFT: "--soft", FULL: "--full", FAST: "--fast", MARK: "--mark"}
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be read, searched, and takes the page's font
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": SOFT,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}
WIDTH = 9.2
"""Inches of a plot."""

_NUMBERS = count()


@contextmanager
def figure_of(width: float, height: float) -> Iterator[tuple[Any, Callable[[str], str]]]:
    """A figure of so many inches, and what makes SVG of it, given its title."""
    mpl = import_module("matplotlib")  # an extra, and a second to import

    # Ids of clip paths are hashes: with one salt, equal paths of two plots on a page would share an id.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"flowfast {next(_NUMBERS)}"}):
        figure = import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")

        def save(title: str) -> str:
            text = io.StringIO()
            nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
            figure.savefig(text, format="svg", metadata=nothing)
            return inline(text.getvalue(), title)

        yield figure, save


def inline(svg: str, title: str) -> str:
    """A plot for the page: as wide as the page, in its font and colours, with a title for who cannot see it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", svg, flags=re.S)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, f"var({variable})")
    return svg
