"""A WAN that the config takes for a LAN device: no guard stands there, so no flow may be found there either."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from flowfast.lab.inject import Arrivals, Injection, Tuple
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.topology import BOTH, TwoGateways, two_gateways
from flowfast.lab.traffic import UdpFlow
from tests.guest.oneshot import apply, meet, offloaded

pytestmark = [pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=3), pytest.mark.long]

CONFIG = "devices: {lan: ['*0'], wan: ['uplink*']}\n"
OURS, THEIRS = 4100, 7


def forged_arrivals(topo: TwoGateways) -> tuple[int, int]:
    """Of connections of each family: those that became fast, and the forged replies that reached h1."""
    replies = [Tuple(topo.host_address(2, f), topo.host_address(1, f), THEIRS, OURS) for f in BOTH]
    mac = topo.gw1.read("/sys/class/net/wan0/address")
    with ExitStack() as stack:
        for family in BOTH:
            source, address = topo.host_address(1, family), topo.host_address(2, family)
            stack.enter_context(
                UdpFlow(topo.h1, topo.h2, address, rate=20, port=THEIRS, source=source, source_port=OURS)
            )
        time.sleep(3)
        listed = "\n".join(offloaded(topo.gw1))
        fast = sum(f"src={topo.host_address(1, f)} dst={topo.host_address(2, f)} sport={OURS} " in listed for f in BOTH)
        arrived = stack.enter_context(Arrivals(topo.h1, "e0"))
        with Injection(topo.gw2, "wan0", mac, replies, rate=50) as sent:
            time.sleep(2)
        assert sent.sent > 20
    assert arrived.seen > 10
    return fast, arrived.count


def test_nothing_gets_in_by_a_wan_that_is_named_as_a_lan_device(tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(CONFIG)
    with two_gateways("policy") as topo:
        manual_keys(topo)
        meet(topo)
        applied = apply(topo.gw1, str(config))
        assert applied.fast("tx") == applied.fast("rx") == {False}
        assert "WAN_IS_LAN" in applied.reasons
        assert forged_arrivals(topo) == (0, 0)
        # Without the rule both become fast, and the attack gets through: what it is there for.
        listed = topo.gw1.run(["nft", "-s", "list", "chain", "inet", "flowfast", "to_flowtable"]).stdout
        rules = [line for line in listed.splitlines() if not ("ipsec exists oifname" in line and "return" in line)]
        assert len(rules) == len(listed.splitlines()) - 1
        topo.gw1.run(["nft", "-f", "-"], stdin="flush chain inet flowfast to_flowtable\n" + "\n".join(rules))
        fast, arrived = forged_arrivals(topo)
        assert fast == 2
        assert arrived > 20
