"""What comes out of the guest, in pieces of any size, between other people's lines."""

import json
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from flowfast.lab.demo.events import Failed, Progress, Reader
from flowfast.lab.demo.result import to_json
from tests.unit.lab.demo.sample import part

PART = part(samples=part().samples[:3])
LINES = [
    Progress(0.5, "strongSwan brings up berlin").line(),
    "a line that some program printed",
    '{"neither": 1}',
    f'{{"part": {to_json(PART)}}}',
    Failed("gw1: no").line(),
]
EVENTS = [Progress(0.5, "strongSwan brings up berlin"), PART, Failed("gw1: no")]
OUTPUT = "".join(f"{line}\n" for line in LINES).encode()


@settings(deadline=None)
@given(st.lists(st.integers(0, len(OUTPUT)), max_size=8))
def test_events_are_the_same_however_the_output_is_cut(cuts: list[int]) -> None:
    reader = Reader()
    places = [0, *sorted(cuts), len(OUTPUT)]
    found = [event for start, end in pairwise(places) for event in reader.feed(OUTPUT[start:end])]
    assert found == EVENTS
    assert reader.noise == [LINES[1], LINES[2]]


@settings(deadline=None)
@given(st.binary())
def test_no_output_is_an_error(data: bytes) -> None:
    reader = Reader()
    assert [event for event in reader.feed(data + b"\n") if not isinstance(event, Progress | Failed)] == []


def test_a_line_is_one_line() -> None:
    line = Failed("two\nlines").line()
    assert "\n" not in line
    assert json.loads(line) == {"failed": "two\nlines"}
