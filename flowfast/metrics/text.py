"""Renders metric families as Prometheus' text format 0.0.4.

As prometheus_client's generate_latest does, but many times as fast: label names are put into a template once a family,
and a label value is escaped once. Whole numbers are written as such, not as 1.234e+09.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import islice

from prometheus_client import Metric

from flowfast.metrics.family import Family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LINES = 1000
"""Of a piece, at most."""


class _Escaped(dict[str, str]):
    def __missing__(self, value: str) -> str:
        escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        self[value] = escaped
        return escaped


def render(families: Iterable[Metric]) -> bytes:
    """The page that a scrape gets. Label values may hold any text."""
    return b"".join(parts(families))


def parts(families: Iterable[Metric]) -> Iterator[bytes]:
    """The page piece by piece: the lines of all, or of one large family, would take several times its memory."""
    escaped = _Escaped()
    for family in families:
        lines = _family(family, escaped)
        while some := "".join(islice(lines, LINES)):
            yield some.encode("utf-8", "replace")


def _family(family: Metric, escaped: _Escaped) -> Iterator[str]:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    about = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {about}\n# TYPE {name} {family.type}\n"
    yield from _rows(family, name, escaped) if isinstance(family, Family) else _samples(family, escaped)


def _rows(family: Family, name: str, escaped: _Escaped) -> Iterator[str]:
    template = _template(name, family.labels)
    return (
        template % (*[escaped[label] for label in labels], value if type(value) is int else _number(value))
        for *labels, value in family.rows
    )


def _samples(family: Metric, escaped: _Escaped) -> Iterator[str]:
    templates: dict[tuple[str, ...], str] = {}
    for sample in family.samples:
        labels = sample.labels
        names = tuple(labels)
        template = templates.get(names)
        if template is None:
            template = templates[names] = _template(sample.name, names)
        value = sample.value
        number = value if type(value) is int else _number(value)
        yield template % (*[escaped[label] for label in labels.values()], number)


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _template(name: str, labels: tuple[str, ...]) -> str:
    pairs = ",".join(f'{label}="%s"' for label in labels)
    return f"{name}{{{pairs}}} %s\n" if labels else f"{name} %s\n"
