"""NICs that do not do what they took over: told from two looks at the SAs in them."""

from dataclasses import replace
from typing import Any

from flowfast.metrics.collectors.nics import Nics
from flowfast.model.desired import Desired
from flowfast.model.link import Link
from flowfast.model.nic import ESP, Nic
from flowfast.model.reason import Severity
from flowfast.model.sa import SA, Offload, Replay
from flowfast.model.snapshot import Snapshot
from flowfast.model.state import CounterValue, RouterState
from flowfast.model.tunnel import TunnelPath
from flowfast.plan.fallback import fallen
from tests.unit.metrics.test_metrics_collectors import values
from tests.unit.metrics.world import FAST, PEER, US, sa, tunnel

WAN = Link(2, "wan0", None, True, 1500, rx_bytes=1000, tx_bytes=1000)
NIC = Nic("wan0", 2, "mlx5_core", on=frozenset({ESP}))


def out(octets: int, packets: int, at_cpu: int = 0, **more: Any) -> SA:
    return sa(1, octets, packets, **({"replay": Replay(at_cpu, 0, 0, True), "offload": Offload(2, 4)} | more))


def inward(octets: int, packets: int, at_cpu: int = 0, **more: Any) -> SA:
    fields = {"replay": Replay(0, at_cpu, 128, True), "offload": Offload(2, 6), "src": PEER, "dst": US} | more
    return sa(2, octets, packets, **fields)


def moment(*sas: SA, at: float = 0.0, wan: Link = WAN, full: int = 0) -> Snapshot:
    found = tunnel("t", [each for each in sas if each.src == US], [each for each in sas if each.src == PEER])
    state = RouterState(at, (wan,), sas=sas, nics=(NIC,))
    counters = {"out_t": CounterValue(full, full * 1000)}
    return Snapshot(state, Desired(paths=(TunnelPath(found, FAST, FAST),)), full_path=counters)


def said(before: Snapshot, now: Snapshot) -> list[tuple[str, str]]:
    return [(reason.code, reason.object) for reason in fallen(before, now)]


def test_a_nic_that_does_its_work_is_no_news() -> None:
    busy = replace(WAN, rx_bytes=9_000_000, tx_bytes=9_000_000)
    before, now = moment(out(0, 0), inward(0, 0)), moment(out(7, 9), inward(7, 9), at=10.0, wan=busy, full=900)
    assert said(before, now) == []


def test_sequence_numbers_that_go_on_say_that_the_cpu_did_it() -> None:
    before, now = moment(out(0, 0, 5), inward(0, 0)), moment(out(9, 9, 5), inward(9, 9, 9), at=10.0)
    (reason,) = fallen(before, now)
    assert (reason.code, reason.severity) == ("FELL_BACK", Severity.ERROR)
    assert reason.sentence == "its in SA is in wan0, but the CPU decrypted packets of it in the last 10 s"
    (encrypted,) = fallen(moment(out(0, 0)), moment(out(9, 9, 3), at=1.0))
    assert "the CPU encrypted packets" in encrypted.sentence


def test_what_happened_before_is_not_told_again() -> None:
    assert said(moment(inward(0, 0, 50)), moment(inward(9, 9, 50))) == []


def test_another_sa_under_the_same_spi_is_another_one() -> None:
    assert said(moment(inward(0, 0)), moment(inward(0, 0, 50, added=2000))) == []


def test_sas_of_the_cpu_and_of_crypto_offload_may_use_sequence_numbers() -> None:
    for offload in (None, Offload(2, 2)):
        before, now = moment(inward(0, 0, offload=offload)), moment(inward(9, 9, 9, offload=offload))
        assert said(before, now) == []


def test_devices_of_another_namespace_are_not_taken_for_ours() -> None:
    def elsewhere(snapshot: Snapshot) -> Snapshot:
        path = snapshot.desired.paths[0]
        away = replace(path.tunnel, key=path.tunnel.key._replace(netns="underlay"))
        return replace(snapshot, desired=Desired(paths=(replace(path, tunnel=away),)))

    assert said(elsewhere(moment(inward(0, 0))), elsewhere(moment(inward(9, 9, 9), at=10.0))) == []


def test_counters_that_stand_still_while_the_device_moves() -> None:
    busy = replace(WAN, tx_bytes=2_000_000)
    before, now = moment(out(5, 5), inward(5, 5)), moment(out(5, 5), inward(5, 5), wan=busy)
    assert said(before, now) == [("COUNTERS_STILL", "wan0")]
    assert said(before, moment(out(5, 5), inward(5, 5), wan=replace(WAN, tx_bytes=3000))) == []
    assert said(before, moment(out(5, 5), inward(5, 5), wan=replace(WAN, tx_bytes=None))) == []
    assert said(before, moment(out(8, 8), inward(5, 5), wan=busy)) == []


def test_counters_that_stand_still_while_the_tunnel_carries() -> None:
    assert said(moment(out(5, 5)), moment(out(5, 5), full=400)) == [("COUNTERS_STILL", "t")]
    assert said(moment(out(5, 5)), moment(out(5, 5), full=9)) == []
    assert said(moment(out(5, 5)), moment(out(400, 405), full=400)) == []


def test_the_metric_says_how_many_sas_fell_back() -> None:
    nics = Nics()

    def fallback(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
        return values(nics.collect(snapshot), "flowfast_nic_fallback_sas")

    assert fallback(moment(out(9, 9), inward(9, 9, 7))) == {("wan0", "in"): 0, ("wan0", "out"): 0}
    later = moment(out(9, 9), inward(9, 9, 9), at=10.0)
    assert fallback(later) == fallback(later) == {("wan0", "in"): 1, ("wan0", "out"): 0}  # however often it is scraped
    assert fallback(moment(out(9, 9), inward(9, 9, 9), at=20.0))["wan0", "in"] == 0
    assert fallback(moment(inward(9, 9, 2, added=2000), at=30.0)) == {("wan0", "in"): 0}


def test_metrics_of_devices() -> None:
    found = list(Nics().collect(moment(out(1, 1), inward(1, 1, offload=Offload(2, 2)))))
    assert values(found, "flowfast_nic_sas") == {("wan0", "crypto"): 1, ("wan0", "packet"): 1}
    assert values(found, "flowfast_nic_enabled") == {("wan0",): 1}
    assert values(found, "flowfast_nic_info") == {("wan0", "mlx5_core", "", ""): 1}
    assert values(found, "flowfast_nic_sa_limit") == {}
