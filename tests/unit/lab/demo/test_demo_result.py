"""The result: through JSON and back, and what is worked out from it."""

import json
from dataclasses import replace

import pytest

from flowfast.lab.demo.result import Traffic, factor, geometric_mean, pairs, part_of, result_of, sa_rate, to_json
from tests.unit.lab.demo.sample import ACKNOWLEDGEMENTS, part, result


def test_comes_back_from_json_as_it_was() -> None:
    whole = result()
    assert "\n" not in to_json(whole)
    assert result_of(json.loads(to_json(whole))) == whole
    assert part_of(json.loads(to_json(part()))) == part()


def test_what_is_no_result_is_refused() -> None:
    with pytest.raises(ValueError, match="windows"):
        part_of({"name": "policy"})


@pytest.mark.parametrize(
    ("carried", "share"),
    [
        (Traffic(1000, 1, 0, 0), 1.0),
        (Traffic(1000, 1, 250, 1), 0.75),
        (Traffic(1000, 1, 1100, 1), 0.0),
        (Traffic(), None),
    ],
)
def test_the_fast_share_is_what_the_forward_chain_did_not_see(carried: Traffic, share: float | None) -> None:
    assert carried.fast_share == share


def test_what_a_tunnel_carried_includes_acknowledgements() -> None:
    carried = part().carried("berlin", "tx", "fast")
    # Two loads its own way, and the acknowledgements of two the other way.
    assert carried.bytes == 11_000_000 + 2 * ACKNOWLEDGEMENTS.bytes
    assert carried.packets == 11_000 + 2 * ACKNOWLEDGEMENTS.packets
    assert carried.forward_bytes == 1000
    assert part().carried("paris", "tx", "fast") == Traffic()


def test_pairs_are_the_same_load_on_both_paths() -> None:
    found = list(pairs(part()))
    assert len(found) == 4
    for full, fast in found:
        assert (full.route, fast.route) == ("full", "fast")
        assert (full.lane, full.load) == (fast.lane, fast.load)


def test_a_load_on_one_path_only_has_no_pair() -> None:
    whole = part()
    alone = replace(whole.windows[-1], load="TCP, controllers killed")
    assert list(pairs(replace(whole, windows=(*whole.windows, alone)))) == list(pairs(whole))


def test_the_rate_of_an_sa_weighs_loads_by_their_time() -> None:
    whole = part()
    slow = tuple(
        replace(each, bits_per_second=1e7) if (each.load, each.route) == ("UDP", "full") else each
        for each in whole.windows
    )
    mixed = sa_rate(replace(whole, windows=slow), whole.sas[0], "full")
    # 10 MB at 100 Mbit/s take 0.8 s, 1 MB at 10 Mbit/s another 0.8 s.
    assert mixed == pytest.approx(11_000_000 * 8 / 1.6)
    assert sa_rate(whole, whole.sas[0], "fast") == pytest.approx(2e8)


def test_one_unknown_rate_makes_the_sas_unknown() -> None:
    whole = part()
    unknown = (replace(whole.windows[0], bits_per_second=None), *whole.windows[1:])
    assert sa_rate(replace(whole, windows=unknown), whole.sas[0], "full") is None


def test_factors_of_what_is_unknown_are_unknown() -> None:
    assert factor(2.0, 5.0) == 2.5
    assert factor(None, 5.0) is factor(5.0, None) is factor(0.0, 5.0) is None
    assert geometric_mean([2.0, None, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([None]) is None
