"""look(): what is read, in which order, and what is left out where there is too much of it."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from flowfast.kernel.conntrack import FakeConntrack
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.nft import FakeNft
from flowfast.kernel.system import FakeSystem
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.model.desired import Desired
from flowfast.model.nftables import Ruleset, Table, TableState
from flowfast.model.snapshot import Snapshot
from flowfast.model.state import CounterValue, RouterState, Spd
from flowfast.plan.ruleset import INET, NETDEV
from flowfast.snapshot import MANY, look
from tests.unit.metrics.world import flow

FAST, SLOW = flow("10.1.0.5", "10.2.0.9"), flow("10.1.0.6", "10.2.0.9", offloaded=False)
HELD = Ruleset({table: TableState(table) for table in (INET, NETDEV)})


class OnePacketALook(FakeNft):
    """A packet takes the full path, counted before the flowtable and by the forward chain, between any two reads."""

    def __init__(self) -> None:
        super().__init__()
        self.packets = 0

    def counters(self, table: Table) -> Mapping[str, CounterValue]:
        self.packets += 1
        return {"out_t": CounterValue(self.packets, self.packets * 100)}


def seen(nft: FakeNft, *, connections: int, full: bool = True) -> Snapshot:
    kernel = FakeKernel(
        nft=nft,
        conntrack=FakeConntrack([FAST, SLOW]),
        system=FakeSystem(xfrm_errors={"XfrmInError": 2}),
        netns={"underlay": FakeXfrm()},
    )
    state = RouterState(0.0, ruleset=HELD, underlay={"underlay": Spd()},
                        sysctls={"net.netfilter.nf_conntrack_count": str(connections)})  # fmt: skip
    return asyncio.run(look(kernel, state, Desired(), full=full))


def test_a_packet_that_comes_between_two_reads_never_counts_for_the_flowtable() -> None:
    now = seen(OnePacketALook(), connections=2)
    assert now.before_flowtable["out_t"].bytes <= now.full_path["out_t"].bytes


def test_connections_on_the_full_path_are_asked_for_where_they_are_not_too_many() -> None:
    few, many = (seen(FakeNft(), connections=number) for number in (MANY, MANY + 1))
    assert (few.flows, few.slow_flows) == ((FAST,), (SLOW,))
    assert (many.flows, many.slow_flows) == ((FAST,), None)


def test_what_only_metrics_show_is_not_asked_for_by_others() -> None:
    now = seen(FakeNft(), connections=2, full=False)
    assert (now.flows, now.slow_flows, now.xfrm_errors) == ((FAST,), None, {})


def test_xfrm_errors_of_every_namespace() -> None:
    errors = {"XfrmInError": 2}
    assert seen(FakeNft(), connections=2).xfrm_errors == {"": errors, "underlay": errors}


def test_no_table_no_counters() -> None:
    kernel = FakeKernel(nft=OnePacketALook())
    now = asyncio.run(look(kernel, replace(RouterState(0.0)), Desired()))
    assert (now.full_path, now.before_flowtable) == ({}, {})
