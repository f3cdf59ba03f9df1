"""A thousand tunnels: the operator's firewall still reaches a fast flow at once, and a rekey leaves it fast.

By instructions, of the guest's only CPU: 100 ms are 100 million.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from flowfast.lab.demo.awake import Awake
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.topology import TwoGateways, two_gateways
from tests.guest.router import Router
from tests.guest.scale import PORT, chat, install, rekeys, stop_by

pytestmark = pytest.mark.guest(images=["debian14"], also=["debian13", "debian12"], icount=True)

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\n"
OPERATOR = "table inet operator {\n chain forward {\n type filter hook forward priority filter\n }\n}\n"
RULE = f"insert rule inet operator forward udp dport {PORT} drop"
MILLISECOND = 1_000_000
REKEYS, TOGETHER = 50, 10


@dataclass
class Site:
    awake: Awake
    topo: TwoGateways
    router: Router


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Awake() as awake, two_gateways("policy", families=(4,)) as topo:
        manual_keys(topo, marks=True)
        assert topo.ping(4)
        topo.gw1.call(install, 999)
        topo.gw1.run(["nft", "-f", "-"], stdin=OPERATOR)
        with Router(topo.gw1, CONFIG, tmp_path_factory.mktemp("flowfast")) as router:
            yield Site(awake, topo, router)


@pytest.mark.long
def test_a_rekey_leaves_the_flow_fast_within_50_million_instructions(site: Site) -> None:
    with chat(site.topo) as talk:
        before = site.router.full_path_packets()
        took = []
        for number in range(0, REKEYS, TOGETHER):
            took += site.topo.gw1.call(rekeys, range(number, number + TOGETHER), talk, timeout=300)
            with site.awake.paused():
                time.sleep(1.5)  # the kernel frees old flows
        slow = site.router.full_path_packets() - before
    took.sort()
    print("milliseconds until a flow is fast again:", *(round(each * 1000, 1) for each in took))
    assert took[int(0.99 * REKEYS)] < 0.050
    # Ten packets more of each rekey did not see the forward chain; those that made the flow anew did.
    assert slow < 4 * REKEYS


@pytest.mark.parametrize(
    "busy",
    [
        pytest.param(False, id="idle"),
        # 60, 91 and 73 ms were seen: holds, with little to spare, so it is no condition for landing.
        pytest.param(True, id="in the middle of a round", marks=pytest.mark.long),
    ],
)
def test_the_operators_rule_reaches_a_fast_flow_within_100_milliseconds(site: Site, busy: bool) -> None:
    """Told to a controller at rest, and to one that has just begun to look at everything."""
    site.topo.gw1.run(["nft", "flush", "chain", "inet", "operator", "forward"])
    with chat(site.topo) as talk:
        if busy:
            site.topo.gw1.run(["ip", "link", "set", "lo", "mtu", "60000"])
        stopped = stop_by(site.topo, talk, RULE)
    print("milliseconds until the last packet:", (stopped.last - stopped.rule) / MILLISECOND)
    assert stopped.last - stopped.rule < 100 * MILLISECOND
    assert stopped.sent - stopped.last > 500 * MILLISECOND  # it went on sending
