"""What `flowfast show` lists, for people and programs, with a config and without."""

import json
import re
from pathlib import Path

import pytest

from flowfast.cli import COMMANDS
from flowfast.cli.facts import lifetime_used
from flowfast.cli.show import KINDS
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.probe import FakeProbe
from flowfast.kernel.xfrm.builders import ADDED, make_policy, make_sa
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.model.errors import FlowfastError
from flowfast.model.nic import ESP, Nic
from flowfast.model.sa import Direction, Encap, Lifetime, Mark, Mode, Offload
from flowfast.model.state import Flow
from tests.unit.cli.looking import IN, OUT, Flowfast, applied
from tests.unit.plan.router import IPSEC, PEER, US, bypass, policies


def rows(look: Flowfast, kind: str, *more: str) -> list[dict]:
    result = look("show", kind, *more, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)["rows"]


def table(look: Flowfast, *arguments: str) -> list[list[str]]:
    """The cells of every line, split where columns are at least two spaces apart."""
    result = look("show", *arguments)
    assert result.exit_code == 0, result.output
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in result.output.splitlines()]


def test_the_help_has_a_line_for_each_kind(look: Flowfast) -> None:
    said = look("show", "--help").output
    for kind in KINDS:
        assert re.search(rf"^  {kind} +\w", said, re.MULTILINE), kind
    assert all(kind in COMMANDS["show"][1] for kind in ("NICs", "offload", "bulking", "steering"))


def test_flows_with_their_tunnel_and_path(look: Flowfast, router: FakeKernel, site: str) -> None:
    head, *lines = table(look, "flows", site)
    assert head == ["connection", "tunnel", "path", "state", "bytes", "packets"]
    assert lines == [
        ["10.1.0.5:50000 -> 10.2.0.9:443 tcp", "berlin", "flowtable", "-", "91,000", "90"],
        ["10.1.0.5:50001 -> 10.2.0.9:21 tcp", "berlin", "l3", "ESTABLISHED", "30", "3"],
        ["10.1.0.5:5353 -> 198.51.100.7:53 udp", "-", "l3", "unanswered", "-", "-"],
    ]
    assert [row["dport"] for row in rows(look, "flows", site, "--tunnel", "berlin")] == [443, 21]
    assert [row["dport"] for row in rows(look, "flows", site, "--offloaded")] == [443]
    assert rows(look, "flows", site)[2]["bytes"] is None


def test_flows_of_ipv6_are_not_taken_for_markup(look: Flowfast, router: FakeKernel, site: str) -> None:
    router.conntrack.held = [Flow(10, 6, "fd01::5", "fd02::9", 5, 6, "fd02::9", "fd01::5", 6, 5, False, False, True)]
    assert table(look, "flows", site)[1][0] == "[fd01::5]:5 -> [fd02::9]:6 tcp"


def test_where_conntrack_cannot_be_read(look: Flowfast, router: FakeKernel, site: str) -> None:
    router.probe = FakeProbe(missing=["conntrack"])
    assert "[NO_CONNTRACK]" in look("show", "flows", site).output
    said = json.loads(look("show", "flows", site, "--json").output)
    assert (said["rows"], said["reason"]["code"]) == ([], "NO_CONNTRACK")


def test_the_limit_says_what_it_hides(look: Flowfast, site: str) -> None:
    *_, last = look("show", "flows", site, "--limit", "1").output.splitlines()
    assert last == "and 2 more (--limit 0 shows all)"
    said = json.loads(look("show", "flows", site, "--limit", "1", "--json").output)
    assert (said["total"], len(said["rows"])) == (3, 1)
    assert len(rows(look, "flows", site, "--limit", "0")) == 3


def test_sas_say_all_but_their_keys(look: Flowfast, router: FakeKernel, site: str) -> None:
    router.xfrm.put(
        make_sa(
            US,
            PEER,
            0xC1000001,
            pcpu=1,
            encap=Encap(2, 4500, 4501),
            offload=Offload(2, 4),
            oseq=7,
            size=1400,
            packets=1,
        )._replace(lifetime=Lifetime(hard_bytes=2800)),
        make_sa("198.51.100.1", "198.51.100.2", 5, direction=None, mode=Mode.TRANSPORT),
    )
    found = {row["spi"]: row for row in rows(look, "sa", site)}
    young = found[0xC1000001]
    assert (young["tunnel"], young["direction"], young["pcpu"], young["mode"]) == ("berlin", "out", 1, "tunnel")
    assert (young["encap"], young["offload"], young["sequence"]) == ("udp 4500-4501", "packet", 7)
    assert (young["bytes"], young["packets"], young["lifetime_used"]) == (1400, 1, 0.5)
    assert (found[OUT.spi]["lifetime_used"], found[OUT.spi]["pcpu"], found[OUT.spi]["encap"]) == (None, None, None)
    router.xfrm.count(US, 0xC0000002, 100, 3)
    inbound = next(row for row in rows(look, "sa", site) if row["spi"] == 0xC0000002)
    assert (inbound["direction"], inbound["sequence"], inbound["replay_window"]) == ("in", 3, 128)
    assert (found[5]["tunnel"], found[5]["direction"], found[5]["mode"]) == (None, None, "transport")
    assert [row["spi"] for row in rows(look, "sa", site, "--tunnel", "berlin")] == [OUT.spi, 0xC1000001, 0xC0000002]
    assert not [key for row in found.values() for key in row if "key" in key]
    line = next(line for line in look("show", "sa", site).output.splitlines() if "0xc1000001" in line)
    assert "50%" in line


@pytest.mark.parametrize(
    ("life", "used"),
    [
        (Lifetime(), None),
        (Lifetime(hard_add_seconds=3600), 0.5),
        (Lifetime(hard_add_seconds=3600, hard_packets=40), 0.75),
        (Lifetime(hard_use_seconds=100), None),
        (Lifetime(soft_bytes=1), None),
    ],
)
def test_the_nearest_limit_counts(life: Lifetime, used: float | None) -> None:
    assert lifetime_used(make_sa(packets=30, size=100)._replace(lifetime=life), ADDED + 1800) == used


def test_tunnels_and_the_paths_they_are_meant_to_take(look: Flowfast, router: FakeKernel, site: str) -> None:
    (tunnel,) = rows(look, "tunnels", site)
    assert (tunnel["tunnel"], tunnel["remote"], tunnel["sas_in"], tunnel["sas_out"]) == ("berlin", PEER, 1, 1)
    assert (tunnel["mtu"], tunnel["tx_path"]) == (1446, "flowtable (bundle cached)")
    Path(site).write_text(Path(site).read_text() + "offload: {mode: outbound-only}\n")
    assert rows(look, "tunnels", site)[0]["rx_path"] == "full path [OUTBOUND_ONLY]"
    (unnamed,) = rows(look, "tunnels")
    assert (unnamed["tunnel"], unnamed["tx_path"]) == ("reqid-1", None)


def test_devices_with_role_hook_and_guard(look: Flowfast, router: FakeKernel, site: str) -> None:
    router.links.set(IPSEC)
    router.nft.device_came("ipsec0")
    before = {row["device"]: row for row in rows(look, "devices", site)}
    assert {name: row["role"] for name, row in before.items()} == {"lan0": "lan", "wan0": "wan", "ipsec0": "xfrm"}
    assert not any(row["hooked"] or row["guard"] for row in before.values())
    applied(router, site)
    after = {row["device"]: (row["hooked"], row["guard"]) for row in rows(look, "devices", site)}
    assert after == {"lan0": (True, False), "wan0": (True, True), "ipsec0": (True, False)}
    unknown = look("show", "devices")
    assert "no config: roles of devices" in unknown.output
    assert {row["role"] for row in rows(look, "devices")} == {None, "xfrm"}


def test_policies_and_what_becomes_of_them(look: Flowfast, router: FakeKernel, site: str) -> None:
    hidden = policies("10.1.4.0/24", "10.2.4.0/24", "192.0.2.2", reqid=1, priority=5000)
    router.xfrm._policies[:0] = hidden  # older than those that hide it
    router.xfrm.put(
        *bypass("10.1.9.0/24", "10.2.0.0/16"),
        make_policy("10.1.0.0/24", "203.0.113.0/24", tunnel=None, action=1, priority=5),
        *policies("10.1.0.0/16", "10.5.0.0/16", "192.0.2.2", reqid=5, mode=Mode.TRANSPORT),
        *policies("10.1.0.0/16", "10.6.0.0/16", "192.0.2.2", reqid=6, proto=6, dport=80, dport_mask=0xFFFF),
        *policies("10.1.0.0/16", "10.7.0.0/16", "192.0.2.2", reqid=7, if_id=7),
        make_policy("10.1.8.0/24", "10.8.0.0/24", mark=Mark(1, 0xFF), tunnel=None),
        make_policy(socket=True),
    )
    found = {(row["direction"], row["selector"]): row for row in rows(look, "policies", site)}

    def verdict(direction: str, selector: str) -> tuple[str, str]:
        return found[direction, selector]["verdict"], found[direction, selector]["why"]

    assert verdict("out", "10.1.0.0/16 -> 10.2.0.0/16") == ("fast", "bundle cached")
    assert verdict("fwd", "10.2.0.0/16 -> 10.1.0.0/16") == ("fast", "behind guard")
    assert verdict("in", "10.2.0.0/16 -> 10.1.0.0/16")[0] == "nothing"
    assert verdict("out", "10.1.9.0/24 -> 10.2.0.0/16") == ("nothing", "lets pass without IPsec")
    assert verdict("out", "10.1.0.0/24 -> 203.0.113.0/24")[1].startswith("blocks")
    assert verdict("fwd", "10.2.4.0/24 -> 10.1.4.0/24")[1].startswith("policies of higher priority")
    assert verdict("fwd", "10.5.0.0/16 -> 10.1.0.0/16")[0] == "guarded"
    assert verdict("out", "10.1.0.0/16 -> 10.5.0.0/16")[0] == "nothing"
    assert verdict("fwd", "10.6.0.0/16 -> 10.1.0.0/16 tcp dport 80")[0] == "nothing"
    assert verdict("out", "10.1.0.0/16 -> 10.7.0.0/16") == ("nothing", "no xfrm interface here has if_id 7")
    assert found["out", "10.1.8.0/24 -> 10.8.0.0/24"]["mark"] == "0x1/0xff"
    assert ("out", "10.1.0.0/24 -> 10.2.0.0/24") not in found  # of a socket
    assert {row["tunnel"] for row in rows(look, "policies", site, "--tunnel", "berlin")} == {"berlin"}


def test_policies_without_a_config(look: Flowfast, router: FakeKernel) -> None:
    router.xfrm.put(*policies("10.1.0.0/16", "10.5.0.0/16", "192.0.2.2", reqid=5, mode=Mode.BEET))
    found = {(row["direction"], row["selector"]): row["verdict"] for row in rows(look, "policies")}
    assert found["out", "10.1.0.0/16 -> 10.2.0.0/16"] == "fast"
    assert found["out", "10.1.0.0/16 -> 10.5.0.0/16"] == "nothing"


def test_a_row_is_one_line_whatever_is_in_it(look: Flowfast, router: FakeKernel, site: str) -> None:
    many = [p for n in range(40) for p in policies(f"10.1.{n}.0/24", f"10.9.{n}.0/24", priority=900)]
    router.xfrm.put(*many)
    for kind in KINDS:
        shown = look("show", kind, site, "--limit", "0").output.splitlines()
        lines = [line for line in shown if not line.endswith("[STEERING_OFF]")]  # a reason, below the rows
        assert len(lines) == 1 + len(rows(look, kind, site, "--limit", "0"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sa", "--tunnel", "berln"], 'no tunnel is named "berln" (did you mean "berlin"?)'),
        (["sa", "--tunnel", "x"], 'no tunnel is named "x" (flowfast show tunnels lists them)'),
        (["devices", "--tunnel", "berlin"], "--tunnel: devices belong to no tunnel (leave it out)"),
        (["sa", "--offloaded"], "--offloaded: only flows are on a flowtable, not sa (leave it out)"),
    ],
)
def test_bad_input_is_one_line(look: Flowfast, site: str, arguments: list[str], line: str) -> None:
    result = look("show", arguments[0], site, *arguments[1:])
    assert isinstance(result.exception, FlowfastError)
    assert (str(result.exception), result.exception.exit_code) == (line, 2)


def test_nothing_there(look: Flowfast, router: FakeKernel, site: str) -> None:
    router.conntrack.held = []
    assert look("show", "flows", site).output == "No flows are there.\n"
    assert rows(look, "flows", site) == []
    router.xfrm._sas.clear()
    assert look("show", "sa", site).output == "No SAs are there.\n"
    assert Direction.OUT == "out"  # what rows say of a direction is a plain word


# --- devices that take IPsec off the CPU


@pytest.fixture
def in_nic(router: FakeKernel) -> FakeKernel:
    """wan0 is a NIC; the SA that goes out is in it, the one that comes in is not."""
    features = frozenset({ESP, "tx-esp-segmentation"})
    router.nics.set(Nic("wan0", 0, "mlx5_core", on=features, handle="pci/0000:08:00.0", port=1, encap=False))
    router.xfrm = FakeXfrm(
        [OUT._replace(offload=Offload(2, 4), replay=OUT.replay._replace(oseq=7)), IN],
        [
            policy if policy.direction is Direction.FORWARD else policy._replace(offload=Offload(2, 4))
            for policy in policies()
        ],
    )
    return router


def test_nics_with_what_is_in_them(look: Flowfast, in_nic: FakeKernel, site: str) -> None:
    (row,) = rows(look, "nics", site)
    assert (row["device"], row["role"], row["enabled"], row["handle"]) == ("wan0", "wan", True, "pci/0000:08:00.0/1")
    assert (row["crypto_sas"], row["packet_sas"], row["policies"]) == (0, 1, 2)
    assert (row["encap_mode"], row["eswitch"], row["port_packet"], row["capacity"]) == ("none", None, None, None)
    _, line = table(look, "nics", site)
    assert (line[0], line[1], "esp-hw-offload, tx-esp-segmentation" in line) == ("wan0", "mlx5_core", True)


def test_policies_say_which_nic_they_are_in(look: Flowfast, in_nic: FakeKernel, site: str) -> None:
    found = {row["direction"]: row["offload"] for row in rows(look, "policies", site)}
    assert found == {"out": "wan0", "in": "wan0", "fwd": None}


def test_offload_says_where_each_sa_is_and_why_not(look: Flowfast, in_nic: FakeKernel, site: str) -> None:
    out, inward = rows(look, "offload", site)
    assert (out["offload"], out["device"], out["cpu_sequence"], out["why"]) == ("packet", "wan0", 7, [])
    assert (inward["wanted"], inward["offload"], inward["cpu_sequence"]) == ("packet", None, None)
    assert inward["reasons"][0]["code"] == "NOT_OFFLOADED"
    assert "swanctl.conf: hw_offload = packet" in inward["reasons"][0]["remedy"]
    _, first, second, *below = table(look, "offload", site)
    assert (first[0:2], first[-1], second[-1]) == (["berlin", "out"], "-", "NOT_OFFLOADED")
    assert [line for line in below if line] == [
        [
            "warning: berlin: its in SA is not offloaded: wan0 could do packet offload, as far as is known "
            "(swanctl.conf: hw_offload = packet; ipsec.conf: nic-offload=packet) [NOT_OFFLOADED]"
        ]
    ]


def test_offload_says_what_keeps_a_tunnel_from_leaving(look: Flowfast, in_nic: FakeKernel, site: str) -> None:
    """Its SA is in the NIC, and there is nothing to be said against that; but the policy is not."""
    in_nic.xfrm = FakeXfrm([OUT._replace(offload=Offload(2, 4)), IN], policies())
    out, inward = rows(look, "offload", site)
    assert (out["offload"], out["why"], inward["why"]) == ("packet", ["POLICY_MISSING"], ["NOT_OFFLOADED"])
    assert any("[POLICY_MISSING]" in line[0] for line in table(look, "offload", site) if line)


def test_what_the_config_wants_of_nics(look: Flowfast, router: FakeKernel, tmp_path: Path) -> None:
    config = tmp_path / "nic.yaml"
    config.write_text("devices: {lan: [lan0], wan: [wan0]}\nnic_offload: crypto\n")
    assert [row["why"] for row in rows(look, "offload", str(config))] == [["NO_ESP_DEVICE"]] * 2
    assert [row["why"] for row in rows(look, "offload")] == [[], []]
