"""Metric families as rows: what collectors make when there are ten thousand tunnels.

prometheus_client's own families make a dict of labels and a Sample for each series, which is most of what a large page
costs. A Family is one of its Metrics, and has these samples for whoever asks, but the page is rendered from the rows.
"""

from typing import Any, Literal

from prometheus_client import Metric
from prometheus_client.samples import Sample

Value = float | int
Row = tuple[Any, ...]
"""Label values (text), and last the value."""


class Family(Metric):  # type: ignore[misc]  # prometheus_client is not checked with the rest
    """A counter or gauge. `add` takes the label values in the order of `labels`, and then the value."""

    def __init__(
        self, name: str, documentation: str, kind: Literal["counter", "gauge"], labels: tuple[str, ...]
    ) -> None:
        self.name = name.removesuffix("_total") if kind == "counter" else name
        self.documentation, self.type, self.unit = documentation, kind, ""
        self.labels = labels
        self.rows: list[Row] = []
        self.add = self.rows.append

    @property
    def samples(self) -> list[Sample]:
        """The rows as prometheus_client has them."""
        name = f"{self.name}_total" if self.type == "counter" else self.name
        return [Sample(name, dict(zip(self.labels, row[:-1], strict=True)), row[-1]) for row in self.rows]


def counter(name: str, documentation: str, *labels: str) -> Family:
    """A counter, whose name ends in _total."""
    return Family(name, documentation, "counter", labels)


def gauge(name: str, documentation: str, *labels: str) -> Family:
    """A gauge."""
    return Family(name, documentation, "gauge", labels)
