"""A result made by hand, of round numbers: one policy-based tunnel, twice as fast on the flowtable."""

from dataclasses import replace
from typing import Any

from flowfast.lab.demo.result import (
    WAYS,
    Cost,
    Lane,
    Part,
    Result,
    Route,
    Sample,
    SaTraffic,
    Stream,
    Traffic,
    Way,
    Window,
    Wire,
)

LOADS = {"TCP": 10_000_000, "UDP": 1_000_000}
SPIS: dict[Way, int] = {"tx": 0xC0000001, "rx": 0xC0000002}
ACKNOWLEDGEMENTS = Traffic(1000, 20, 0, 0)


def traffic(size: int, route: Route) -> Traffic:
    """Bytes in packets of 1000; on the fast path, the forward chain sees five packets of 100."""
    return Traffic(size, size // 1000, size, size // 1000) if route == "full" else Traffic(size, size // 1000, 500, 5)


def window(way: Way, load: str, route: Route, start: float) -> Window:
    own = traffic(LOADS[load], route)
    other = replace(ACKNOWLEDGEMENTS, forward_bytes=1000 if route == "full" else 0)
    return Window(
        lane=Lane("berlin", 4, way),
        load=load,
        route=route,
        start=start,
        end=start + 1,
        tx=own if way == "tx" else other,
        rx=own if way == "rx" else other,
        bits_per_second=1e8 if route == "full" else 2e8,
        sent=None if load == "TCP" else 1000,
        lost=None if load == "TCP" else 0,
    )


def samples() -> tuple[Sample, ...]:
    """1 MB a second each way; everything through the forward chain until second 10, nothing of it since."""
    return tuple(
        Sample(at=at / 10, tx=at * 100_000, rx=at * 100_000, forward_tx=seen, forward_rx=seen)
        for at in range(201)
        for seen in (min(at, 100) * 100_000,)
    )


def part(**changes: Any) -> Part:
    """A part in which all is well."""
    windows = [
        window(way, load, route, start + 2 * number)
        for route, start in (("full", 1.0), ("fast", 11.0))
        for number, (way, load) in enumerate((way, load) for way in WAYS for load in LOADS)
    ]
    whole = Part(
        name="policy",
        topology="policy-based",
        windows=tuple(windows),
        sas=tuple(
            SaTraffic(
                "berlin",
                way,
                SPIS[way],
                "rfc4106(gcm(aes))",
                None,
                traffic(11_000_000, "full"),
                traffic(11_000_000, "fast"),
            )
            for way in WAYS
        ),
        samples=samples(),
        started=9.0,
        applied=10.0,
        killed=19.0,
        streams=(Stream("berlin", 4, 50, 0, 0, 0),),
        full_wire=Wire(22_010, 22_000, 0, 0),
        fast_wire=Wire(22_020, 22_000, 0, 0),
        costs=(Cost("policy-based", 20_000.0, 10_000.0, 15_000.0, 10_000.0),),
        offloaded=("tcp 6 src=10.1.0.2 dst=10.2.0.2 [OFFLOAD]",),
        ruleset='table inet flowfast { comment "<script>" }',
        config="devices: {lan: [lan0]}\n",
        metrics='flowfast_tunnel_bytes_total{tunnel="berlin"} 1',
        versions={"kernel": "7.2.12", "nftables": "1.1.7"},
    )
    return replace(whole, **changes)


def result(*parts: Part, **changes: Any) -> Result:
    """A whole result, of one good part unless others are given."""
    whole = Result(
        version="0.1.0",
        date="2026-11-24T12:00:00+00:00",
        image="debian14 (Debian 14 (testing))",
        kernel="7.2.12",
        host="QEMU 7.2 (tcg, icount), 2 cores",
        seconds=99.0,
        parts=parts or (part(),),
    )
    return replace(whole, **changes)
