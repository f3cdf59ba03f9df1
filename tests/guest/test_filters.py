"""Every filter and exclusion of a config on a real kernel: conntrack says which connections are on the flowtable."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.topology import TwoGateways, two_gateways
from tests.guest.oneshot import FullPath, apply, meet, offloaded, to_and_fro

pytestmark = [pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=3), pytest.mark.long]

MARKED, ZONED = 7777, 7003

FIREWALL = f"""
table inet operator {{
  chain zones {{ type filter hook prerouting priority raw;
    udp dport {ZONED} ct zone set 3
    udp sport {ZONED} ct zone set 3
  }}
  chain marks {{ type filter hook prerouting priority mangle; udp dport {MARKED} meta mark set 0x110; }}
}}
"""


@pytest.fixture(scope="module")
def topo() -> Iterator[TwoGateways]:
    with two_gateways("policy", families=(4,), hosts=2) as built:
        manual_keys(built)
        meet(built)
        built.gw1.run(["nft", "-f", "-"], stdin=FIREWALL)
        built.gw1.write("/proc/sys/net/netfilter/nf_conntrack_acct", "1")
        yield built


class Flow(NamedTuple):
    """A UDP connection: its destination port, where it comes from, its TOS octet and its packets each way."""

    port: int = 9
    source: str = "10.1.0.2"
    tos: int = 0
    packets: int = 12


def is_fast(topo: TwoGateways, flow: Flow) -> bool:
    """Sends packets there and back, one after the other; whether conntrack says that the connection is offloaded."""
    port = to_and_fro(
        topo.h1, topo.h2, topo.host_address(2, 4), source=flow.source, port=flow.port, tos=flow.tos, rounds=flow.packets
    )
    return any(f"sport={port} " in line for line in offloaded(topo.gw1))


@pytest.mark.parametrize(
    ("more", "fast", "slow"),
    [
        (
            "exclude: {ports: [7000-7100], addresses: [10.1.0.3], dscp: [ef], marks: [0x10/0xff]}",
            [Flow(), Flow(6999), Flow(tos=0x20)],
            [Flow(7050), Flow(source="10.1.0.3"), Flow(tos=0xB8), Flow(MARKED)],
        ),
        ("exclude: {tunnels: ['reqid-*']}", [], [Flow()]),
        ("offload: {ports: [443, 5000-5100]}", [Flow(443), Flow(5005)], [Flow(444)]),
        ("offload: {marks: [0x110]}", [Flow(MARKED)], [Flow()]),
        ("offload: {dscp: [af41]}", [Flow(tos=0x88)], [Flow()]),
        ("offload: {zones: [3]}", [Flow(ZONED)], [Flow()]),
        ("offload: {after_packets: 50}", [Flow(packets=40)], [Flow(packets=20)]),
        ("offload: {protocols: [tcp]}", [], [Flow()]),
    ],
)
def test_filters(topo: TwoGateways, tmp_path: Path, more: str, fast: list[Flow], slow: list[Flow]) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(f"devices: {{lan: [lan0], wan: [wan0]}}\n{more}\n")
    apply(topo.gw1, str(config))
    assert [is_fast(topo, flow) for flow in fast] == [True] * len(fast)
    assert [is_fast(topo, flow) for flow in slow] == [False] * len(slow)


def esp_entries(topo: TwoGateways, peer: str) -> list[str]:
    listed = topo.gw1.run(["conntrack", "-L"]).stdout.splitlines()
    return [line for line in listed if line.split()[1] == "50" and peer in line]


def test_only_the_esp_of_known_peers_is_untracked(topo: TwoGateways, tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    config.write_text("devices: {lan: [lan0], wan: [wan0]}\n")
    apply(topo.gw1, str(config))
    assert is_fast(topo, Flow())
    assert esp_entries(topo, "192.0.2.2")

    config.write_text("devices: {lan: [lan0], wan: [wan0]}\nnotrack: true\n")
    apply(topo.gw1, str(config))
    topo.gw1.run(["conntrack", "-D", "-p", "50"], check=False)
    with FullPath(topo.gw1) as seen:
        to_and_fro(topo.h1, topo.h2, topo.host_address(2, 4), rounds=200)
    assert seen.packets < 5
    topo.gw2.run(["ip", "addr", "add", "192.0.2.9/24", "dev", "wan0"])
    with topo.gw2.socket(socket.AF_INET, socket.SOCK_RAW, 50) as stranger:
        stranger.bind(("192.0.2.9", 0))
        stranger.sendto(bytes(64), ("192.0.2.1", 0))
    assert esp_entries(topo, "192.0.2.2 ") == []
    assert esp_entries(topo, "192.0.2.9 ")
