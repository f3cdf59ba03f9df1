"""Small charts as inline SVG: numbers in, text out."""

from collections.abc import Sequence

from flowfast.metrics.history import Point

WIDTH, HEIGHT = 900, 160
_LEFT, _BOTTOM = 78, 18


def bits(rate: float) -> str:
    """Bytes a second, as network engineers read it: "12.3 Mbit/s"."""
    value = rate * 8
    for unit in ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"):
        if value < 1000 or unit == "Gbit/s":
            return f"{value:.0f} {unit}" if value >= 100 or unit == "bit/s" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("not reached")


def paths_chart(points: Sequence[Point]) -> str:
    """What took the flowtable, the full path above it, and above that what no counter tells apart; over time."""
    if len(points) < 2:
        return ""
    begin, end = points[0].at, points[-1].at
    most = max(*(sum(point[1:]) for point in points), 1.0)
    xs = [_LEFT + (point.at - begin) / (end - begin) * (WIDTH - _LEFT) for point in points]
    room = HEIGHT - _BOTTOM - 8

    def height(rate: float) -> float:
        return 8 + room * (1 - rate / most)

    below = [0.0] * len(points)
    areas = []
    for css, rates in (
        ("f", [point.fast for point in points]),
        ("s", [point.slow for point in points]),
        ("u", [point.unknown for point in points]),
    ):
        above = [under + rate for under, rate in zip(below, rates, strict=True)]
        outline = [*zip(xs, map(height, above), strict=True), *reversed([*zip(xs, map(height, below), strict=True)])]
        if any(rates):
            areas.append(f'<polygon class="{css}" points="{_text(outline)}"/>')
        below = above
    minutes = (end - begin) / 60
    grid = "".join(
        f'<line class="g" x1="{_LEFT}" x2="{WIDTH}" y1="{height(most * part):.1f}" y2="{height(most * part):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{height(most * part) + 4:.1f}" text-anchor="end">{bits(most * part)}</text>'
        for part in (0, 0.5, 1)
    )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="throughput by path">'
        f'{"".join(areas)}{grid}<text x="{_LEFT}" y="{HEIGHT - 3}">{minutes:.0f} min ago</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 3}" text-anchor="end">now</text></svg>'
    )


def sparkline(rates: Sequence[float]) -> str:
    """A line without axes; nothing of fewer than two points."""
    if len(rates) < 2:
        return ""
    most = max(*rates, 1.0)
    step = 100 / (len(rates) - 1)
    line = [(number * step, 21 - 20 * rate / most) for number, rate in enumerate(rates)]
    drawn = f'<polyline class="l" points="{_text(line)}"/>'
    return f'<svg width="100" height="22" viewBox="0 0 100 22" aria-hidden="true">{drawn}</svg>'


def _text(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
