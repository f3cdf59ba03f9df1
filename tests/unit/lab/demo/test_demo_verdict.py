"""When the demo fails, and what it says then: each reason by itself."""

from dataclasses import replace
from typing import Any

import pytest

from flowfast.lab.demo.result import EspWork, Stream, Traffic, Wire
from flowfast.lab.demo.verdict import problems
from tests.unit.lab.demo.sample import part, result

GOOD = Wire(100, 90, 0, 0)


def test_nothing_to_say_if_all_is_well() -> None:
    assert problems(result()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"fast_wire": Wire(100, 90, 2, 0, ("10.1.0.2 > 10.2.0.2, protocol 17, 142 bytes",), 2)},
            "2 packets of the tunnels' networks crossed the WAN unencrypted while flowfast ran, the first one "
            "10.1.0.2 > 10.2.0.2, protocol 17, 142 bytes",
        ),
        (
            {"full_wire": Wire(100, 90, 1, 0, ("fd00:1::2 > fd00:2::2, protocol 6, 80 bytes",), 1)},
            "1 packets of the tunnels' networks crossed the WAN unencrypted before flowfast ran, the first one "
            "fd00:1::2 > fd00:2::2, protocol 6, 80 bytes",
        ),
        ({"fast_wire": replace(GOOD, esp=0)}, "no ESP packet was seen on the WAN while flowfast ran"),
        ({"fast_wire": replace(GOOD, packets=0)}, "no ESP packet was seen on the WAN while flowfast ran"),
        (
            {"fast_wire": replace(GOOD, missed=3)},
            "3 unencrypted packets while flowfast ran were lost to the capture, and so not looked at",
        ),
        (
            {"esp": (EspWork("berlin", "tx", 1, True, None, 100, 100),)},
            "berlin, LAN to tunnel: its SA is not in the NIC",
        ),
        (
            {"esp": (EspWork("berlin", "rx", 1, False, "wan0", 100, 0),)},
            "berlin, tunnel to LAN: its SA is in wan0, and nobody asked for that",
        ),
        (
            {"esp": (EspWork("berlin", "rx", 1, True, "wan0", 100, 7),)},
            "berlin, tunnel to LAN: the CPU did ESP, up to sequence number 7, in place of wan0",
        ),
        (
            {"streams": (Stream("berlin", 6, 50, 1, 0, 2),)},
            "berlin, IPv6: of 50 packets sent while flowfast started, 1 were lost and 2 corrupted",
        ),
        (
            {"streams": (Stream("berlin", 6, 50, 50, 0, 0),)},
            "berlin, IPv6: of 50 packets sent while flowfast started, 50 were lost and 0 corrupted",
        ),
    ],
)
def test_each_reason(changes: dict[str, Any], said: str) -> None:
    assert problems(result(part(**changes))) == [f"policy-based: {said}"]


def test_unencrypted_packets_that_are_nobodys_are_no_reason() -> None:
    assert problems(result(part(fast_wire=replace(GOOD, unencrypted=5)))) == []


def test_esp_done_where_it_should_is_no_reason() -> None:
    work = (EspWork("oslo", "tx", 1, True, "wan0", 100, 0), EspWork("rome", "tx", 2, False, None, 100, 100))
    assert problems(result(part(esp=work))) == []


def slowed(share: float) -> Any:
    """A part of which that share of the bytes from tunnel to LAN took the fast path."""
    whole = part()
    carried = whole.carried("berlin", "rx", "fast")
    windows = list(whole.windows)
    last = windows[-1]
    more = carried.bytes * (1 - share) - carried.forward_bytes
    windows[-1] = replace(last, rx=last.rx + Traffic(0, 0, round(more), 10))
    return replace(whole, windows=tuple(windows))


def test_under_95_percent_of_one_direction_is_a_reason() -> None:
    assert problems(result(slowed(0.951))) == []
    assert problems(result(slowed(0.938))) == [
        "policy-based: berlin, tunnel to LAN: only 93.8% of the bytes took the fast path (95% wanted)"
    ]


def test_a_tunnel_that_carried_nothing_is_a_reason() -> None:
    windows = tuple(replace(each, rx=Traffic()) for each in part().windows)
    assert problems(result(part(windows=windows))) == ["policy-based: berlin, tunnel to LAN: not a byte was carried"]


def test_a_part_that_is_missing_is_a_reason() -> None:
    assert problems(result(failures=("xfrm interface: the guest hung",))) == ["xfrm interface: the guest hung"]
    assert problems(replace(result(), parts=())) == ["nothing was measured"]
