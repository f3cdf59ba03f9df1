"""That the look at somebody else's tables after every test (conftest.py) does see what it is there to see."""

import pytest

from flowfast.lab.netns import Netns
from tests.guest import foreign

pytestmark = pytest.mark.guest(images=["debian14"], nics=3)

CHANGES = (
    "add element inet somebody hosts { 198.51.100.200 }",
    "delete element inet somebody marks { 81 }",
    "add rule inet somebody forward accept",
    "flush chain inet somebody late",
    "delete table netdev somebody",
    "add chain ip somebody more",
    # Taken out and put back the same: the handle tells.
    "flush chain ip6 somebody output\nadd rule ip6 somebody output ip6 daddr 2001:db8:99::9 counter",
    "flush ruleset",
)


def test_each_change_of_a_foreign_table_is_noticed() -> None:
    with Netns("gw1") as gw1:
        foreign.check(gw1)
        gw1.run(["nft", "add", "table", "inet", "flowfast"])
        foreign.check(gw1)
        for change in CHANGES:
            gw1.run(["nft", "-f", "-"], stdin=change + "\n")
            with pytest.raises(AssertionError, match="have changed"):
                foreign.check(gw1)
            foreign.repair()
            foreign.check(gw1)


def test_a_router_that_goes_is_looked_at_before() -> None:
    with pytest.raises(AssertionError, match="have changed"), Netns("hub") as hub:
        hub.run(["nft", "flush", "ruleset"])
