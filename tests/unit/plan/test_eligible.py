"""Why an SA is not in a NIC: every code, with the lines of both daemons that would change it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flowfast.model.nic import ESP, Eswitch, Nic, OffloadType
from flowfast.model.reason import Reason
from flowfast.model.sa import SA, Direction, Encap, Mode, Replay
from flowfast.model.state import Feature, RouterState
from flowfast.plan.eligible import Refusal, refusals
from flowfast.plan.nics import DRIVERS, UNKNOWN, limits
from tests.unit.metrics.world import sa as outbound
from tests.unit.plan.router import FEATURES

NIC = Nic("wan0", 2, "mlx5_core", on=frozenset({ESP}))
STATE = RouterState(
    1.0,
    features=FEATURES
    | {name: Feature(name, True) for name in ("crypto_offload", "packet_offload", "if_id_inbound_refused")},
)
PACKET, CRYPTO = OffloadType.PACKET, OffloadType.CRYPTO


def sa(**more: Any) -> SA:
    return outbound(1, icv_bits=128, key_bits=160, **more)


def judged(
    the: SA,
    kind: OffloadType = PACKET,
    *,
    direction: Direction = Direction.OUT,
    nic: Nic = NIC,
    state: RouterState = STATE,
) -> list[Refusal]:
    return refusals(state, the, direction, nic, kind)


def without(feature: str) -> RouterState:
    why = Reason(f"NO_{feature.upper()}", "kernel", "it is old", "Linux 6.2 or newer")
    return replace(STATE, features=STATE.features | {feature: Feature(feature, False, why)})


def test_nothing_is_in_the_way_of_an_ordinary_sa() -> None:
    for kind in OffloadType:
        for way in (Direction.IN, Direction.OUT):
            assert judged(sa(replay=Replay(0, 0, 128, True)), kind, direction=way) == []


NETDEVSIM = replace(NIC, driver="netdevsim")
CASES: list[tuple[str, Callable[[], list[Refusal]], str]] = [
    ("ICV_NOT_128", lambda: judged(sa()._replace(icv_bits=96)), "esp_proposals = aes256gcm16-esn"),
    ("MODE_BEET", lambda: judged(sa(mode=Mode.BEET)), "swanctl.conf: mode = tunnel; ipsec.conf: type=tunnel"),
    ("MODE_IPTFS", lambda: judged(sa(mode=Mode.IPTFS)), "swanctl.conf: mode = tunnel; ipsec.conf: iptfs=no"),
    (
        "IPCOMP",
        lambda: judged(sa(proto=108, algorithm=None, compression="deflate")),
        "swanctl.conf: ipcomp = no; ipsec.conf: compress=no",
    ),
    ("ENCAP", lambda: judged(sa(encap=Encap(2, 4500, 4500))), "ipsec.conf: encapsulation=no"),
    (
        "ESN_UNSUPPORTED",
        lambda: judged(sa(replay=Replay(0, 0, 128, True)), CRYPTO, nic=NETDEVSIM),
        "swanctl.conf: esp_proposals = aes128gcm16-noesn; ipsec.conf: esn=no",
    ),
    ("IF_ID_INBOUND", lambda: judged(sa(if_id=42), direction=Direction.IN), "leave out ipsec-interface="),
    ("FEATURE_OFF", lambda: judged(sa(), nic=replace(NIC, on=frozenset(), off=frozenset({ESP}))), "ethtool -K wan0"),
    (
        "ESWITCH_MODE",
        lambda: judged(sa(), nic=replace(NIC, handle="pci/0000:08:00.0", eswitch=Eswitch.SWITCHDEV, encap=True)),
        "devlink dev eswitch set pci/0000:08:00.0 encap-mode none",
    ),
    (
        "PORT_FUNCTION",
        lambda: judged(sa(), nic=replace(NIC, handle="pci/0000:08:00.0", port=3, port_packet=False)),
        "devlink port function set pci/0000:08:00.0/3 ipsec_packet enable",
    ),
    ("KERNEL_TOO_OLD", lambda: judged(sa(), state=without("packet_offload")), "Linux 6.2 or newer"),
    ("TFC", lambda: judged(sa(tfc_pad=100)), "swanctl.conf: tfc_padding = 0; ipsec.conf: tfc=0"),
    ("NOT_AES_GCM", lambda: judged(sa(algorithm="cbc(aes)", auth_algorithm="hmac(sha256)")), "esp=aes_gcm256"),
    ("NOT_ESP", lambda: judged(sa(proto=51, algorithm=None, auth_algorithm="hmac(sha256)")), "aes256gcm16"),
    ("KEY_SIZE", lambda: judged(sa()._replace(key_bits=224)), "esp_proposals = aes256gcm16;"),
    ("TYPE_UNSUPPORTED", lambda: judged(sa(), nic=NETDEVSIM), "hw_offload = crypto; ipsec.conf: nic-offload=crypto"),
    ("MODE_UNSUPPORTED", lambda: judged(sa(), CRYPTO, nic=replace(NIC, driver="ixgbe")), "mode = transport"),
    (
        "OUTBOUND_ONLY_DEVICE",
        lambda: judged(sa(), CRYPTO, direction=Direction.IN, nic=replace(NIC, driver="rvu-nicpf")),
        "",
    ),
]


@pytest.mark.parametrize(("code", "case", "remedy"), CASES, ids=[case[0] for case in CASES])
def test_each_code_alone_with_what_to_do(code: str, case: Callable[[], list[Refusal]], remedy: str) -> None:
    (refusal,) = case()
    assert refusal.code == code
    assert refusal.sentence
    assert remedy in refusal.remedy


def test_what_does_not_matter_for_this_kind_is_not_said() -> None:
    nic = replace(NIC, handle="pci/1", port=3, eswitch=Eswitch.SWITCHDEV, encap=True, port_packet=False)
    assert judged(sa(), CRYPTO, nic=nic) == []
    assert judged(sa(), nic=replace(nic, encap=False, port_packet=True)) == []
    assert judged(sa(), nic=replace(nic, eswitch=Eswitch.LEGACY, port_packet=None)) == []
    assert judged(sa(if_id=42), direction=Direction.OUT) == []
    assert judged(sa(replay=Replay(0, 0, 128, True)), nic=replace(NIC, driver="espsim")) == []
    assert judged(sa(mode=Mode.TRANSPORT, encap=Encap(2, 4500, 4500))) == []


def test_an_inbound_if_id_is_fine_where_the_kernel_takes_it() -> None:
    assert judged(sa(if_id=42), direction=Direction.IN, state=without("if_id_inbound_refused")) == []


def test_a_feature_that_no_switch_brings_says_so() -> None:
    (refusal,) = judged(sa(), nic=replace(NIC, on=frozenset({"tx-esp-segmentation"})))
    assert (refusal.code, "driver or firmware" in refusal.remedy) == ("FEATURE_OFF", True)


def test_all_that_is_in_the_way_is_said_at_once() -> None:
    codes = {each.code for each in judged(sa(mode=Mode.BEET, tfc_pad=1)._replace(icv_bits=64), CRYPTO, nic=NETDEVSIM)}
    assert codes == {"MODE_BEET", "TFC", "ICV_NOT_128"}


def test_every_driver_says_where_its_limits_come_from() -> None:
    assert all(found.source and found.types for found in DRIVERS.values())
    assert limits("no_such_driver") is limits(None) is UNKNOWN
