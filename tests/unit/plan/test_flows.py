"""Connections by tunnel, many at once."""

from dataclasses import replace

from flowfast.kernel.routes import FakeRoutes
from flowfast.model.route import Route
from flowfast.model.state import Flow
from flowfast.plan.flows import Owners, directions, end_text, name, proto_number, proto_text
from flowfast.plan.tunnels import find_tunnels
from tests.unit.plan.router import IPSEC, LAN, WAN, bypass, config, policies, router


def flow(src: str, dst: str, reply_src: str = "", reply_dst: str = "") -> Flow:
    family = 10 if ":" in src else 2
    return Flow(family, 17, src, dst, 1, 2, reply_src or dst, reply_dst or src, 2, 1, True, False, True)


def owners(*spd: tuple, links: tuple = (LAN, WAN), routes: dict[str, Route] | None = None) -> Owners:
    state = router(*spd, links=links)
    return Owners(state, find_tunnels(state, config()), FakeRoutes(routes).route if routes else None)


def names(of: Owners, *flows: Flow) -> list[list[str]]:
    return [[tunnel.name for tunnel in of.of(flow)] for flow in flows]


def test_whoever_opened_it_and_whatever_nat_did() -> None:
    of = owners(policies(), policies("fd01::/64", "fd02::/64", reqid=6))
    assert names(
        of,
        flow("10.1.0.5", "10.2.0.9"),
        flow("10.2.0.9", "10.1.0.5"),
        flow("10.2.0.9", "203.0.113.1", reply_src="10.1.0.5"),  # DNAT: in the tunnel it has the address outside
        flow("192.168.7.5", "10.2.0.9", reply_dst="10.1.0.1"),
        flow("fd02::9", "fd01::5"),
        flow("10.1.0.5", "198.51.100.7"),
    ) == [["reqid-1"], ["reqid-1"], [], ["reqid-1"], ["reqid-6"], []]


def test_from_one_tunnel_into_another_is_both() -> None:
    of = owners(policies(), policies("10.2.0.0/16", "10.1.0.0/16", "192.0.2.3", reqid=2))
    assert names(of, flow("10.1.0.5", "10.2.0.9")) == [["reqid-1", "reqid-2"]]


def test_the_policy_that_comes_first_owns_it() -> None:
    of = owners(policies(), bypass("10.1.5.0/24", "10.2.0.0/16"))
    assert names(of, flow("10.1.5.5", "10.2.0.9"), flow("10.1.6.5", "10.2.0.9")) == [[], ["reqid-1"]]


def test_what_an_interface_carries_is_told_by_the_route() -> None:
    spd, links = policies("0.0.0.0/0", "0.0.0.0/0", if_id=42), (LAN, WAN, IPSEC)
    through = flow("10.1.0.5", "10.2.0.9")
    routes = {"10.2.0.0/16": Route(3), "10.1.0.0/16": Route(1)}
    assert names(owners(spd, links=links, routes=routes), through, flow("10.2.0.9", "10.1.0.5")) == [["ipsec0"]] * 2
    assert names(owners(spd, links=links), through) == [[]]
    assert names(owners(spd, links=links, routes={"0.0.0.0/0": Route(2)}), through) == [[]]


def test_the_route_is_asked_once_for_each_end() -> None:
    asked = []

    def route(dst: str, _src: str | None, _iif: int | None) -> Route | None:
        asked.append(dst)
        return None

    state = router(policies("0.0.0.0/0", "0.0.0.0/0", if_id=42), links=(LAN, WAN, IPSEC))
    of = Owners(state, find_tunnels(state, config()), route)
    for port in range(9):
        of.of(replace(flow("10.1.0.5", "10.2.0.9"), sport=port))
        of.of(flow("10.1.0.6", "10.2.0.9"))
    assert sorted(asked) == ["10.1.0.5", "10.1.0.6", "10.2.0.9"]


def test_how_a_connection_is_called() -> None:
    assert name(flow("10.1.0.5", "10.2.0.9")) == "10.1.0.5:1 -> 10.2.0.9:2 udp"
    assert name(replace(flow("fd01::5", "fd02::9"), proto=58, sport=0, dport=0)) == "fd01::5 -> fd02::9 icmpv6"
    assert (end_text("fd01::5", 443), end_text("fd01::5", None)) == ("[fd01::5]:443", "fd01::5")
    assert (proto_number("TCP"), proto_number("17"), proto_number("256"), proto_number("tpc")) == (6, 17, None, None)
    assert proto_text(200) == "200"


def test_each_direction_as_seen_and_as_sent() -> None:
    """Of 192.168.7.5 to a service that is 10.2.0.9 behind NAT, with the router's 10.1.0.1 as its source."""
    forth, back = directions(flow("192.168.7.5", "203.0.113.1", "10.2.0.9", "10.1.0.1"))
    assert (forth.seen.src, forth.seen.dst, forth.sent.src, forth.sent.dst) == (
        *("192.168.7.5", "10.2.0.9"),
        *("10.1.0.1", "10.2.0.9"),
    )
    assert (back.seen.src, back.seen.dst, back.sent.src, back.sent.dst) == (
        *("10.2.0.9", "192.168.7.5"),
        *("203.0.113.1", "192.168.7.5"),
    )
