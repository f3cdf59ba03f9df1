"""The exporter over HTTP: what is published is what is served, and nothing waits for anybody."""

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowfast.config.values import Endpoint
from flowfast.metrics.exporter import Exporter
from flowfast.model.errors import UsageError
from flowfast.model.sa import Direction
from flowfast.model.snapshot import ByPath, Reconciles
from tests.unit.metrics.world import fixed, snapshot, tunnel
from tests.unit.pace import growth

ANYWHERE = Endpoint(IPv4Address("127.0.0.1"), 0)  # a port that is free


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    one = Exporter(ANYWHERE)
    one.start()
    yield one
    one.stop()


def get(exporter: Exporter, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, bytes, str]:
    at = exporter.endpoint
    connection = http.client.HTTPConnection(str(at.address), at.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("Content-Type", "")
    finally:
        connection.close()


def names(page: bytes) -> set[str]:
    return {family.name for family in text_string_to_metric_families(page.decode())}


def test_before_the_first_snapshot_only_what_is_known_without(exporter: Exporter) -> None:
    status, page, kind = get(exporter)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert names(page) == {
        "flowfast_build_info", "flowfast_collector_success", "flowfast_collector_duration_seconds",
    }  # fmt: skip


def test_serves_the_last_snapshot(exporter: Exporter) -> None:
    for rounds in (1, 2):
        exporter.publish(replace(fixed(), reconciles=Reconciles(total=rounds)))
        _, page, _ = get(exporter)
        assert f"\nflowfast_reconcile_total {rounds}\n".encode() in page
    assert page == exporter.render()
    assert b"flowfast_sa_bytes_total" not in page


def test_bytes_by_path_are_the_snapshots(exporter: Exporter) -> None:
    exporter.publish(snapshot(tunnel(), by_path={("t", Direction.OUT): ByPath(186, 14)}))
    _, page, _ = get(exporter)
    assert b'flowfast_tunnel_bytes_total{tunnel="t",direction="out",path="flowtable"} 186\n' in page
    assert b'flowfast_tunnel_bytes_total{tunnel="t",direction="out",path="l3"} 14\n' in page


def test_series_of_sas_only_where_asked_for() -> None:
    exporter = Exporter(ANYWHERE, per_sa=True, sa_limit=1)
    exporter.publish(fixed())
    page = exporter.render()
    assert page.count(b"flowfast_sa_bytes_total{") == 1
    assert b"\nflowfast_sa_series_left_out 3\n" in page


def test_compresses_where_the_client_takes_it(exporter: Exporter) -> None:
    exporter.publish(fixed())
    _, plain, _ = get(exporter)
    _, packed, _ = get(exporter, **{"Accept-Encoding": "gzip"})
    assert len(packed) < len(plain) / 2
    assert gzip.decompress(packed) == plain


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 200), ("GET", "/nowhere", 404), ("POST", "/metrics", 405)]
)
def test_other_requests(exporter: Exporter, method: str, path: str, status: int) -> None:
    found, body, _ = get(exporter, path, method)
    assert found == status
    assert (b"/metrics" in body) is (status == 200)


def test_head_says_how_long_and_sends_nothing(exporter: Exporter) -> None:
    assert get(exporter, method="HEAD")[:2] == (200, b"")


def test_ipv6() -> None:
    assert Exporter("[::1]:9833").endpoint == Endpoint(IPv6Address("::1"), 9833)
    exporter = Exporter(Endpoint(IPv6Address("::1"), 0))
    exporter.start()
    try:
        assert get(exporter)[0] == 200
    finally:
        exporter.stop()


@pytest.mark.parametrize("listen", ["", "9833", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000", "::1:9833", ":9833"])
def test_malformed_address_is_one_line_that_names_it(listen: str) -> None:
    with pytest.raises(UsageError) as caught:
        Exporter(listen)
    line = str(caught.value)
    assert line.startswith("exporter.listen: ")
    assert "\n" not in line
    assert listen in line


def test_address_in_use_is_one_line_with_the_remedy(exporter: Exporter) -> None:
    second = Exporter(exporter.endpoint)
    with pytest.raises(UsageError) as caught:
        second.start()
    assert str(caught.value) == (
        f"exporter.listen: cannot listen on {exporter.endpoint}: Address already in use "
        "(stop the program that listens there, or choose another port under exporter.listen)"
    )
    second.stop()
    assert get(exporter)[0] == 200


def test_address_of_another_machine_is_one_line_with_the_remedy() -> None:
    with pytest.raises(
        UsageError, match=r"cannot listen on 192\.0\.2\.200:9833: .* \(choose an address of this router"
    ):
        Exporter("192.0.2.200:9833").start()


def test_listening_asks_no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("a name was looked up")

    for function in ("getfqdn", "gethostbyaddr", "getaddrinfo"):
        monkeypatch.setattr(socket, function, asked)
    exporter = Exporter(Endpoint(IPv4Address("0.0.0.0"), 0))  # noqa: S104 - what a user may well write
    exporter.start()
    exporter.stop()


def test_start_again_after_stop() -> None:
    exporter = Exporter(ANYWHERE)
    for _ in range(2):
        exporter.start()
        assert get(exporter)[0] == 200
        exporter.stop()
    with pytest.raises(ConnectionRefusedError):
        get(exporter)


def test_publishing_while_scraping_serves_one_snapshot_or_the_next(exporter: Exporter) -> None:
    """Two numbers of one snapshot always agree, time goes forwards, and no scrape fails."""
    exporter.publish(replace(fixed(), reconciles=Reconciles()))
    problems: list[object] = []
    scrapes = [0, 0, 0]
    done = threading.Event()

    def scrape(which: int) -> None:
        last = -1.0
        while not done.is_set():
            status, page, _ = get(exporter)
            found = {
                sample.name: sample.value
                for family in text_string_to_metric_families(page.decode())
                for sample in family.samples
                if not sample.labels
            }
            rounds, changes = found["flowfast_reconcile_total"], found["flowfast_reconcile_changes_total"]
            if status != 200 or rounds != changes or rounds < last:
                problems.append((status, rounds, changes, last))
            last = rounds
            scrapes[which] += 1

    threads = [threading.Thread(target=scrape, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    number = 0
    until = time.monotonic() + 1
    while time.monotonic() < until or min(scrapes) < 3:
        number += 1
        exporter.publish(replace(fixed(), reconciles=Reconciles(total=number, changes=number)))
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []


def test_ten_thousand_tunnels_take_no_longer_each_to_render_than_one_thousand() -> None:
    def work(tunnels: int) -> Callable[[], bytes]:
        those = [tunnel(f"t{n}", (), (), (f"10.{n >> 8}.{n & 255}.0/24", "192.168.0.0/16")) for n in range(tunnels)]
        both = {(each.name, way): ByPath(900, 100) for each in those for way in (Direction.IN, Direction.OUT)}
        exporter = Exporter(ANYWHERE)

        def render() -> bytes:
            exporter.publish(snapshot(*those, by_path=both, flows=()))
            return exporter.render()

        render()  # makes the regions of the selectors, once
        return render

    assert work(10_000)().count(b"\n") > 80_000
    assert growth(work, 1_000, 10_000) < 4
