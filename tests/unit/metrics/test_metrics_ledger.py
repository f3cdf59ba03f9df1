"""The ledger adds up SA generations: nothing lost, nothing twice, never backwards."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flowfast.metrics.keep import SPARE
from flowfast.metrics.ledger import Ledger, inner_bytes
from flowfast.model.sa import SA, Direction, Mark, Mode, Offload, Replay
from flowfast.model.snapshot import Traffic
from flowfast.model.tunnel import TunnelKey
from tests.unit.metrics.world import PEER, US, sa, tunnel
from tests.unit.pace import growth

OUT, IN = ("t", Direction.OUT), ("t", Direction.IN)


def test_first_dump_is_where_totals_start() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5)], [sa(2, 700, 7, src=PEER, dst=US)])])
    assert ledger.totals() == {OUT: Traffic(500, 5), IN: Traffic(700, 7)}


def test_rekey_adds_the_last_values_of_the_old_sa() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5)])])
    ledger.update([tunnel("t", [sa(1, 800, 8), sa(2, 100, 1)])])
    ledger.deleted(sa(1, 900, 9))
    ledger.update([tunnel("t", [sa(2, 300, 3)])])
    assert ledger.totals()[OUT] == Traffic(1200, 12)


def test_deletion_reported_twice_counts_once() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5)])])
    for _ in range(2):
        ledger.deleted(sa(1, 900, 9))
    ledger.update([tunnel("t")])
    ledger.deleted(sa(1, 900, 9))
    assert ledger.totals()[OUT] == Traffic(900, 9)


def test_deletion_that_comes_after_the_dump_without_the_sa_still_counts() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5)])])
    ledger.update([tunnel("t")])
    ledger.deleted(sa(1, 900, 9))
    assert ledger.totals()[OUT] == Traffic(900, 9)


def test_dump_older_than_the_deletion_does_not_count_the_sa_again() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5)])])
    ledger.deleted(sa(1, 900, 9))
    ledger.update([tunnel("t", [sa(1, 700, 7)])])
    ledger.update([tunnel("t")])
    assert ledger.totals()[OUT] == Traffic(900, 9)


def test_sa_that_came_and_went_between_two_dumps_counts() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t")])
    ledger.deleted(sa(1, 300, 3))
    ledger.deleted(sa(2, 40, 1, src=PEER, dst=US))
    assert ledger.totals() == {OUT: Traffic(300, 3), IN: Traffic(40, 1)}


@pytest.mark.parametrize("stranger", [sa(1, 9, 9, reqid=7), sa(1, 9, 9, if_id=7), sa(1, 9, 9, dst="192.0.2.9")])
def test_deletion_of_a_strangers_sa_counts_nothing(stranger: SA) -> None:
    ledger = Ledger()
    ledger.deleted(sa(5, 100, 1))  # before the first dump nobody is known
    ledger.update([tunnel("t", [sa(2, 300, 3)])])
    ledger.deleted(stranger)
    assert ledger.totals()[OUT] == Traffic(300, 3)


def test_counter_that_went_down_counts_from_nothing() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5)])])
    ledger.update([tunnel("t", [sa(1, 200, 2, added=2000)])])
    assert ledger.totals()[OUT] == Traffic(700, 7)


def test_spi_used_again_after_its_deletion_counts_from_nothing() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5)])])
    ledger.deleted(sa(1, 500, 5))
    ledger.update([tunnel("t", [sa(1, 600, 6, added=2000)])])
    ledger.deleted(sa(1, 500, 5))  # of the old one, late: its end is known
    ledger.deleted(sa(1, 650, 7, added=2000))
    assert ledger.totals()[OUT] == Traffic(1150, 12)


def test_end_of_an_sa_that_took_the_place_of_another_between_two_dumps_counts_whole() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5)])])
    ledger.deleted(sa(1, 650, 7, added=2000))
    assert ledger.totals()[OUT] == Traffic(1150, 12)


def test_sa_whose_tunnel_was_out_of_sight_for_long_is_not_counted_again() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.update([tunnel("t", [sa(1, 500, 5)])])
        for _ in range(10):  # its policies were gone
            ledger.update([])
    ledger.update([tunnel("t", [sa(1, 600, 6)])])
    assert ledger.totals()[OUT] == Traffic(600, 6)


def test_places_of_sas_that_are_long_gone_are_forgotten() -> None:
    """A router whose peers come from anywhere meets new addresses for years."""
    ledger, last = Ledger(), None
    for number in range(3 * SPARE):
        peer = f"10.{number >> 8}.{number & 255}.1"
        last = sa(1, 500, 5, dst=peer)
        ledger.update([tunnel(peer, [last], key=TunnelKey(1, 0, US, peer))])
    assert len(ledger._places) <= 2 * SPARE + 2
    assert len(ledger._numbered) <= 4 * SPARE
    assert last is not None
    ledger.deleted(last._replace(counters=last.counters._replace(bytes=600)))
    assert ledger.totals()[last.dst, Direction.OUT].bytes == 600


def test_what_is_written_down_is_of_one_moment() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5), sa(2, 70, 7)])])
    state = ledger.state()
    ledger.deleted(sa(1, 900, 9))
    ledger.update([tunnel("t", [sa(2, 300, 30), sa(3, 1, 1)])])
    restored = Ledger()
    restored.restore(state)
    assert restored.totals()[OUT] == Traffic(570, 12)
    restored.update([tunnel("t", [sa(1, 600, 6), sa(2, 80, 8)])])
    assert restored.totals()[OUT] == Traffic(680, 14)


def test_deletion_counts_also_when_the_tunnel_went_first() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5)])])
    ledger.update([])
    ledger.deleted(sa(1, 900, 9))
    assert ledger.totals()[OUT] == Traffic(900, 9)


def test_sa_that_an_interrupted_dump_lists_twice_counts_once() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5), sa(1, 600, 6)])])
    assert ledger.totals()[OUT] == Traffic(600, 6)


def test_renamed_tunnel_goes_on_under_its_new_name() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5)])])
    ledger.update([tunnel("u", [sa(1, 500, 5)])])
    ledger.deleted(sa(1, 600, 6))
    assert ledger.totals()[OUT] == Traffic(500, 5)
    assert ledger.totals()["u", Direction.OUT] == Traffic(100, 1)


def test_same_spi_in_another_namespace_or_under_another_mark_is_another_sa() -> None:
    ledger = Ledger()
    there = TunnelKey(1, 0, US, PEER, "underlay")
    tunnels = [
        tunnel("t", [sa(1, 500, 5), sa(1, 70, 7, mark=Mark(1, 0xFF))]),
        tunnel("u", [sa(1, 40, 4)], key=there),
    ]
    ledger.update(tunnels)
    ledger.update(tunnels)
    assert ledger.totals()[OUT] == Traffic(570, 12)
    ledger.deleted(sa(1, 50, 5), "underlay")
    assert ledger.totals()["u", Direction.OUT] == Traffic(50, 5)
    assert ledger.totals()[OUT] == Traffic(570, 12)


@pytest.mark.parametrize(
    ("mode", "counted", "ends"),
    [
        (Mode.TUNNEL, 1280, (US, PEER)),
        (Mode.TUNNEL, 1280, ("2001:db8::1", "2001:db8::2")),
        (Mode.TRANSPORT, 1080, (US, PEER)),
        (Mode.TRANSPORT, 880, ("2001:db8::1", "2001:db8::2")),
        (Mode.BEET, 1080, (US, PEER)),
    ],
)
@pytest.mark.parametrize("way", [Direction.OUT, Direction.IN])
def test_inner_bytes_of_ten_pings_of_128_bytes(mode: Mode, counted: int, ends: tuple[str, str], way: Direction) -> None:
    """What the guest's SAs counted, in and out (kernels 6.1.0-50 and 7.2.12)."""
    one = sa(1, counted, 10, mode=mode, src=ends[0], dst=ends[1])
    ledger = Ledger()
    ledger.update([tunnel("t", *((), [one]) if way is Direction.IN else ([one],))])
    assert ledger.totals()["t", way] == Traffic(1280, 10)


def test_ipcomp_in_front_of_esp_does_not_count_the_packets_twice() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5), sa(2, 500, 5, proto=108)])])
    ledger.deleted(sa(3, 500, 5, proto=108))
    assert ledger.totals()[OUT] == Traffic(500, 5)


def gso(spi: int, octets: int, packets: int, numbers: int, **more: Any) -> SA:
    """An outbound SA whose packets ESP segmented."""
    return sa(spi, octets, packets, replay=Replay(numbers, 0, 128, True), **more)


def test_packets_that_esp_segments_are_told_by_sequence_numbers() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [gso(1, 64_000, 1, 45)])])
    ledger.update([tunnel("t", [gso(1, 128_000, 2, 90)])])
    ledger.deleted(gso(1, 192_000, 3, 135))
    ledger.update([tunnel("t", [gso(2, 64_000, 1, 45)])])
    assert ledger.totals()[OUT] == Traffic(256_000, 180)


@pytest.mark.parametrize(
    ("first", "then", "packets"),
    [
        (gso(1, 0, 0, 2**20), gso(1, 64_000, 1, 2**20 + 45), 45),  # numbers that go on where another gateway's stopped
        (gso(1, 500, 5, 0), gso(1, 900, 9, 0), 9),  # numbered by the NIC
        (gso(1, 500, 5, 2**32 - 1), gso(1, 900, 9, 3), 9),  # wrapped (XFRM_SA_XFLAG_OSEQ_MAY_WRAP)
    ],
)
def test_sequence_numbers_that_cannot_be_packets_are_not_taken_for_them(first: SA, then: SA, packets: int) -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [first])])
    ledger.update([tunnel("t", [then])])
    assert ledger.totals()[OUT].packets == packets


def test_expiry_that_does_not_tell_the_sequence_number_and_a_deletion_after_it_count_once() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [gso(1, 64_000, 1, 45)])])
    ledger.deleted(gso(1, 128_000, 2, 0))
    ledger.deleted(gso(1, 128_000, 2, 90))
    assert ledger.totals()[OUT] == Traffic(128_000, 46)


def test_ends_that_nobody_told_are_counted() -> None:
    ledger = Ledger()
    ledger.update([tunnel("t", [sa(1, 500, 5), sa(2, 500, 5), sa(3, 500, 5)])])
    ledger.update([tunnel("t", [sa(3, 500, 5)])])
    assert ledger.ends_missed == 0  # their events may be on the way
    ledger.deleted(sa(2, 600, 6))
    ledger.update([tunnel("t", [sa(3, 500, 5)])])
    assert ledger.ends_missed == 1
    ledger.update([])  # its policies went, it may still live
    ledger.update([])
    assert ledger.ends_missed == 1


def test_an_end_that_came_while_the_dump_was_read_is_no_missed_one() -> None:
    """1000 rekeys in the guest found it: the dump still had the SA, which came alive again and went untold."""
    ledger = Ledger()
    dumped = [tunnel("t", [sa(1, 500, 5), sa(2, 100, 1)])]
    ledger.update(dumped)
    ledger.deleted(sa(1, 600, 6))
    ledger.update(dumped)
    for _ in range(3):
        ledger.update([tunnel("t", [sa(2, 100, 1)])])
    assert ledger.ends_missed == 0
    assert ledger.totals()[OUT] == Traffic(700, 7)
    ledger.deleted(sa(2, 100, 1))
    ledger.update([tunnel("t", [sa(2, 50, 1, added=1001)])])  # a new one under the same SPI
    assert ledger.totals()[OUT] == Traffic(750, 8)


def test_memory_is_bounded_over_many_rekeys_and_roadwarriors() -> None:
    ledger = Ledger()
    for number in range(5 * SPARE):
        ledger.update([tunnel(f"t{number}", [sa(number, 100, 1)])])
        ledger.deleted(sa(number, 100, 1))
    assert len(ledger._gone) <= SPARE + 1
    assert len(ledger.totals()) <= SPARE + 2
    assert ledger.totals()[f"t{number}", Direction.OUT] == Traffic(100, 1)


def test_thousands_of_sas_take_no_longer_each_than_hundreds() -> None:
    def work(tunnels: int) -> Callable[[], object]:
        ledger = Ledger()
        ledger.update(
            [tunnel(f"t{n}", [sa(n * 16 + k, 1000, 10, dst=f"10.{n >> 8}.{n & 255}.1") for k in range(10)])
             for n in range(tunnels)])  # fmt: skip
        grown = [tunnel(f"t{n}", [sa(n * 16 + k, 2000, 20, dst=f"10.{n >> 8}.{n & 255}.1") for k in range(10)])
                 for n in range(tunnels)]  # fmt: skip

        def update() -> None:
            ledger.update(grown)
            assert ledger.totals()["t0", Direction.OUT] == Traffic(20_000, 200)

        return update

    assert growth(work, 200, 2_000) < 4


@dataclass
class Live:
    """An SA as the kernel holds it."""

    spi: int
    added: int
    octets: int = 0
    packets: int = 0
    numbers: int = 0

    def sa(self) -> SA:
        return gso(self.spi, self.octets, self.packets, self.numbers, added=self.added)


@dataclass
class Kernel:
    """Counts the truth; tells of it in dumps and events, which a test may delay, repeat and lose."""

    now: int = 1000
    live: dict[int, Live] = field(default_factory=dict)
    carried: Traffic = field(default_factory=lambda: Traffic(0, 0))

    def dump(self) -> list[SA]:
        return [each.sa() for each in self.live.values()]


class Rekeys(RuleBasedStateMachine):
    """Traffic, rekeys and deletions in any order; dumps that are late, events that are late, twice, or lost."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = Kernel()
        self.ledger = Ledger()
        self.events: list[SA] = []
        self.taken: list[SA] | None = None
        self.last = Traffic(0, 0)
        self.faithful = True
        self.hidden = False
        self.ledger.update([tunnel("t")])

    @rule(spi=st.integers(1, 6))
    def add(self, spi: int) -> None:
        self.kernel.now += 1
        if self.taken is not None or any(event.spi == spi for event in self.events):
            self.faithful = False  # an SPI used again while its past is still on the way: that past may be lost
        self.kernel.live.setdefault(spi, Live(spi, self.kernel.now))

    @rule(which=st.integers(0, 5), packets=st.integers(1, 1000), size=st.integers(28, 1500), segments=st.integers(1, 9))
    def carry(self, which: int, packets: int, size: int, segments: int) -> None:
        if live := list(self.kernel.live.values()):
            one = live[which % len(live)]
            one.octets += packets * size
            one.packets += packets
            one.numbers += packets * segments
            done = self.kernel.carried
            self.kernel.carried = Traffic(done.bytes + packets * size, done.packets + packets * segments)

    @rule(which=st.integers(0, 5))
    def delete(self, which: int) -> None:
        if live := list(self.kernel.live):
            self.events.append(self.kernel.live.pop(live[which % len(live)]).sa())

    @rule()
    def look(self) -> None:
        """A dump begins: from now on it may be old when it is read."""
        if self.taken is None:
            self.taken = self.kernel.dump()

    @rule()
    def update(self) -> None:
        self.ledger.update([tunnel("t", self.taken if self.taken is not None else self.kernel.dump())])
        self.taken = None
        self.hidden = False

    @rule()
    def deliver(self) -> None:
        if self.events:
            self._deleted(self.events.pop(0))

    @rule()
    def deliver_twice(self) -> None:
        if self.events:
            event = self.events.pop(0)
            self._deleted(event)
            self._deleted(event)

    @rule()
    def lose(self) -> None:
        if self.events:
            self.events.pop(0)
            self.faithful = False

    @rule()
    def out_of_sight(self) -> None:
        self.ledger.update([])
        self.hidden = True

    def _deleted(self, event: SA) -> None:
        self.ledger.deleted(event)
        if self.hidden:
            self.faithful = False  # whose SA it was, nobody can tell now

    @invariant()
    def never_backwards_and_never_more_than_was_carried(self) -> None:
        total = self.ledger.totals()[OUT]
        assert total.bytes >= self.last.bytes
        assert total.packets >= self.last.packets
        assert total.bytes <= self.kernel.carried.bytes
        assert total.packets <= self.kernel.carried.packets
        self.last = total

    def teardown(self) -> None:
        """Once all is delivered, in whatever order it came, the ledger knows everything."""
        for event in self.events:
            self._deleted(event)
        self.ledger.update([tunnel("t", self.kernel.dump())])
        if self.faithful:
            assert self.ledger.totals()[OUT] == self.kernel.carried


Rekeys.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestRekeys = Rekeys.TestCase


def test_what_a_nic_counts_has_esp_around_it() -> None:
    """Pings of 84 bytes, as espsim counts them: 120 bytes each."""
    assert inner_bytes(sa(1, 360, 3, offload=Offload(2, 4)), 360, 3) == 3 * 84
    assert inner_bytes(sa(1, 360, 3, offload=Offload(2, 0)), 360, 3) == 360
    assert inner_bytes(sa(1, 10, 3, offload=Offload(2, 4)), 10, 3) == 0
