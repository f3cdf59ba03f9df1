"""Readings of a gateway's counters: which are of one moment, and what is in them."""

from flowfast.kernel.xfrm.builders import make_sa
from flowfast.lab.demo.meter import Meter, Reading, esp_packets
from flowfast.model.sa import Counters, Replay


def reading(at: float, took: float = 0.001) -> Reading:
    return Reading(at, took, {1: Counters(100, 1, 0, None), 2: Counters(10, 1, 0, None)}, {})


def test_slow_readings_are_of_no_moment_and_left_out() -> None:
    meter = Meter("gw1")
    meter.readings = [reading(at, 0.15 if at == 0.06 else 0.001) for at in (0.0, 0.02, 0.04, 0.06, 0.21, 0.23)]
    found = meter.between(meter.readings[1], meter.readings[4])
    assert [each.at for each in found] == [0.02, 0.04, 0.21]


def test_the_ends_count_however_long_they_took() -> None:
    meter = Meter("gw1")
    meter.readings = [reading(0.0, 0.5), reading(0.6), reading(0.7, 0.5)]
    assert meter.between(meter.readings[0], meter.readings[2]) == meter.readings


def test_bytes_are_of_the_sas_asked_for() -> None:
    assert reading(0.0).bytes({1}) == 100
    assert reading(0.0).bytes({1, 2, 3}) == 110


def test_esp_packets_are_those_on_the_wire() -> None:
    """However many GRO had put together, and whatever was lost before."""
    out = make_sa()._replace(counters=Counters(9000, 1, 0, None), replay=Replay(6, 0, 128, True))
    inward = make_sa()._replace(counters=Counters(9000, 6, 0, None), replay=Replay(0, 6206, 128, True))
    now = Reading(0.0, 0.0, {}, {}, {1: esp_packets(out), 2: esp_packets(inward)})
    assert (now.esp_packets({1}), now.esp_packets({1, 2})) == (6, 12)
