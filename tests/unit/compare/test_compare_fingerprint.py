"""The fingerprint: the same for the same router, another where something is that a factor depends on."""

from dataclasses import replace
from typing import Any

import pytest

from flowfast.compare.fingerprint import digest, fingerprint
from flowfast.kernel.hardware import Hardware, hardware
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.sa import Direction, Offload
from flowfast.plan.planner import plan
from tests.unit.plan.router import LAN, PEER, US, WAN, as_read, config, policies, router

FOREIGN = """\
table inet operator {
	set seen {
		type ipv4_addr
		flags timeout
		elements = { 10.0.0.1 timeout 1m expires 31s,
10.0.0.2 timeout 1m expires 32s }
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established accept
	}
}
"""
SAS = (make_sa(US, PEER, 1), make_sa(PEER, US, 2, direction=Direction.IN))


def taken(**changes: Any) -> dict[str, Any]:
    """Of one router, with changes."""
    settings = config(changes.pop("config", ""))
    state = replace(router(policies()), sas=changes.pop("sas", SAS), **changes.pop("state", {}))
    desired = plan(state, settings)
    state = replace(state, ruleset=as_read(desired.ruleset), hooked=frozenset({"lan0", "wan0"}))
    given = {
        "release": "7.2.12",
        "hardware": Hardware(4, "A CPU", {"lan0": {"rps": "f"}}),
        "sysctls": {"net.core.dev_weight": "64", "net.core.gro_normal_batch": None},
        "foreign": FOREIGN,
    }
    return fingerprint(state, desired, settings, **(given | changes))


def test_it_says_what_a_factor_depends_on() -> None:
    found = taken()
    assert found["kernel"] == "7.2.12"
    assert found["devices"]["lan0"]["mtu"] == 1500
    assert found["devices"]["lan0"]["rps"] == "f"
    assert found["hooks"]["flowtable"] == ["lan0", "wan0"]
    assert found["hooks"]["other_rules"] == 1
    assert found["tunnels"]["topologies"] == ["policy"]
    assert found["tunnels"]["sas"] == [
        "rfc4106(gcm(aes)), 160 bits, no offload, ESN, window 0",
        "rfc4106(gcm(aes)), 160 bits, no offload, ESN, window 128",
    ]
    assert found["sysctls"] == {"net.core.dev_weight": "64"}


@pytest.mark.parametrize(
    "changes",
    [
        {"release": "7.2.13"},
        {"hardware": Hardware(8, "A CPU", {"lan0": {"rps": "f"}})},
        {"hardware": Hardware(4, "A CPU", {"lan0": {"rps": "0"}})},
        {"sysctls": {"net.core.dev_weight": "128"}},
        {"foreign": FOREIGN.replace("accept", "drop")},
        {"config": "notrack: true"},
        {"config": "accounting: precise"},
        {"state": {"links": (replace(LAN, mtu=9000), WAN)}},
        {"state": {"links": (replace(LAN, features=frozenset({"rx-gro"})), WAN)}},
        {"state": {"links": (replace(LAN, num_rx_queues=4), WAN)}},
        {"sas": (SAS[0]._replace(offload=Offload(2, 4)), SAS[1])},
        {"sas": tuple(sa._replace(algorithm="rfc7539esp(chacha20,poly1305)") for sa in SAS)},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_what_matters_changes_it(changes: dict[str, Any]) -> None:
    assert digest(taken(**changes)) != digest(taken())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"foreign": FOREIGN.replace("31s", "7s")},
        {"sas": tuple(sa._replace(spi=sa.spi + 100, counters=sa.counters._replace(bytes=5)) for sa in SAS)},
        {"sas": (*SAS, make_sa(US, PEER, 9))},
        {"state": {"links": (replace(LAN, features=frozenset({"tx-nocache-copy"})), WAN)}},
    ],
    ids=["nothing", "an element's age", "a rekey", "two generations", "a feature of no matter"],
)
def test_what_does_not_matter_does_not(changes: dict[str, Any]) -> None:
    assert digest(taken(**changes)) == digest(taken())


def test_this_machine_has_cpus() -> None:
    found = hardware(["lo", "no-such-device"])
    assert found.cpus >= 1
    assert set(found.knobs) == {"lo", "no-such-device"}
    assert found.knobs["no-such-device"] == {}
