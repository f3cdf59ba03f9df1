"""Devices that vanish, come back, are renamed or change MTU, under `flowfast run`.

On 6.1 a flowtable can only be put on devices that are there, later kernels bind by name: either way connections are
fast again a moment after the device is back.
"""

import time
from collections.abc import Iterator

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import Netns
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.lab.traffic import tcp_transfer
from tests.guest.oneshot import FullPath, meet, running, to_and_fro

pytestmark = [pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=3), pytest.mark.long]

CONFIG = "devices: {lan: ['lan*'], wan: [wan0]}\n"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoGateways]:
    """xfrm interfaces, and `flowfast run` on gw1."""
    folder = tmp_path_factory.mktemp("devices")
    (folder / "site.yaml").write_text(CONFIG)
    with two_gateways("xfrmi", families=(4,)) as topo:
        manual_keys(topo)
        meet(topo)
        with running(topo.gw1, str(folder / "site.yaml"), folder / "log"):
            yield topo


def ip(ns: Netns, *lines: str) -> None:
    ns.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")


def becomes_fast(topo: TwoGateways, seconds: float = 30) -> None:
    """Waits until all but the first packets of a connection miss the forward chain, both ways, and all arrive."""
    deadline = time.monotonic() + seconds
    address = topo.host_address(2, 4)
    while True:
        if topo.ping(4, count=1):
            with FullPath(topo.gw1) as seen:
                to_and_fro(topo.h1, topo.h2, address, rounds=100)
            if seen.packets < 5:
                return
        assert time.monotonic() < deadline, held(topo)


def held(topo: TwoGateways) -> str:
    return topo.gw1.run(["nft", "list", "table", "inet", "flowfast"], check=False).stdout


def test_an_xfrm_interface_goes_and_comes_back(followed: TwoGateways) -> None:
    becomes_fast(followed)
    followed.gw1.run(["ip", "link", "del", "ipsec0"])
    time.sleep(1)
    ip(
        followed.gw1,
        "link add ipsec0 type xfrm dev wan0 if_id 42",
        "link set ipsec0 mtu 1400 up",
        "route add 10.2.0.0/16 dev ipsec0",
    )
    becomes_fast(followed)


def test_a_lan_device_goes_and_comes_back(followed: TwoGateways) -> None:
    followed.gw1.run(["ip", "link", "del", "lan0"])
    time.sleep(1)
    followed.gw1.run(["ip", "link", "add", "lan0", "type", "veth", "peer", "name", "e0", "netns", "h1"])
    ip(followed.gw1, "addr add 10.1.0.1/16 dev lan0", "link set lan0 up")
    ip(followed.h1, "addr add 10.1.0.2/16 dev e0", "link set e0 up", "route add default via 10.1.0.1")
    becomes_fast(followed)


def test_a_lan_device_is_renamed(followed: TwoGateways) -> None:
    ip(followed.gw1, "link set lan0 down", "link set lan0 name lan7", "link set lan7 up")
    becomes_fast(followed)
    assert "lan7" in held(followed)


def test_the_mtu_of_a_tunnel_changes(followed: TwoGateways) -> None:
    becomes_fast(followed)
    followed.gw1.run(["ip", "link", "set", "ipsec0", "mtu", "1300"])
    time.sleep(1)
    becomes_fast(followed)
    with FullPath(followed.gw1) as seen:
        assert tcp_transfer(followed.h2, followed.h1, followed.host_address(1, 4), 1_000_000).intact
    assert seen.packets < 20
