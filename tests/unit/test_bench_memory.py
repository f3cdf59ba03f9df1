"""Memory of a controller whose SAs are all busy: what it holds for each SA, and nothing of the round before."""

from flowfast.bench_memory import held

TUNNELS, SAS = 1000, 20


def test_a_controller_holds_one_generation_of_sas() -> None:
    """1.3 KB an SA, tunnels and all; 3.6 while the round before, the exporter and others held the last ones."""
    found = held(TUNNELS, SAS)
    assert found.start < found.end <= found.peak
    assert (found.peak - found.start) / (TUNNELS * SAS) < 1700


def test_ten_thousand_tunnels_with_a_hundred_thousand_sas_are_held_in_a_quarter_of_a_gigabyte() -> None:
    """226 MB, of which 56 are Python and its libraries."""
    assert held(10_000, 10).peak < 250_000_000
