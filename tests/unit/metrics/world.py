"""A router on paper for the tests of metrics: tunnels with SAs, and one fixed moment with a bit of everything."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from flowfast.metrics.paths import PathBytes
from flowfast.model.bulk import Arrival, Bulked, BulkState, Choice, Figures, Side, Stage
from flowfast.model.comparison import Comparison, Factor
from flowfast.model.desired import Desired
from flowfast.model.link import Link
from flowfast.model.nic import ESP, Eswitch, Nic
from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import SA, Counters, Direction, Lifetime, Mode, Offload, Replay, Selector
from flowfast.model.snapshot import Reconciles, Snapshot, Traffic
from flowfast.model.state import CounterValue, Feature, Flow, RouterState
from flowfast.model.steering import Owner, Share, Steering
from flowfast.model.tunnel import Path, Selectors, Topology, Tunnel, TunnelKey, TunnelPath, identifier

US, PEER = "192.0.2.1", "192.0.2.2"
LIMITS = Lifetime(hard_add_seconds=3600, hard_bytes=256_000)
ANY = Selector(2, "0.0.0.0/0", "0.0.0.0/0")
FAST = Path(True, "bundle cached")
NO = Reason("NO_GUARD", "kernel", "without meta_ipsec_netdev no guard can be written", "kernel 5.11 or newer")
SLOW = Path(False, NO.sentence, NO)


def sa(
    spi: int, octets: int = 0, packets: int = 0, *, src: str = US, dst: str = PEER, added: int = 1000, **more: Any
) -> SA:
    """An outbound SA in tunnel mode that counted this much."""
    family = 10 if ":" in dst else 2
    fields: dict[str, Any] = {
        "proto": 50,
        "reqid": 1,
        "mode": Mode.TUNNEL,
        "flags": 0,
        "counters": Counters(octets, packets, added, None),
        "lifetime": Lifetime(),
        "selector": ANY,
        "replay": Replay(packets, 0, 128, False),
        "replay_window_errors": 0,
        "replay_errors": 0,
        "integrity_errors": 0,
        "algorithm": "rfc4106(gcm(aes))",
    }
    return SA(family=family, src=src, dst=dst, spi=spi, **(fields | more))


def tunnel(
    name: str = "t",
    outbound: Iterable[SA] = (),
    inbound: Iterable[SA] = (),
    *selectors: tuple[str, str],
    key: TunnelKey | None = None,
    topology: Topology = Topology.POLICY,
    interface: str | None = None,
) -> Tunnel:
    """A tunnel; selectors as (local, remote)."""
    return Tunnel(
        name,
        key or TunnelKey(1, 0, US, PEER),
        topology,
        tuple(Selectors(local, remote, 10 if ":" in local else 2, Mode.TUNNEL) for local, remote in selectors),
        tuple(inbound),
        tuple(outbound),
        interface,
    )


def snapshot(*tunnels: Tunnel, **more: Any) -> Snapshot:
    """A snapshot of these tunnels, all of them fast."""
    desired = Desired(paths=tuple(TunnelPath(each, FAST, FAST) for each in tunnels))
    return Snapshot(RouterState(0.0), desired, **more)


def counters(**octets: int) -> Mapping[str, CounterValue]:
    """Named nft counters, by their bytes."""
    return {name: CounterValue(value // 1000, value) for name, value in octets.items()}


def totals(**octets: int) -> Mapping[tuple[str, Direction], Traffic]:
    """A ledger's totals of tunnel `t`, by direction."""
    return {("t", Direction(way)): Traffic(value, value // 1000) for way, value in octets.items()}


def flow(src: str, dst: str, **more: Any) -> Flow:
    """A connection without NAT, on the flowtable unless told otherwise."""
    fields: dict[str, Any] = {
        "family": 10 if ":" in src else 2,
        "proto": 6,
        "sport": 40000,
        "dport": 443,
        "reply_src": dst,
        "reply_dst": src,
        "reply_sport": 443,
        "reply_dport": 40000,
        "offloaded": True,
        "hardware": False,
        "established": True,
    }
    return Flow(src=src, dst=dst, **(fields | more))


def fixed() -> Snapshot:
    """Two tunnels up, one down, one of an xfrm interface; flows, guards, features and reasons."""
    berlin = tunnel(
        "berlin",
        [
            sa(0xC0FFEE01, 128_000, 100, replay=Replay(2**31, 0, 0, False), pcpu=0),
            sa(0xC0FFEE02, 64_000, 50, offload=Offload(2, 4), lifetime=LIMITS),
        ],
        [sa(0xDEAD0001, 90_000, 70, src=PEER, dst=US, replay=Replay(0, 71, 128, True), replay_errors=3,
            replay_window_errors=2, integrity_errors=1, offload=Offload(2, 0))],
        ("10.1.0.0/16", "10.2.0.0/16"),
        ("fd01::/48", "fd02::/48"),
    )  # fmt: skip
    down = tunnel("down", key=TunnelKey(2, 0, US, "192.0.2.3"))
    office = tunnel(
        'of"fice\\1',
        [sa(0x42, 1000, 10, dst="2001:db8::2", src="2001:db8::1", reqid=3, if_id=42)],
        [],
        ("0.0.0.0/0", "0.0.0.0/0"),
        key=TunnelKey(3, 42, "2001:db8::1", "2001:db8::2", "underlay"),
        topology=Topology.CROSS_NETNS,
        interface="ipsec0",
    )
    features = (Feature("flowtable", True), Feature("meta_ipsec_netdev", False, NO))
    state = RouterState(
        1_764_000_000.25,
        (Link(1, "lan0", None, True, 1500), Link(2, "wan@7", None, True, 1500)),
        sas=(*berlin.outbound, *berlin.inbound),
        nics=(Nic("wan@7", 2, "mlx5_core", frozenset({ESP}), handle="pci/0000:08:00.0", eswitch=Eswitch.LEGACY),),
        features={feature.name: feature for feature in features},
        bulk=BulkState(
            arrivals={"lan0": Arrival(40, 0, 1600, 100), "wan@7": Arrival(3, 0, 99, 99)},
            chosen={"lan0": Choice(Stage.UDP, "", {Stage.UDP: Figures(16.0, 2.5e-6), Stage.OFF: Figures(1.0, None)})},
        ),
    )
    paths = (TunnelPath(berlin, FAST, SLOW), TunnelPath(down, SLOW, SLOW), TunnelPath(office, FAST, FAST))
    lan = Bulked("lan0", Side.LAN, "virtio_net", "auto", Stage.UDP, Stage.LIST, True)
    held = Reason("NOT_HELD", "wan@7", "the kernel does not hold it", severity=Severity.ERROR)
    now = Snapshot(
        state=state,
        desired=Desired(paths=paths, reasons=(NO, NO), steering=Steering((0, 1)), bulked=(lan,)),
        failures=(held,),
        elsewhere={
            Owner("berlin", Direction.IN, 0): Share(5, 2000),
            Owner("berlin", Direction.IN, 1): Share(0, 0),
            Owner("berlin", Direction.OUT, 1): Share(0, 40),
        },
        fallback={("berlin", Direction.OUT): Share(3, 600), ("berlin", Direction.IN): Share(0, 0)},
        full_path={
            "out_berlin": CounterValue(4, 4_000),
            "in_berlin": CounterValue(9, 9_000),
            "excluded_ports": CounterValue(31, 3_100),
            "excluded_conditions": CounterValue(2, 200),
        },
        xfrm_errors={"": {"XfrmInNoStates": 3, "XfrmOutSomethingNew": 0}, "underlay": {"XfrmInError": 1}},
        before_flowtable={
            "out_berlin": CounterValue(150, 192_000),
            "in_berlin": CounterValue(70, 90_000),
            "guard_" + identifier("wan@7"): CounterValue(17, 1_700),
            "guard_gone0": CounterValue(1, 60),
        },
        flows=(
            flow("10.1.0.5", "10.2.0.9"),
            flow("10.2.0.9", "10.1.0.5", dport=80, hardware=True),
        ),
        slow_flows=(
            flow("fd01::5", "fd02::9", offloaded=False),
            flow("198.51.100.1", "203.0.113.1", offloaded=False),
            flow("198.51.100.1", "203.0.113.1", offloaded=False, established=False),
        ),
        totals={
            ("berlin", Direction.OUT): Traffic(192_000, 150),
            ("berlin", Direction.IN): Traffic(2**60, 2**54 + 1),
            (office.name, Direction.OUT): Traffic(1_000, 10),
        },
        reconciles=Reconciles(12, 1, 3, 2, 1, 1_764_000_000.5, 0.0625),
        comparison=Comparison(1_763_990_000.0, Factor(2.0, 1.9, 2.125), {"berlin": Factor(1.5, None, None)}),
    )
    return replace(now, by_path=PathBytes().update(now))
