"""strongSwan with `hw_offload = packet` on a device that does all of ESP (espsim), and flowfast beside it.

A real IKE daemon puts SAs and policies into gw1's wan0, moves to new SAs, and takes them down again; flowfast is
applied, rolled back, restarted and removed meanwhile. gw2 does ESP in software.
"""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowfast.lab.espsim import setting
from flowfast.lab.ike import Daemon, connections
from flowfast.lab.plaintext import plaintext
from flowfast.lab.topology import TwoGateways
from tests.guest.devices import back, offloading, rows, there
from tests.guest.oneshot import FullPath, apply, flowfast, meet, metrics, running

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3), pytest.mark.long(seconds=180)]

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\nnic_offload: packet\n"


@pytest.fixture
def topo() -> Iterator[TwoGateways]:
    with offloading() as topo:
        yield topo


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "site.yaml").write_text(CONFIG)
    return str(tmp_path / "site.yaml")


@contextmanager
def daemons(topo: TwoGateways, **options: Any) -> Iterator[Daemon]:
    """strongSwan on both gateways, gw1's with packet offload."""
    (peering,) = topo.peerings
    left, right = connections(peering, hw_offload="packet", **options)
    right = replace(right, children=tuple(replace(child, hw_offload="no") for child in right.children))
    secret = secrets.token_urlsafe(32)
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(topo.gw1, (left,), secret))
        stack.enter_context(Daemon(topo.gw2, (right,), secret))
        yield daemon


def in_nic(topo: TwoGateways, config: str) -> set[int]:
    """The SPIs of gw1's SAs, which must all be in its NIC, with nothing to be said against, and nothing for the CPU."""
    found = rows(topo.gw1, "offload", config)
    assert {(row["offload"], row["device"], tuple(row["why"]), row["cpu_sequence"]) for row in found} == {
        ("packet", "wan0", (), 0)
    }
    return {row["spi"] for row in found}


def test_its_sas_are_in_the_nic_and_stay_there(topo: TwoGateways, config: str, tmp_path: Path) -> None:
    def all_is_fast() -> None:
        there(topo, rounds=5)
        back(topo, rounds=5)
        with FullPath(topo.gw1) as seen:
            there(topo, rounds=100)
            back(topo, rounds=100)
        assert seen.packets < 20
        assert plaintext(topo.gw2) == setting("tx_missed") == setting("tx_secpath") == 0

    with daemons(topo) as ike:
        ike.initiate("net0")
        first = in_nic(topo, config)
        assert len(first) == 2
        (nic,) = [row for row in rows(topo.gw1, "nics", config) if row["device"] == "wan0"]
        assert (nic["packet_sas"], nic["crypto_sas"]) == (2, 0)
        spd = [row for row in rows(topo.gw1, "policies", config) if row["tunnel"] is not None]
        assert {row["direction"]: row["offload"] for row in spd} == {"out": "wan0", "in": "wan0", "fwd": None}
        # And what lets IKE pass: UDP ports 500 and 4500, of both families, in and out.
        assert nic["policies"] == 2 + 8
        meet(topo)
        said = apply(topo.gw1, config)
        assert not said.reasons
        assert said.fast("tx") == said.fast("rx") == {True}
        all_is_fast()
        assert in_nic(topo, config) == first

        (before,) = ike.list_sas()
        ike.rekey("net0")
        ike.wait_rekeyed("net0", {before.spi_in})
        second = in_nic(topo, config)
        assert not second & first
        all_is_fast()

        flowfast(topo.gw1, "rollback")
        there(topo)
        assert in_nic(topo, config) == second
        for _ in range(2):
            with running(topo.gw1, config, tmp_path / "log"):
                all_is_fast()
                page = topo.gw1.call(metrics)
                assert "FELL_BACK" not in page
                assert 'flowfast_nic_fallback_sas{device="wan0",direction="in"} 1' not in page
        all_is_fast()
        assert in_nic(topo, config) == second
        flowfast(topo.gw1, "apply", "--remove")
        there(topo)
        assert in_nic(topo, config) == second
        ike.terminate("net0")
        assert rows(topo.gw1, "offload", config) == []


def test_a_trap_in_the_nic_brings_its_tunnel_up(topo: TwoGateways, config: str) -> None:
    """Policies are in the NIC before any SA is: nothing is wrong with that, and the first packet fetches the SA."""
    with daemons(topo, start_action="trap"):
        said = apply(topo.gw1, config)
        assert said.reasons.isdisjoint({"SA_MISSING", "POLICY_MISSING", "NOT_OFFLOADED"})
        meet(topo)
        assert len(in_nic(topo, config)) == 2
        assert plaintext(topo.gw2) == 0
