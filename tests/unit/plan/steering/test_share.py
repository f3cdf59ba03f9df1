"""Sharing out: evenly, and with as few changes as that takes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.plan.steering.share import share_out

TARGETS = st.lists(st.integers(0, 70), min_size=1, max_size=64, unique=True)
SLOTS = st.lists(st.none() | st.integers(0, 70), max_size=128)


@given(SLOTS, TARGETS)
def test_no_target_has_two_more_than_another(slots: list[int | None], targets: list[int]) -> None:
    got = Counter(share_out(slots, targets))
    assert set(got) <= set(targets)
    counts = [got[target] for target in targets]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == len(slots)


@given(SLOTS, TARGETS)
def test_as_few_slots_change_as_an_even_share_takes(slots: list[int | None], targets: list[int]) -> None:
    kept = sum(now == was for was, now in zip(slots, share_out(slots, targets), strict=True))
    had = sorted((Counter(slot for slot in slots if slot in targets)[target] for target in targets), reverse=True)
    least, extra = divmod(len(slots), len(targets))
    most = sum(min(count, least + (place < extra)) for place, count in enumerate(had))
    assert kept == most


@given(SLOTS, TARGETS)
def test_what_is_shared_out_stays(slots: list[int | None], targets: list[int]) -> None:
    once = share_out(slots, targets)
    assert share_out(once, targets) == once


def test_one_cpu_that_goes_moves_only_its_own() -> None:
    before = share_out([None] * 128, range(4))
    after = share_out(before, [0, 1, 3])
    moved = [was for was, now in zip(before, after, strict=True) if was != now]
    assert set(moved) == {2}


def test_nothing_to_share_out_to_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to share out to"):
        share_out([1], [])
