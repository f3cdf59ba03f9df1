"""The books on traffic: what arrived of what was sent, and what iperf3 and pktgen say of theirs."""

import json
import random
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.lab.iperf import parse_iperf3
from flowfast.lab.netns import LabError
from flowfast.lab.pktgen import Load, parse_result
from flowfast.lab.traffic import (
    QUIET,
    UdpResult,
    _Expected,
    _Payload,
    _receive,
    account,
    parse_checksum_errors,
)


def test_packets_are_counted_once_in_order_and_whole() -> None:
    result = account(6, [0, 2, 1, 2, None, 5, 9], 1.0)
    assert result == UdpResult(
        sent=6, received=4, lost=2, reordered=1, duplicate=1, corrupt=2, seconds=1.0, missing=(3, 4)
    )
    assert not result.intact
    assert account(3, [0, 1, 2], 1.0).intact


@given(st.integers(0, 200), st.data())
def test_the_books_balance(sent: int, data: st.DataObject) -> None:
    arrived = data.draw(st.lists(st.one_of(st.none(), st.integers(0, sent + 3)), max_size=300))
    result = account(sent, arrived, 0)
    assert result.received + result.lost == sent
    assert result.received + result.duplicate + result.corrupt == len(arrived)
    assert result.received == len({number for number in arrived if number is not None and number < sent})


@given(st.integers(4, 1400), st.integers(0, 2**32 - 1), st.data())
def test_a_packet_with_one_other_byte_is_corrupt(size: int, number: int, data: st.DataObject) -> None:
    payload = _Payload(size)
    packet = bytearray(payload.make(number))
    assert len(packet) == size
    assert payload.check(bytes(packet)) == number
    position = data.draw(st.integers(4, size)) if size > 4 else size
    if position < size:
        packet[position] ^= data.draw(st.integers(1, 255))
        assert payload.check(bytes(packet)) is None
    assert payload.check(bytes(packet[:-1])) is None


def test_a_packet_with_the_tail_of_its_neighbour_is_corrupt() -> None:
    payload = _Payload(64)
    one, other = payload.make(10), payload.make(11)
    assert payload.check(one[:32] + other[32:]) is None


def test_a_payload_without_room_for_its_number_is_refused() -> None:
    with pytest.raises(LabError, match="no room for its sequence number"):
        _Payload(3)


class Stalled:
    """A socket of a guest that loses seconds between two looks: what time it is says nothing."""

    def __init__(self, *arrivals: bytes | None) -> None:
        self.arrivals = list(arrivals)

    def settimeout(self, seconds: float) -> None:
        pass

    def recv(self, _size: int) -> bytes:
        arrived = self.arrivals.pop(0) if self.arrivals else None
        if arrived is None:
            raise TimeoutError
        return arrived


@pytest.mark.parametrize(("looks", "there"), [(QUIET - 1, 2), (QUIET, 1)])
def test_what_comes_late_is_waited_for_by_looks_and_not_by_the_clock(
    looks: int, there: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(0, 60)
    monkeypatch.setattr("flowfast.lab.traffic.time.monotonic", lambda: next(clock))
    payload, expected = _Payload(64), _Expected(packets=2)
    expected.done.set()
    into: list[int | None] = []
    receiver: Any = Stalled(payload.make(0), *([None] * looks), payload.make(1))
    _receive(receiver, payload, into, expected)
    assert len(into) == there


def report(protocol: str, end: dict[str, object]) -> str:
    return json.dumps({"start": {"test_start": {"protocol": protocol}}, "end": end})


def test_iperf3_tcp_counts_what_was_received() -> None:
    result = parse_iperf3(
        report(
            "TCP",
            {
                "sum_sent": {"bytes": 120, "seconds": 1.0, "bits_per_second": 960.0, "retransmits": 3},
                "sum_received": {"bytes": 100, "seconds": 1.25, "bits_per_second": 640.0},
            },
        )
    )
    assert (result.bytes, result.bits_per_second, result.retransmits, result.packets) == (100, 640.0, 3, None)


def test_iperf3_udp_counts_packets() -> None:
    end = {"bytes": 5000, "seconds": 1.0, "bits_per_second": 40000.0, "packets": 5, "lost_packets": 1, "jitter_ms": 0.5}
    result = parse_iperf3(report("UDP", {"sum": end}))
    assert (result.packets, result.lost_packets, result.jitter_ms, result.retransmits) == (5, 1, 0.5, None)


def test_iperf3s_own_error_is_passed_on() -> None:
    with pytest.raises(LabError, match="iperf3: unable to connect"):
        parse_iperf3(json.dumps({"error": "unable to connect to server"}))
    with pytest.raises(LabError, match="iperf3 printed no JSON"):
        parse_iperf3("iperf3: segmentation fault")


RESULT = """\
Params: count 5000  min_pkt_size: 60  max_pkt_size: 60
Current:
     pkts-sofar: 5000  errors: 2
     started: 1us  stopped: 2us idle: 3us
Result: OK: 2368824(c2360000+d8824) usec, 5000 (60byte,0frags)
  2110pps 1Mb/sec (1012800bps) errors: 2
"""


def test_pktgens_result() -> None:
    result = parse_result(RESULT)
    assert (result.packets, result.errors, result.seconds) == (5000, 2, 2.368824)
    assert result.nanoseconds_per_packet == pytest.approx(473764.8)
    with pytest.raises(LabError, match="pktgen: Result: Idle"):
        parse_result("Result: Idle")


def test_pktgen_makes_flows_by_destination() -> None:
    options = Load("10.1.0.2", "10.2.0.2", "52:54:00:00:00:02", 100, flows=16, burst=4).options()
    assert {"dst_min 10.2.0.2", "dst_max 10.2.0.17", "flag FLOW_SEQ", "flows 16", "flowlen 4"} <= set(options)
    assert "dst6 fd00:2::2" in Load("fd00:1::2", "fd00:2::2", "52:54:00:00:00:02", 100).options()
    with pytest.raises(LabError, match="several flows of IPv4 only"):
        Load("fd00:1::2", "fd00:2::2", "52:54:00:00:00:02", 100, flows=2).options()


def test_checksum_errors_of_every_protocol() -> None:
    snmp = (
        "Ip: Forwarding DefaultTTL\nIp: 1 64\n"
        "Tcp: RtoAlgorithm InErrs InCsumErrors\nTcp: 1 0 4\n"
        "Udp: InDatagrams InCsumErrors MemErrors\nUdp: 9 5 0\n"
    )
    snmp6 = "Udp6InDatagrams                 \t3\nUdp6InCsumErrors                \t6\nIcmp6InCsumErrors\t0\n"
    assert parse_checksum_errors(snmp, snmp6) == {"Tcp": 4, "Udp": 5, "Udp6": 6, "Icmp6": 0}


def test_payloads_differ_by_size_and_repeat_by_seed() -> None:
    random.seed(0)  # other users of the module's generator change nothing
    assert _Payload(64).make(1) == _Payload(64).make(1)
    assert _Payload(64).make(1)[4:] != _Payload(65).make(1)[4:-1]
