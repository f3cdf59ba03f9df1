"""What an operator must see coming, of real SAs: limits, sequence numbers, replays, what is down, what was leaked."""

import asyncio
import json
import secrets
import socket
import time
from pathlib import Path

import pytest

from flowfast.kernel.xfrm import AsyncXfrmSocket
from flowfast.lab.manual_keys import SPI_IN, SPI_OUT, manual_keys
from flowfast.lab.topology import TwoGateways, two_gateways, wan_address
from flowfast.lab.traffic import udp_echo
from tests.guest.router import Router, router_samples

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3), pytest.mark.long(seconds=120)]

CONFIG = {
    "devices": {"lan": ["lan0"], "wan": ["wan0"]},
    "exporter": {"per_sa": True},
    "tunnels": {
        "berlin": {"local": ["10.1.0.0/16"], "remote": ["10.2.0.0/16"]},
        "paris": {"local": ["10.1.0.0/16"], "remote": ["10.99.0.0/16"]},  # nowhere but here
    },
}
BYTES, SECONDS = 10_000_000, 3600
ALL_PACKETS, ESP = 3, 50
REPLAYS = 5
KEYED = "mode tunnel replay-window 128 flag esn af-unspec aead rfc4106(gcm(aes))"


def page(router: Router) -> dict[str, float]:
    """Of a look at the router that begins from now on."""
    asked, deadline = time.time(), time.monotonic() + 90
    while True:
        found = router_samples(router.metrics())
        if found.get("flowfast_snapshot_timestamp_seconds", 0.0) > asked:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(1)


def sa(topo: TwoGateways, do: str, *, spi: int, reqid: int, outbound: bool, more: str = "") -> None:
    """`ip xfrm state` with a key that nobody knows; an update takes the limits, and nothing else."""
    src, dst = (wan_address(side, 4) for side in ((1, 2) if outbound else (2, 1)))
    named = f"src {src} dst {dst} proto esp spi {spi:#x} reqid {reqid}"
    command = f"xfrm state {do} {named} {KEYED} 0x{secrets.token_hex(20)} 128 {more}"
    topo.gw1.run(["ip", *command.split()])


def replay(topo: TwoGateways) -> None:
    """Has the last ESP packet that gw2 sent come once more, some times."""
    with topo.gw2.socket(socket.AF_PACKET, socket.SOCK_RAW) as wan:
        wan.bind(("wan0", ALL_PACKETS))
        wan.settimeout(30)
        assert udp_echo(topo.h1, topo.h2, topo.host_address(2, 4), packets=1, rate=1, size=100, port=7300).intact
        while True:
            frame, (_, _, kind, *_) = wan.recvfrom(2048)
            if kind == socket.PACKET_OUTGOING and frame[12:14] == b"\x08\x00" and frame[23] == ESP:
                break
        for _ in range(REPLAYS):
            wan.send(frame)


async def far(topo: TwoGateways) -> None:
    """Half of the sequence numbers of the outbound SA are used up."""
    dst = wan_address(2, 4)
    async with AsyncXfrmSocket(topo.gw1.name) as xfrm:
        found = await xfrm.get_sa(dst, SPI_OUT + 1)
        await xfrm.new_ae(dst, SPI_OUT + 1, replay=found.replay._replace(oseq=1 << 63))


def test_what_an_operator_must_see_coming(tmp_path: Path) -> None:
    with two_gateways("policy", families=(4,)) as topo:
        manual_keys(topo)
        assert topo.ping(4)
        limits = f"limit byte-hard {BYTES} limit time-hard {SECONDS}"
        began = time.time()
        sa(topo, "update", spi=SPI_OUT + 1, reqid=1, outbound=True, more=limits)
        sa(topo, "add", spi=0x77, reqid=77, outbound=False)
        with Router(topo.gw1, json.dumps(CONFIG), tmp_path) as router:
            there = topo.host_address(2, 4)
            assert udp_echo(topo.h1, topo.h2, there, packets=200, rate=100, size=1000, port=7200).intact
            replay(topo)
            now = page(router)
            asyncio.run(far(topo))
            later = page(router)
    out = '{tunnel="berlin",direction="out"'
    carried = now[f'flowfast_sa_bytes_total{out},spi="0x{SPI_OUT + 1:08x}",cpu="",offload="none"}}']
    assert carried >= 200 * 1028
    assert now[f'flowfast_tunnel_lifetime_ratio{out},limit="bytes"}}'] == pytest.approx(carried / BYTES)
    ends = now[f"flowfast_tunnel_expiry_timestamp_seconds{out}}}"]
    assert began - 120 < ends - SECONDS <= began + 1
    inbound = f'{{tunnel="berlin",direction="in",spi="0x{SPI_IN + 1:08x}",cpu="",offload="none"}}'
    assert now[f"flowfast_sa_replay_errors_total{inbound}"] == REPLAYS
    assert now['flowfast_xfrm_errors_total{netns="",counter="XfrmInStateSeqError"}'] >= REPLAYS
    assert 0 < now[f"flowfast_tunnel_sequence_ratio{out}}}"] < 1e-9
    assert later[f"flowfast_tunnel_sequence_ratio{out}}}"] == pytest.approx(0.5)
    assert (now['flowfast_tunnel_up{tunnel="berlin"}'], now['flowfast_tunnel_up{tunnel="paris"}']) == (1, 0)
    assert now['flowfast_xfrm_states{netns="",kind="orphan"}'] == 1
