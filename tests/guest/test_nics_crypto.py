"""Crypto offload, on netdevsim: what is in the device is seen as it is, what it refuses is said as the kernel says it,
and nothing that flowfast does takes an SA out of it.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowfast.kernel.xfrm import Aead, AsyncXfrmSocket, Auth, SAConfig
from flowfast.kernel.xfrm.config import Crypt
from flowfast.lab.ike import two_daemons
from flowfast.lab.netns import Netns
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.model.errors import KernelError
from flowfast.model.sa import Direction, Encap, Mode, Offload, Policy, Selector, Template
from tests.guest.devices import CRYPTO, PEER, US, NetdevSims, books, index_of, rows, sa, secure, with_xfrm
from tests.guest.oneshot import apply, flowfast, running

pytestmark = pytest.mark.guest(images=["debian14"], nics=3)

CONFIG = "devices: {lan: [lan0], wan: [wan0]}\nnic_offload: crypto\n"
KEY = bytes(20)


@pytest.fixture(scope="module")
def topo() -> Iterator[TwoGateways]:
    wires = NetdevSims()
    try:
        with two_gateways("policy", families=(4,), wan=wires, lan=wires) as topo:
            yield topo
            for ns in (topo.gw1, topo.gw2):
                clean(ns)
    finally:
        wires.close()


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "site.yaml").write_text(CONFIG)
    return str(tmp_path / "site.yaml")


def clean(ns: Netns) -> None:
    ns.run(["ip", "xfrm", "state", "flush"])
    ns.run(["ip", "xfrm", "policy", "flush"])


def nic(ns: Netns, device: str = "wan0") -> dict[str, Any]:
    (found,) = [row for row in rows(ns, "nics") if row["device"] == device]
    return found


def count() -> int:
    """SAs in gw1's wan0, by its own books."""
    found = re.match(r"SA count=(\d+) ", books(1 + WAN_PAIR))
    assert found is not None
    return int(found[1])


WAN_PAIR = 2
"""The LAN's pair of netdevsims is made first: gw1's wan0 is the third."""


def test_the_inventory_says_what_ethtool_and_devlink_say(topo: TwoGateways) -> None:
    found = nic(topo.gw1)
    assert (found["driver"], found["enabled"], found["capacity"]) == ("netdevsim", True, 33)
    assert found["on"] == ["esp-hw-offload", "esp-tx-csum-hw-offload", "tx-esp-segmentation"]
    assert (found["handle"], found["eswitch"], found["port_packet"]) == ("netdevsim/netdevsim3/0", "legacy", None)
    topo.gw1.run(["ethtool", "-K", "wan0", "esp-hw-offload", "off"])
    topo.gw1.run(["devlink", "dev", "eswitch", "set", "netdevsim/netdevsim3", "mode", "switchdev"])
    try:
        changed = nic(topo.gw1)
        assert (changed["enabled"], changed["eswitch"]) == (False, "switchdev")
        assert "esp-hw-offload" in changed["off"]
    finally:
        topo.gw1.run(["devlink", "dev", "eswitch", "set", "netdevsim/netdevsim3", "mode", "legacy"])
        topo.gw1.run(["ethtool", "-K", "wan0", "esp-hw-offload", "on"])
    assert nic(topo.gw1)["enabled"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "packet offload": ({"packet": True}, "Unsupported ipsec offload type"),
    "ESN": ({"esn": True}, "Device doesn't support offload with ESN"),
    "a short ICV": ({"aead": Aead("rfc4106(gcm(aes))", KEY, 64)}, "Failed to get key data for SA table"),
    "no AEAD": (
        {"aead": None, "crypt": Crypt("cbc(aes)", bytes(16)), "auth": Auth("hmac(sha256)", bytes(32))},
        "Failed to get key data for SA table",
    ),
    "an inbound if_id": ({"if_id": 42, "inbound": True}, "XFRM if_id is not supported in RX path"),
    "TFC": ({"tfc_pad": 64}, "TFC padding can't be offloaded"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_device_does_not_take_fails_in_the_kernels_words(topo: TwoGateways, case: str) -> None:
    more, words = REFUSED[case]
    more = dict(more)
    direction = Direction.IN if more.pop("inbound", False) else Direction.OUT
    flags = (4 if more.pop("packet", False) else CRYPTO) | (2 if direction is Direction.IN else 0)
    wanted = replace(sa(direction, KEY), **({"esn": False, "replay_window": 0} | more))
    offload = Offload(index_of(topo.gw1, "wan0"), flags)

    async def add(xfrm: AsyncXfrmSocket) -> None:
        with pytest.raises(KernelError, match=re.escape(words)):
            await xfrm.add_sa(replace(wanted, offload=offload))

    try:
        with_xfrm(topo.gw1, add)
        assert count() == 0
    finally:
        clean(topo.gw1)


@pytest.mark.long
def test_it_has_room_for_so_many(topo: TwoGateways) -> None:
    device = index_of(topo.gw1, "wan0")
    room = nic(topo.gw1)["capacity"]

    async def fill(xfrm: AsyncXfrmSocket) -> None:
        for number in range(room):
            one = replace(sa(Direction.OUT, KEY), spi=0x3000 + number, esn=False, offload=Offload(device, CRYPTO))
            await xfrm.add_sa(one)
        with pytest.raises(KernelError, match="No space for SA in Rx table!"):
            await xfrm.add_sa(replace(one, spi=0x4000))

    try:
        with_xfrm(topo.gw1, fill)
        assert (count(), nic(topo.gw1)["crypto_sas"]) == (room, room)
    finally:
        clean(topo.gw1)


OUT = replace(sa(Direction.OUT, KEY), esn=False)
HOSTS = Selector(2, f"{US}/32", f"{PEER}/32")
KINDS: dict[str, SAConfig] = {
    "NOT_OFFLOADED": OUT,
    "ICV_NOT_128": replace(OUT, aead=Aead("rfc4106(gcm(aes))", KEY, 96)),
    "NOT_AES_GCM": replace(OUT, aead=Aead("rfc7539esp(chacha20,poly1305)", bytes(36))),
    "ESN_UNSUPPORTED": replace(OUT, esn=True),
    "MODE_BEET": replace(OUT, mode=Mode.BEET, selector=HOSTS),
    "MODE_IPTFS": replace(OUT, mode=Mode.IPTFS),
    "ENCAP": replace(OUT, encap=Encap(2, 4500, 4500)),
    "TFC": replace(OUT, tfc_pad=64),
    "IF_ID_INBOUND": replace(sa(Direction.IN, KEY), esn=False, replay_window=32, if_id=42),
    "IPCOMP": SAConfig(src=US, dst=PEER, spi=0x77, proto=108, reqid=1, compression="deflate"),
    "NOT_ESP": SAConfig(src=US, dst=PEER, spi=0x78, proto=51, reqid=1, auth=Auth("hmac(sha256)", bytes(32))),
}
"""SAs in software, by what `show offload` says is in the way of each, and nothing else."""


@pytest.mark.long
@pytest.mark.parametrize("code", KINDS)
def test_every_code_of_an_sa_that_the_kernel_has(topo: TwoGateways, config: str, code: str) -> None:
    wanted = KINDS[code]
    template = Template(2, US, PEER, wanted.proto, 0, 1, wanted.mode)
    selector = Selector(2, "10.1.0.0/16", "10.2.0.0/16")
    policy = Policy(selector, Direction.OUT, 0, 1000, 0, (template,), wanted.if_id)

    async def install(xfrm: AsyncXfrmSocket) -> None:
        await xfrm.add_sa(wanted)
        await xfrm.add_policy(policy)

    try:
        with_xfrm(topo.gw1, install)
        (row,) = rows(topo.gw1, "offload", config)
        assert (row["offload"], row["device"], row["why"]) == (None, "wan0", [code])
        assert "swanctl.conf: " in row["reasons"][0]["remedy"]
    finally:
        clean(topo.gw1)


@pytest.mark.long
def test_a_feature_that_is_switched_off(topo: TwoGateways, config: str) -> None:
    try:
        secure(topo, sas=(), spd=())
        topo.gw1.run(["ethtool", "-K", "wan0", "esp-hw-offload", "off"])
        said = [row["reasons"] for row in rows(topo.gw1, "offload", config)]
        assert all("ethtool -K wan0 esp-hw-offload on" in str(reasons) for reasons in said)
    finally:
        topo.gw1.run(["ethtool", "-K", "wan0", "esp-hw-offload", "on"])
        for ns in (topo.gw1, topo.gw2):
            clean(ns)


# --- SAs of strongSwan, through flowfast's apply, rollback and restart -----------------------------------------------


@pytest.mark.long
def test_what_strongswan_put_into_the_device_stays_there(topo: TwoGateways, config: str, tmp_path: Path) -> None:
    with two_daemons(topo, proposals=("aes128gcm16-noesn",), hw_offload="crypto", replay_window=32):
        before = books(1 + WAN_PAIR)
        assert before.startswith("SA count=2 ")
        for row in rows(topo.gw1, "offload", config):
            assert (row["offload"], row["device"], row["why"]) == ("crypto", "wan0", [])
            assert f"spi=0x{row['spi']:08x}" in before
        said = apply(topo.gw1, config)
        assert said.fast("tx") == said.fast("rx") == {True}
        assert "NOT_OFFLOADED" not in said.reasons
        assert in_books() == in_books(before)
        flowfast(topo.gw1, "rollback")
        assert in_books() == in_books(before)
        for _ in range(2):
            with running(topo.gw1, config, tmp_path / "log"):
                assert in_books() == in_books(before)
        flowfast(topo.gw1, "apply", "--remove")
        assert in_books() == in_books(before)
    clean(topo.gw1)
    clean(topo.gw2)
    assert count() == 0


def in_books(text: str | None = None) -> list[str]:
    """netdevsim's lines of SAs, without its count of packets."""
    return (books(1 + WAN_PAIR) if text is None else text).splitlines()[1:]


# --- flowtables of NICs -----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_plain_flows_are_the_nics_only_where_every_driver_takes_them(topo: TwoGateways, tmp_path: Path) -> None:
    """netdevsim takes flowtables with `flags offload`, veth does not: asked of the kernel, in a dry run."""
    path = tmp_path / "hardware.yaml"
    plain = "offload: {plain: true, hardware: true}\n"
    topo.gw1.run(["ip", "link", "add", "lan1", "type", "veth", "peer", "name", "lan2"])
    try:
        path.write_text(f"devices: {{lan: [lan0, lan1], wan: [wan0]}}\n{plain}")
        assert "HARDWARE_REFUSED" in apply(topo.gw1, str(path)).reasons
        assert "flags offload" not in flowtable(topo)
        path.write_text(f"devices: {{lan: [lan0], wan: [wan0]}}\n{plain}")
        assert apply(topo.gw1, str(path)).reasons.isdisjoint({"HARDWARE_REFUSED", "HARDWARE_AND_PACKET"})
        assert "flags offload" in flowtable(topo)
        assert "flowfast-trial" not in topo.gw1.run(["nft", "list", "ruleset"]).stdout
    finally:
        flowfast(topo.gw1, "apply", "--remove")
        topo.gw1.run(["ip", "link", "del", "lan1"])


def flowtable(topo: TwoGateways) -> str:
    return topo.gw1.run(["nft", "list", "flowtables"]).stdout


@pytest.mark.guest(images=["debian12"])
@pytest.mark.long
def test_a_kernel_that_is_too_old_says_so(tmp_path: Path) -> None:
    """6.1 has no packet offload. A bond can offload ESP, if its ports do: that much of a NIC is there."""
    (tmp_path / "c.yaml").write_text("devices: {lan: ['lan*'], wan: [bond0]}\nnic_offload: packet\n")
    with Netns("old") as ns:
        ns.run(["ip", "link", "add", "bond0", "type", "bond", "mode", "active-backup"])
        ns.run(["ip", "addr", "add", f"{US}/24", "dev", "bond0"])
        ns.run(["ip", "link", "set", "bond0", "up"])
        template = Template(2, US, PEER, 50, 0, 1, Mode.TUNNEL)
        policy = Policy(Selector(2, "10.1.0.0/16", "10.2.0.0/16"), Direction.OUT, 0, 1000, 0, (template,))

        async def install(xfrm: AsyncXfrmSocket) -> None:
            await xfrm.add_sa(replace(sa(Direction.OUT, KEY), direction=None, replay_window=32))
            await xfrm.add_policy(policy)

        with_xfrm(ns, install)
        (row,) = rows(ns, "offload", str(tmp_path / "c.yaml"))
        assert {"KERNEL_TOO_OLD", "FEATURE_OFF"} <= set(row["why"])
        assert any("Linux 6.2 or newer" in each["remedy"] for each in row["reasons"])
