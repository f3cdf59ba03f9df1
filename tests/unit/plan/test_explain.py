"""Why a connection is not fast: one router, one connection, and for each reason the one thing that is different."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from flowfast.config.schema import Config
from flowfast.kernel.routes import FakeRoutes
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.link import Link
from flowfast.model.nftables import Ruleset
from flowfast.model.route import Route
from flowfast.model.sa import SA, Direction, Mode, Policy
from flowfast.model.state import Flow, RouterState, Spd, Status, TcpState
from flowfast.plan import creation, explain
from flowfast.plan.case import Sight
from flowfast.plan.explain import Answer, Query
from flowfast.plan.pause import BOTH
from flowfast.plan.planner import plan
from flowfast.plan.ruleset import INET, PAUSED
from flowfast.plan.tunnels import find_tunnels
from tests.unit.plan.router import IPSEC, LAN, PEER, US, WAN, as_read, bypass, config, policies, router

DMZ = Link(9, "dmz0", None, True, 1500)
OUT = make_sa(US, PEER, 0xC0000001)
IN = make_sa(PEER, US, 0xC0000002, direction=Direction.IN)
FAST = Status.SEEN_REPLY | Status.ASSURED | Status.CONFIRMED
QUERY = Query("10.1.0.5", "10.2.0.9", 6, 443)
ROUTES = {
    "10.1.0.0/16": Route(1),
    "0.0.0.0/0": Route(2),
    "fd01::/16": Route(1),
    "::/0": Route(2),
}


def tcp(src: str = "10.1.0.5", dst: str = "10.2.0.9", sport: int = 50000, dport: int = 443, **more: object) -> Flow:
    """An established connection, not on the flowtable; `more` fields of the Flow."""
    family = 10 if ":" in src else 2
    plain = Flow(family, 6, src, dst, sport, dport, dst, src, dport, sport, False, False, True, status=FAST)
    return replace(plain, **{"tcp_state": TcpState.ESTABLISHED, **more})


FLOW = tcp()
ON = replace(FLOW, offloaded=True, tcp_state=None, status=FAST | Status.OFFLOAD)
UDP = replace(FLOW, proto=17, tcp_state=None)


@dataclass
class World:
    """The router that all is well with, unless told otherwise."""

    flow: Flow | None = ON
    query: Query = QUERY
    applied_config: Config = field(default_factory=config)
    config: Config | None = field(default_factory=config)
    spd: tuple[Policy, ...] = field(default_factory=policies)
    sas: tuple[SA, ...] = (OUT, IN)
    links: tuple[Link, ...] = (LAN, WAN, DMZ)
    routes: dict[str, Route] | None = field(default_factory=lambda: dict(ROUTES))
    applied: Callable[[Ruleset], Ruleset] = as_read
    hooked: frozenset[str] | None = None
    sysctls: dict[str, str] = field(default_factory=dict)
    without: str = ""
    growth: dict[tuple[str, int, int], int] = field(default_factory=dict)
    underlay: dict[str, Spd] = field(default_factory=dict)

    def state(self) -> RouterState:
        bare = replace(
            router(self.spd, links=self.links, without=self.without),
            sas=self.sas,
            sysctls=self.sysctls,
            underlay=self.underlay,
        )
        ruleset = self.applied(plan(bare, self.config or self.applied_config).ruleset)
        table = ruleset.tables.get(INET)
        devices = table.flowtables["fast"].devices if table else frozenset()
        return replace(bare, ruleset=ruleset, hooked=devices if self.hooked is None else self.hooked)

    def sight(self) -> Sight:
        state = self.state()
        desired = plan(state, self.config) if self.config else None
        tunnels = find_tunnels(state, self.config or self.applied_config)
        if desired is not None:
            tunnels = tuple(path.tunnel for path in desired.paths)
        route = None if self.routes is None else FakeRoutes(self.routes).route
        return Sight(state, tunnels, self.config, desired, route, self.growth)

    def answer(self) -> Answer:
        (answer,) = explain.explain(self.query, [self.flow] if self.flow else [], self.sight())
        return answer


def nothing(_: Ruleset) -> Ruleset:
    return Ruleset()


def without_pairs(ruleset: Ruleset) -> Ruleset:
    """The kernel as it was before the tunnel came."""
    table = as_read(ruleset).tables[INET]
    return Ruleset({INET: replace(table, sets={name: replace(each, elements={}) for name, each in table.sets.items()})})


def in_a_pause(ruleset: Ruleset) -> Ruleset:
    """The kernel while flowfast compare has it on the full path."""
    tables = as_read(ruleset).tables
    sets = tables[INET].sets
    sets = {**sets, PAUSED: replace(sets[PAUSED], elements=dict.fromkeys(BOTH, ""))}
    return Ruleset({**tables, INET: replace(tables[INET], sets=sets)})


FAST_INTERFACE = World(
    spd=policies("0.0.0.0/0", "0.0.0.0/0", if_id=42),
    sas=(make_sa(US, PEER, if_id=42), make_sa(PEER, US, direction=Direction.IN, if_id=42)),
    links=(LAN, WAN, IPSEC),
    routes={**ROUTES, "10.2.0.0/16": Route(3)},
)
PER_CPU = (OUT, *(OUT._replace(spi=0xC1000000 + cpu, pcpu=cpu) for cpu in range(2)), IN)
TUNNEL_TO_TUNNEL = (*policies(), *policies("10.2.0.0/16", "10.1.0.0/16", "192.0.2.3", reqid=2))


def interface(**changes: object) -> World:
    return replace(FAST_INTERFACE, **changes)


CASES: list[tuple[str, str, World]] = [
    # is it forwarded at all
    ("ROUTER_ITSELF", "10.1.0.1", World(flow=tcp("10.1.0.1"), query=replace(QUERY, src="10.1.0.1"))),
    ("NOT_FORWARDING", "net.ipv4.ip_forward", World(flow=FLOW, sysctls={"net.ipv4.ip_forward": "0"})),
    ("BLOCKED", "10.1.0.5", World(flow=FLOW, spd=tuple(p._replace(templates=(), action=1) for p in policies()))),
    ("UNREACHABLE", "10.1.0.5", World(flow=FLOW, routes={"10.1.0.0/16": Route(1)})),
    # our rules
    ("NOT_APPLIED", "ruleset", World(flow=FLOW, applied=nothing)),
    ("OFF", "offload", World(flow=FLOW, config=config("offload: {mode: off}"))),
    ("PAUSED", "compare", World(flow=FLOW, applied=in_a_pause)),
    ("PROTOCOL", "icmp", World(flow=replace(UDP, proto=1, sport=0, dport=0), query=Query("10.1.0.5", "10.2.0.9"))),
    ("PROTOCOL", "gre", World(flow=replace(UDP, proto=47), query=Query("10.1.0.5", "10.2.0.9"))),
    ("PROTOCOL", "tcp", World(flow=FLOW, config=config("offload: {protocols: [udp]}"))),
    ("NOT_ESTABLISHED", "one direction only", World(flow=replace(FLOW, established=False))),
    ("NOT_ESTABLISHED", "SYN_RECV", World(flow=tcp(tcp_state=TcpState.SYN_RECV))),
    ("NOT_ESTABLISHED", "ASSURED", World(flow=tcp(status=Status.SEEN_REPLY))),
    ("SECPATH", "reqid-1", World(flow=FLOW, spd=TUNNEL_TO_TUNNEL)),
    ("LAN_NOT_CONFIGURED", "dmz0", World(flow=FLOW, routes={**ROUTES, "10.1.0.0/24": Route(9)})),
    ("IKE_PORT", "4500", World(flow=replace(UDP, dport=4500, reply_sport=4500), query=Query("10.1.0.5", "10.2.0.9"))),
    ("EXCLUDED", "10.2.0.0/24", World(flow=FLOW, config=config("exclude: {addresses: [10.2.0.0/24]}"))),
    ("EXCLUDED", "port 440-450", World(flow=FLOW, config=config("exclude: {ports: [440-450]}"))),
    ("EXCLUDED", "only 80", World(flow=FLOW, config=config("offload: {ports: [80]}"))),
    ("EXCLUDED", "zone 7", World(flow=tcp(zone=7), config=config("offload: {zones: [0]}"))),
    ("EXCLUDED", "reqid-1", World(flow=FLOW, config=config("exclude: {tunnels: [reqid-*]}"))),
    (
        "EXCLUDED",
        "10.2.0.0/24",
        World(flow=FLOW, config=None, applied_config=config("exclude: {addresses: [10.2.0.0/24]}")),
    ),
    ("AFTER_PACKETS", "8 packets", World(flow=tcp(packets=(5, 3)), config=config("offload: {after_packets: 20}"))),
    ("NOT_COUNTED", "nf_conntrack_acct", World(flow=FLOW, config=config("offload: {after_packets: 20}"))),
    ("NO_POLICY", "wan0", World(flow=FLOW, spd=policies(remote="10.3.0.0/16"))),
    ("NO_POLICY", "wan0", World(flow=FLOW, spd=(*policies(), *bypass("10.1.0.5/32", "10.2.0.0/16")))),
    (
        "WAN_NOT_CONFIGURED",
        "dmz0",
        World(
            flow=tcp(dst="198.51.100.7"),
            query=Query("10.1.0.5", "198.51.100.7"),
            config=config("offload: {plain: true}"),
            routes={**ROUTES, "198.51.100.0/24": Route(9)},
        ),
    ),
    ("NO_SA", "reqid-1", World(flow=FLOW, sas=(IN,))),
    (
        "NAT_INTO_TUNNEL",
        "192.168.7.5 becomes 10.1.0.1",
        World(
            flow=tcp("192.168.7.5", reply_dst="10.1.0.1", reply_dport=40000),
            query=Query("192.168.7.5", "10.2.0.9"),
            routes={**ROUTES, "192.168.7.0/24": Route(1)},
        ),
    ),
    (
        "NAT_INTO_TUNNEL",
        "10.1.0.5 becomes 10.1.0.77",
        World(
            flow=tcp(reply_dst="10.1.0.77"),
            spd=(*policies(), *policies("10.9.0.0/16", "10.2.0.0/16", "192.0.2.3", reqid=2)),
        ),
    ),
    ("MODE_NOT_ELIGIBLE", "transport", World(flow=FLOW, spd=policies(mode=Mode.TRANSPORT))),
    ("MODE_NOT_ELIGIBLE", "iptfs", World(flow=FLOW, spd=policies(mode=Mode.IPTFS))),
    ("MODE_NOT_ELIGIBLE", "beet", World(flow=FLOW, spd=policies(mode=Mode.BEET), config=None)),
    ("SELECTOR_NOT_PREFIX", "ports", World(flow=FLOW, spd=policies(proto=6))),
    ("NO_LAN", "reqid-1", World(flow=FLOW, links=(WAN, DMZ), routes=None, applied=lambda _: APPLIED)),
    ("NOT_APPLIED", "flowfast plan", World(flow=FLOW, applied=without_pairs)),
    ("INTERFACE_DOWN", "ipsec0", interface(flow=FLOW, links=(LAN, WAN, replace(IPSEC, up=False)))),
    # flow add
    ("CLOSING", "FIN_WAIT", World(flow=tcp(tcp_state=TcpState.FIN_WAIT))),
    ("CLOSING", "CLOSE", World(flow=tcp(tcp_state=TcpState.CLOSE))),
    ("HELPER", "ftp", World(flow=tcp(helper="ftp"))),
    ("SEQ_ADJUST", "sequence", World(flow=tcp(status=FAST | Status.SEQ_ADJUST))),
    ("NOT_YET", "10.1.0.5:50000", World(flow=FLOW)),
    ("PACKET_MARKS", "mark or DSCP", World(flow=FLOW, config=config("exclude: {marks: [1]}"))),
    # packet by packet
    ("FOREIGN_FLOWTABLE", "no guard", World(applied=nothing)),
    ("NOT_HOOKED", "lan0", World(hooked=frozenset(("wan0",)))),
    ("NOT_HOOKED", "wan0", World(hooked=frozenset(("lan0",)))),
    ("NOT_HOOKED", "ipsec0", interface(hooked=frozenset(("lan0",)))),
    ("OUTBOUND_ONLY", "offload", World(config=config("offload: {mode: outbound-only}"))),
    ("NO_GUARD", "meta_ipsec_netdev", World(without="meta_ipsec_netdev")),
    ("WAN_NOT_CONFIGURED", "dmz0", World(routes={**ROUTES, f"{PEER}/32": Route(9)})),
    ("OVER_MTU", "1446", World(query=replace(QUERY, size=1447))),
    ("OVER_MTU", "lan0", World(query=replace(QUERY, size=1400), links=(replace(LAN, mtu=1300), WAN))),
    ("OVER_MTU", "1400", interface(query=replace(QUERY, size=1401))),
    ("FALLBACK_SA", "0xc0000001", World(sas=PER_CPU, growth={OUT.key: 4})),
    ("FALLBACK_SA", "its CPU", interface(sas=tuple(sa._replace(if_id=42) for sa in PER_CPU), growth={OUT.key: 4})),
    ("NOT_TRACKED", "flowfast show flows", World(flow=None)),
]
APPLIED = World().state().ruleset


@pytest.mark.parametrize(("code", "text", "world"), CASES, ids=[f"{code}-{text}" for code, text, _ in CASES])
def test_the_reason_is_named(code: str, text: str, world: World) -> None:
    answer = world.answer()
    assert answer.reason is not None
    assert answer.reason.code == code
    assert text in str(answer.reason)
    harmless = {"FOREIGN_FLOWTABLE", "FALLBACK_SA"}
    assert answer.fast is (code in harmless)


def test_every_reason_is_tried() -> None:
    sources = [Path(str(module.__file__)).read_text() for module in (creation, explain)]
    codes = {code for source in sources for code in re.findall(r'Reason\(\s*"([A-Z_]+)"', source)}
    assert codes - {"MTU", "FRAGMENTS_AND_OPTIONS"} <= {code for code, _, _ in CASES}


@pytest.mark.parametrize("world", [World(), FAST_INTERFACE], ids=["policy", "interface"])
def test_a_fast_connection_has_no_reason_but_its_limits(world: World) -> None:
    answer = world.answer()
    assert answer.fast
    assert answer.reason is None
    assert (answer.tx.sa, answer.rx.sa) == tuple(world.sas)
    assert [hint.code for hint in answer.hints] == ["MTU", "FRAGMENTS_AND_OPTIONS"]


def test_the_first_reason_is_that_which_is_decided_first() -> None:
    """All is wrong at once; what is mended one by one shows the next."""
    wrong = tcp(tcp_state=TcpState.FIN_WAIT, helper="ftp", established=False)
    world = World(flow=wrong, config=config("exclude: {ports: [443]}"), sas=(IN,), applied=nothing)
    world.routes = {**ROUTES, "10.1.0.0/24": Route(9)}
    codes = []
    for mend in (
        {},
        {"applied": as_read},
        {"flow": replace(wrong, established=True)},
        {"routes": ROUTES},
        {"config": config()},
        {"sas": (OUT, IN)},
        {"flow": replace(FLOW, helper="ftp")},
        {"flow": FLOW},
    ):
        world = replace(world, **mend)
        reason = world.answer().reason
        assert reason is not None
        codes.append(reason.code)
    assert codes == [
        *("NOT_APPLIED", "NOT_ESTABLISHED", "LAN_NOT_CONFIGURED", "EXCLUDED", "NO_SA", "CLOSING", "HELPER", "NOT_YET")
    ]


# what would become of a connection


def test_of_no_connection_it_says_what_would_become_of_it() -> None:
    would = World(flow=None).answer()
    assert (would.fast, would.tx.fast, would.rx.fast) == (False, True, True)
    assert would.tunnel is not None
    assert would.tx.how == "bundle cached"
    never = World(flow=None, query=replace(QUERY, proto=1)).answer()
    assert never.tx.reason is not None
    assert never.tx.reason.code == "PROTOCOL"
    assert not never.tx.fast


def test_outbound_only_is_fast_one_way() -> None:
    answer = World(config=config("offload: {mode: outbound-only}")).answer()
    assert (answer.fast, answer.tx.fast, answer.rx.fast) == (False, True, False)


def test_what_is_slow_comes_before_what_is_only_worth_saying() -> None:
    answer = World(sas=PER_CPU, growth={OUT.key: 4}, config=config("offload: {mode: outbound-only}")).answer()
    assert answer.tx.reason is not None
    assert answer.reason is not None
    assert (answer.tx.fast, answer.tx.reason.code, answer.reason.code) == (True, "FALLBACK_SA", "OUTBOUND_ONLY")


def test_what_conntrack_did_not_say_is_no_reason() -> None:
    reason = World(flow=tcp(status=None, tcp_state=None)).answer().reason
    assert reason is not None
    assert reason.code == "NOT_YET"


def test_translated_within_the_tunnels_selectors_is_no_reason() -> None:
    flow = tcp(reply_dst="10.1.0.77", reply_dport=40000)
    reason = World(flow=flow).answer().reason
    assert reason is not None
    assert reason.code == "NOT_YET"


def test_enough_packets_are_no_reason() -> None:
    reason = World(flow=tcp(packets=(15, 5)), config=config("offload: {after_packets: 20}")).answer().reason
    assert reason is not None
    assert reason.code == "NOT_YET"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # Both hold; the rule of the first stands before that of the second (plan/ruleset.py, plan/filters.py).
        ("PROTOCOL", World(flow=replace(UDP, proto=1), query=Query("10.1.0.5", "10.2.0.9"), spd=TUNNEL_TO_TUNNEL)),
        ("NOT_ESTABLISHED", World(flow=replace(FLOW, established=False), spd=TUNNEL_TO_TUNNEL)),
        ("LAN_NOT_CONFIGURED", World(flow=tcp(helper="ftp"), routes={**ROUTES, "10.1.0.0/24": Route(9)})),
        (
            "IKE_PORT",
            World(
                flow=replace(UDP, dport=4500, reply_sport=4500),
                query=Query("10.1.0.5", "10.2.0.9"),
                config=config("exclude: {ports: [4500]}"),
            ),
        ),
        (
            "EXCLUDED",
            World(flow=tcp(packets=(1, 1)), config=config("exclude: {ports: [443]}\noffload: {after_packets: 9}")),
        ),
        ("AFTER_PACKETS", World(flow=tcp(packets=(1, 1)), sas=(), config=config("offload: {after_packets: 9}"))),
        ("MODE_NOT_ELIGIBLE", World(flow=tcp(tcp_state=TcpState.FIN_WAIT), spd=policies(mode=Mode.BEET))),
    ],
)
def test_of_two_reasons_the_earlier_rule_is_named(first: str, second: World) -> None:
    reason = second.answer().reason
    assert reason is not None
    assert reason.code == first


# which connection


@pytest.mark.parametrize(
    "query",
    [
        QUERY,
        Query("10.2.0.9", "10.1.0.5", 6, 443),
        Query("10.1.0.5", "10.2.0.9"),
        Query("10.2.0.9", "10.1.0.5", 6, 443, 50000),
        Query("10.1.0.5", "10.2.0.9", source_port=50000),
    ],
)
@pytest.mark.parametrize("opened_here", [True, False])
def test_either_end_may_come_first_whoever_opened_it(query: Query, *, opened_here: bool) -> None:
    flow = ON if opened_here else replace(tcp("10.2.0.9", "10.1.0.5"), offloaded=True)
    answer = World(flow=flow, query=query).answer()
    assert answer.flow is flow
    assert answer.fast
    assert (answer.packet.src, answer.packet.dst) == ("10.1.0.5", "10.2.0.9")


@pytest.mark.parametrize(
    "query",
    [
        replace(QUERY, port=80),
        replace(QUERY, port=50000),
        replace(QUERY, source_port=443),
        replace(QUERY, proto=17),
        replace(QUERY, src="10.1.0.6"),
    ],
)
def test_another_connection_is_not_meant(query: Query) -> None:
    assert explain.find(query, [ON]) == []


def test_a_translated_connection_has_either_name() -> None:
    """From the internet to 203.0.113.1:8443, which is 10.1.0.5:443 behind the router."""
    flow = replace(tcp("10.2.0.9", "203.0.113.1", dport=8443), reply_src="10.1.0.5", reply_sport=443)
    for query in (Query("10.2.0.9", "203.0.113.1", 6, 8443), Query("10.2.0.9", "10.1.0.5", 6, 443)):
        assert explain.find(query, [flow]) == [flow]


def test_both_families() -> None:
    query = Query("fd01::5", "fd02::9", 6, 443)
    flow = replace(tcp("fd01::5", "fd02::9"), offloaded=True)
    answer = World(flow=flow, query=query, spd=policies("fd01::/64", "fd02::/64")).answer()
    assert answer.fast
    assert answer.reason is None
    ready = World(flow=replace(flow, offloaded=False), query=query, spd=policies("fd01::/64", "fd02::/64")).answer()
    assert ready.reason is not None
    assert ready.reason.code == "NOT_YET"
    slow = World(flow=replace(flow, offloaded=False), query=query, sysctls={"net.ipv6.conf.all.forwarding": "0"})
    reason = slow.answer().reason
    assert reason is not None
    assert reason.object == "net.ipv6.conf.all.forwarding"


# which tunnel, which SA


def test_the_policy_that_comes_first_names_the_tunnel() -> None:
    narrow = policies("10.1.0.0/24", "10.2.0.0/24", "192.0.2.3", reqid=7, priority=10)
    answer = World(flow=FLOW, spd=(*policies(), *narrow)).answer()
    assert answer.tunnel is not None
    assert answer.tunnel.name == "reqid-7"
    by_port = policies(
        "10.1.0.0/24", "10.2.0.0/24", "192.0.2.3", reqid=7, priority=10, proto=6, dport=80, dport_mask=0xFFFF
    )
    answer = World(flow=FLOW, spd=(*policies(), *by_port)).answer()
    assert answer.tunnel is not None
    assert answer.tunnel.name == "reqid-1"


def test_of_several_peers_behind_one_interface_the_policy_tells() -> None:
    spd = (
        *policies("0.0.0.0/0", "10.2.0.0/16", if_id=42),
        *policies("0.0.0.0/0", "10.3.0.0/16", "192.0.2.3", reqid=2, if_id=42),
    )
    for remote, peer in (("10.2.0.9", PEER), ("10.3.0.9", "192.0.2.3")):
        flow = replace(tcp(dst=remote), offloaded=True)
        routes = {**FAST_INTERFACE.routes, "10.3.0.0/16": Route(3)}
        answer = interface(spd=spd, flow=flow, query=replace(QUERY, dst=remote), routes=routes).answer()
        assert answer.tunnel is not None
        assert answer.tunnel.key.remote == peer


def test_a_policy_of_another_protocol_is_not_asked() -> None:
    udp_alone = policies("10.1.0.0/24", "10.2.0.0/24", "192.0.2.3", reqid=7, priority=10, proto=17)
    answer = World(flow=FLOW, spd=(*policies(), *udp_alone)).answer()
    assert answer.tunnel is not None
    assert answer.tunnel.name == "reqid-1"


def test_a_tunnel_with_an_interface_that_is_down_elsewhere_may_yet_be_up() -> None:
    """SAs that live in another network namespace may not be in sight."""
    there = replace(IPSEC, underlay_netns=0)
    spd = {"underlay": Spd((), policies("0.0.0.0/0", "0.0.0.0/0", if_id=42))}
    reason = interface(flow=FLOW, spd=(), sas=(), links=(LAN, WAN, there), underlay=spd).answer().reason
    assert reason is not None
    assert reason.code == "NOT_YET"
    gone = interface(flow=FLOW, sas=()).answer().reason
    assert gone is not None
    assert gone.code == "NO_SA"


def test_sas_in_another_network_namespace() -> None:
    there = replace(IPSEC, underlay_netns=0)
    spd = Spd(FAST_INTERFACE.sas, policies("0.0.0.0/0", "0.0.0.0/0", if_id=42))
    answer = interface(spd=(), sas=(), links=(LAN, WAN, there), underlay={"underlay": spd}).answer()
    assert answer.fast
    assert answer.tx.sa == FAST_INTERFACE.sas[0]
    unseen = interface(spd=(), sas=(), links=(LAN, WAN, there)).answer()
    assert unseen.fast
    assert unseen.tx.sa is None


def test_the_youngest_sa_carries_what_goes_out() -> None:
    young = OUT._replace(spi=5, counters=OUT.counters._replace(add_time=OUT.counters.add_time + 60))
    answer = World(sas=(young, OUT, IN)).answer()
    assert (answer.tx.sa, answer.tx.sas) == (young, (young,))


def test_of_sas_by_cpu_the_one_that_carried_packets_is_it() -> None:
    quiet = World(sas=PER_CPU).answer()
    assert quiet.tx.sa is None
    assert len(quiet.tx.sas) == 3
    one = World(sas=PER_CPU, growth={PER_CPU[2].key: 9}).answer()
    assert one.tx.sa == PER_CPU[2]
    assert one.reason is None
    two = World(sas=PER_CPU, growth={PER_CPU[1].key: 1, PER_CPU[2].key: 9}).answer()
    assert two.tx.sa is None


# without a config


def test_without_a_config_the_kernel_alone_is_asked() -> None:
    answer = World(config=None).answer()
    assert answer.fast
    assert answer.reason is None
    reason = World(config=None, hooked=frozenset(("lan0",))).answer().reason
    assert reason is not None
    assert (reason.code, reason.object) == ("NOT_HOOKED", "wan0")


def test_an_interface_that_promises_more_than_its_sa_has_room_for() -> None:
    wide = replace(IPSEC, mtu=1500)
    assert interface(links=(LAN, WAN, wide)).answer().mtu == 1446
    assert FAST_INTERFACE.answer().mtu == IPSEC.mtu


def test_the_mtu_that_was_discovered_on_the_way_counts() -> None:
    assert World(routes={**ROUTES, f"{PEER}/32": Route(2, mtu=1400)}).answer().mtu == 1346


def test_without_routing_nothing_is_said_of_devices() -> None:
    answer = World(routes=None, hooked=frozenset()).answer()
    assert answer.fast
    assert answer.mtu is None
