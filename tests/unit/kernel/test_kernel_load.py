"""What /proc says of CPUs and drops: parsed as the kernel writes it, and what was spent between two readings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.kernel.load import (
    CpuTime,
    Load,
    RealLoad,
    parse_dev,
    parse_softirqs,
    parse_softnet,
    parse_stat,
    parse_xfrm_stat,
    spent,
)

STAT = """\
cpu  100 20 300 4000 50 6 700 8 0 0
cpu0 100 20 300 4000 50 6 700 8 0 0
cpu3 0 0 0 100 0 0 0 0 0 0
intr 12345 0 9
ctxt 99
softirq 5 0 1 2 3
"""
SOFTIRQS = """\
                    CPU0       CPU1
          HI:          1          0
      NET_TX:         15         16
      NET_RX:       1000        234
"""
SOFTNET = "0000abcd 0000000a 00000002 00000000\n00000001 00000001 00000000 00000000\n"
XFRM = "XfrmInError                \t0\nXfrmInNoStates             \t12\nXfrmOutStateModeError      \t3\n"
DEV = """\
Inter-|   Receive                                          |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:     0      0    0    0    0     0         0         0      0      0    0    0    0     0       0          0
  wan0: 12345    789    1    2    3     4         0         0  98765    432    5    6    7     0       0          0
"""


def test_what_the_kernel_writes_is_read() -> None:
    assert parse_stat(STAT, 100) == {0: CpuTime(40.5, 4.2, 0.08), 3: CpuTime(1.0, 0.0, 0.0)}
    assert parse_softirqs(SOFTIRQS) == 1234
    assert parse_softnet(SOFTNET) == 11
    assert parse_xfrm_stat(XFRM) == {"XfrmInError": 0, "XfrmInNoStates": 12, "XfrmOutStateModeError": 3}
    assert parse_dev(DEV, ["wan0", "lan0"]) == (789, {"wan0 rx": 5, "wan0 tx": 6})


def test_what_is_not_there_is_empty() -> None:
    assert parse_softirqs("") == parse_softnet("") == 0
    assert parse_xfrm_stat("") == {}
    assert parse_dev("", ["wan0"]) == (0, {})


def test_this_machine_is_read() -> None:
    one = RealLoad(["lo"]).read()
    two = RealLoad(["lo"]).read()
    assert one.cpus.keys() == two.cpus.keys()
    assert one.drops["lo rx"] <= two.drops["lo rx"]
    assert spent(one, two).softirq >= 0


def test_softirq_time_is_what_is_neither_idle_nor_a_programs() -> None:
    before = Load(
        10.0, {0: CpuTime(5.0, 2.0, 0.5), 1: CpuTime(9.0, 1.0, 0.0)}, napi=1.0, polls=7, drops={"x": 3}, packets=9
    )
    now = Load(
        20.0,
        {0: CpuTime(6.0, 4.0, 1.5), 1: CpuTime(18.0, 1.5, 0.0)},
        napi=1.4,
        polls=9,
        drops={"x": 5, "y": 1},
        packets=12,
    )
    found = spent(before, now)
    assert found.seconds == 10
    assert found.softirq == pytest.approx((10 - 1 - 2 - 1) + (10 - 9 - 0.5) + 0.4)
    assert found.process == pytest.approx(2.5 - 0.4)
    assert found.busiest == pytest.approx(0.9)
    assert found.polls == 2
    assert found.drops == {"x": 2, "y": 1}
    assert found.packets == 3


def test_a_cpu_that_came_or_went_counts_nothing() -> None:
    before = Load(0.0, {0: CpuTime(0, 0, 0), 1: CpuTime(0, 0, 0)})
    now = Load(1.0, {0: CpuTime(0.75, 0, 0), 2: CpuTime(0, 0, 0)})
    assert spent(before, now).softirq == pytest.approx(0.25)


@given(st.floats(0, 1), st.floats(0, 2), st.floats(0.1, 2))
def test_nothing_is_below_nothing(idle: float, process: float, seconds: float) -> None:
    found = spent(Load(0.0, {0: CpuTime(0, 0, 0)}), Load(seconds, {0: CpuTime(idle, process, 0)}))
    assert found.softirq >= 0
    assert 0 <= found.busiest <= 1
