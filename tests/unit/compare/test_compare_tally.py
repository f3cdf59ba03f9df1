"""What SAs carried between two looks: rekeys, deletions, GSO and hundreds of them."""

from dataclasses import replace
from itertools import pairwise

from flowfast.compare.result import Carried
from flowfast.compare.tally import MOST, Tally, by_tunnel
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.sa import SA, Direction
from flowfast.model.tunnel import Topology, Tunnel, TunnelKey

US, PEER = "192.0.2.1", "192.0.2.2"


def sa(spi: int, packets: int, *, size: int = 100, oseq: int = 0, born: int = 1, inbound: bool = False) -> SA:
    made = make_sa(PEER, US, spi, direction=Direction.IN) if inbound else make_sa(US, PEER, spi)
    counters = made.counters._replace(bytes=packets * size, packets=packets, add_time=born)
    return made._replace(counters=counters, replay=made.replay._replace(oseq=oseq))


def tunnel(*sas: SA, name: str = "berlin") -> list[Tunnel]:
    inbound = tuple(each for each in sas if each.src == PEER)
    key = TunnelKey(sas[0].reqid if sas else 1, 0, US, PEER)
    return [Tunnel(name, key, Topology.POLICY, (), inbound, tuple(each for each in sas if each.src == US))]


def test_growth_is_what_was_carried() -> None:
    tally = Tally(tunnel(sa(1, 10), sa(2, 5, inbound=True)))
    found = tally.until(tunnel(sa(1, 25), sa(2, 9, inbound=True)))
    assert found == (Carried("berlin", "out", 1, 1500, 15), Carried("berlin", "in", 2, 400, 4))
    assert by_tunnel(found) == {"berlin": 19}


def test_an_sa_that_came_counts_from_nothing_and_one_that_went_to_its_end() -> None:
    tally = Tally(tunnel(sa(1, 10)))
    tally.deleted(sa(1, 30))
    assert set(tally.until(tunnel(sa(7, 5, born=2)))) == {
        Carried("berlin", "out", 1, 2000, 20),
        Carried("berlin", "out", 7, 500, 5),
    }


def test_the_same_spi_again_is_another_sa() -> None:
    tally = Tally(tunnel(sa(1, 1000)))
    assert tally.until(tunnel(sa(1, 5, born=9))) == (Carried("berlin", "out", 1, 500, 5),)


def test_a_deletion_of_what_lives_or_of_a_stranger_counts_nothing() -> None:
    tally = Tally(tunnel(sa(1, 10)))
    tally.deleted(sa(1, 12))
    tally.deleted(replace_peer(sa(3, 99)))
    assert tally.until(tunnel(sa(1, 12))) == (Carried("berlin", "out", 1, 200, 2),)


def replace_peer(of: SA) -> SA:
    return of._replace(dst="198.51.100.9")


def test_packets_that_esp_segments_itself_are_told_by_their_numbers() -> None:
    tally = Tally(tunnel(sa(1, 10, oseq=400)))
    assert tally.until(tunnel(sa(1, 12, oseq=490)))[0].packets == 90


def test_idle_sas_are_left_out_and_too_many_are_added_up() -> None:
    before = [replace(tunnel(sa(1, 0))[0], outbound=tuple(sa(spi, 0) for spi in range(1, MOST + 11)))]
    after = [replace(before[0], outbound=tuple(sa(spi, 100 + spi if spi > 3 else 0) for spi in range(1, MOST + 11)))]
    found = Tally(before).until(after)
    assert len(found) == MOST + 1
    assert found[-1].spi is None
    assert found[-1].packets == sum(100 + spi for spi in range(4, 11))
    assert all(one.bytes >= other.bytes for one, other in pairwise(found[:MOST]))
