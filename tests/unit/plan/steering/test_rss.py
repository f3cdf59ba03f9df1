"""The NIC's hash, and the table that has each SA on the queue of its CPU."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowfast.model.machine import Rss
from flowfast.plan.steering.rss import all_apart, distinct, fit, hash_of, tells_apart, toeplitz
from tests.unit.plan.steering.paper import KEY, rss, sas

# Microsoft, "Verifying the RSS Hash Calculation": source, destination, hash of addresses, and with ports.
PUBLISHED = [
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
]


@pytest.mark.parametrize("published", PUBLISHED)
def test_the_hash_is_the_published_one(published: tuple[str, int, str, int, int, int]) -> None:
    src, sport, dst, dport, addresses, with_ports = published
    ends = ip_address(src).packed + ip_address(dst).packed
    assert toeplitz(KEY, ends) == addresses
    assert toeplitz(KEY, ends + sport.to_bytes(2) + dport.to_bytes(2)) == with_ports


@given(st.binary(max_size=36), st.binary(max_size=36))
def test_the_hash_is_linear(one: bytes, other: bytes) -> None:
    size = max(len(one), len(other))
    both = bytes(a ^ b for a, b in zip(one.ljust(size, b"\0"), other.ljust(size, b"\0"), strict=True))
    assert toeplitz(KEY, one) ^ toeplitz(KEY, other) == toeplitz(KEY, both)


def test_a_key_that_is_too_short_is_an_error() -> None:
    with pytest.raises(ValueError, match="hashes 8 bytes at most"):
        toeplitz(KEY[:12], bytes(12))


def inbound(count: int, **more: bool) -> list[tuple]:
    return [(sa, sa.pcpu) for sa in sas(count, **more) if sa.direction == "in" and sa.pcpu is not None]


@pytest.mark.parametrize("encap", [False, True])
def test_each_sa_lands_on_the_queue_of_its_cpu(encap: bool) -> None:
    having, nic = inbound(4, encap=encap), rss(4)
    queues = {cpu: 3 - cpu for cpu in range(4)}
    found = fit(nic, having, queues)
    assert not found.collisions
    for sa, cpu in having:
        assert found.table[hash_of(nic, sa) % 128] == queues[cpu]
    changed = sum(a != b for a, b in zip(nic.table, found.table, strict=True))
    assert changed <= 4


def test_two_sas_in_one_slot_are_told() -> None:
    nic = rss(4, size=1)
    found = fit(nic, inbound(4), {cpu: cpu for cpu in range(4)})
    assert len(found.collisions) == 3
    assert found.table == (0,)


def test_a_hash_of_addresses_does_not_tell_sas_apart() -> None:
    (sa, _), *_ = inbound(1)
    assert not tells_apart(rss(4, spi=False), sa)
    assert tells_apart(rss(4), sa)
    (encapsulated, _), *_ = inbound(1, encap=True)
    assert tells_apart(rss(4, spi=False), encapsulated)
    assert hash_of(Rss((0, 1)), sa) is None


def test_the_published_luck_of_six_spis_on_six_queues() -> None:
    assert all_apart(6, 6) == pytest.approx(0.0154, abs=0.0001)
    assert distinct(6, 6) == pytest.approx(3.99, abs=0.01)


def test_what_the_driver_does_not_tell_is_not_guessed() -> None:
    sa = sas(1)[1]
    no_fields = {"esp4": frozenset[str]()}  # virtio_net says so of ESP, and hashes addresses
    for fields in ({}, no_fields):
        assert hash_of(Rss((0, 1), KEY, fields), sa) is None
    assert hash_of(Rss((0, 1), KEY, {"esp4": frozenset({"src", "dst"})}), sa) is not None
