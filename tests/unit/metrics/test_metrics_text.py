"""The renderer says what prometheus_client says, whatever the labels hold."""

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from flowfast.metrics.text import render

LABELS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8) | st.sampled_from(
    ['"', "\\", "\n", "\\n", 'a"b\\c\nd', ""]
)
VALUES = st.integers(0, 2**64) | st.floats() | st.booleans()


class One:
    """What generate_latest takes: a registry of these families."""

    def __init__(self, *families: Metric) -> None:
        self.families = families

    def collect(self) -> tuple[Metric, ...]:
        return self.families


def parsed(text: bytes) -> list[object]:
    """Families as a reader understands them; numbers as text, so that NaN equals itself."""
    return [
        (
            family.name,
            family.type,
            family.documentation,
            [(s.name, s.labels, repr(float(s.value))) for s in family.samples],
        )
        for family in text_string_to_metric_families(text.decode())
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(LABELS, LABELS, VALUES), max_size=5), st.sampled_from(["x", "a\\b\nc", "ü"]))
def test_says_what_prometheus_client_says(rows: list[tuple[str, str, float]], about: str) -> None:
    counter = CounterMetricFamily("flowfast_x_total", about, labels=("one", "two"))
    gauge = GaugeMetricFamily("flowfast_y", about, labels=("one", "two"))
    for one, two, value in rows:
        counter.add_metric((one, two), value)
        gauge.add_metric((one, two), value)
    plain = GaugeMetricFamily("flowfast_z", about, 1.5)
    assert parsed(render([counter, gauge, plain])) == parsed(generate_latest(One(counter, gauge, plain)))


def test_whole_numbers_are_written_whole() -> None:
    assert render([GaugeMetricFamily("a", "b", 2**60)]) == f"# HELP a b\n# TYPE a gauge\na {2**60}\n".encode()


def test_a_name_that_is_no_unicode_costs_a_character_and_not_the_page() -> None:
    family = GaugeMetricFamily("a", "b", labels=("device",))
    family.add_metric(("eth\udcff",), 1)
    assert b'a{device="eth?"} 1\n' in render([family])
