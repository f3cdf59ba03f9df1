"""Why an SA is not, or cannot be, in a NIC: codes, and the line of the IKE daemon's config that would change it.

The kernel says no more than that an SA has no device: what refused it was told to the IKE daemon, in words that are in
its log at best. The same rules are asked here, of the kernel (net/xfrm/xfrm_device.c) and of the driver (plan/nics.py).
"""

from collections.abc import Iterator
from typing import NamedTuple

from flowfast.model.nic import ESP, Eswitch, Nic, OffloadType
from flowfast.model.sa import SA, Direction, Mode
from flowfast.model.state import RouterState
from flowfast.plan.nics import Limits, limits


class Refusal(NamedTuple):
    """One thing that is in the way: its code, a sentence without subject, and what to do about it."""

    code: str
    sentence: str
    remedy: str


def lines(swanctl: str, libreswan: str) -> str:
    """The remedy in both daemons' words: a line of a child in swanctl.conf, of a connection in ipsec.conf."""
    return f"swanctl.conf: {swanctl}; ipsec.conf: {libreswan}"


def asked_for(kind: OffloadType) -> str:
    """The lines that ask for offload; strongSwan 5.9.10, libreswan 5.0 or later for packet."""
    return lines(f"hw_offload = {kind}", f"nic-offload={kind}")


PROPOSAL = lines("esp_proposals = aes256gcm16-esn", "esp=aes_gcm256")


def refusals(state: RouterState, sa: SA, direction: Direction, nic: Nic, kind: OffloadType) -> list[Refusal]:
    """Everything that keeps the SA from being offloaded to the device; empty where nothing that is known does."""
    known = limits(nic.driver)
    return [
        *_of_kernel(state, sa, direction, kind),
        *_of_device(nic, known, direction, kind),
        *_of_mode(sa, known, kind),
        *_of_algorithm(sa, known),
        *_of_sequence(sa, known, kind),
    ]


def _of_kernel(state: RouterState, sa: SA, direction: Direction, kind: OffloadType) -> Iterator[Refusal]:
    feature = state.features.get(f"{kind}_offload")
    if feature is not None and not feature.present:
        remedy = feature.reason.remedy if feature.reason else ""
        yield Refusal("KERNEL_TOO_OLD", f"this kernel has no IPsec {kind} offload", remedy)
    if sa.if_id and direction is Direction.IN and state.has("if_id_inbound_refused"):
        yield Refusal(
            "IF_ID_INBOUND",
            f"it comes in with if_id {sa.if_id}, which the kernel does not offload since 6.16",
            lines("leave out if_id_in (a policy-based tunnel)", "leave out ipsec-interface="),
        )
    if sa.tfc_pad:
        yield Refusal("TFC", "padding against traffic analysis cannot be offloaded", lines("tfc_padding = 0", "tfc=0"))


def _of_device(nic: Nic, known: Limits, direction: Direction, kind: OffloadType) -> Iterator[Refusal]:
    if not nic.enabled:
        yield feature_off(nic)
    if kind not in known.types:
        other = next(iter(sorted(known.types)))
        yield Refusal(
            "TYPE_UNSUPPORTED",
            f"driver {nic.driver} of {nic.name} does no {kind} offload",
            asked_for(OffloadType(other)),
        )
    if direction is Direction.IN and not known.inbound:
        yield Refusal("OUTBOUND_ONLY_DEVICE", f"driver {nic.driver} of {nic.name} offloads outbound SAs only", "")
    yield from _of_hardware(nic, kind)


def feature_off(nic: Nic) -> Refusal:
    """What is said of a device whose ESP feature is off."""
    switch = f"ethtool -K {nic.name} {ESP} on" if ESP in nic.off else "its driver or firmware must bring it"
    return Refusal("FEATURE_OFF", f"{ESP} of {nic.name} is off", switch)


def _of_hardware(nic: Nic, kind: OffloadType) -> Iterator[Refusal]:
    """What devlink says of the chip behind the device."""
    allowed = nic.port_packet if kind is OffloadType.PACKET else nic.port_crypto
    if allowed is False:
        sentence = f"devlink does not let the function behind {nic.name} do {kind} offload"
        yield Refusal(
            "PORT_FUNCTION", sentence, f"devlink port function set {nic.handle}/{nic.port} ipsec_{kind} enable"
        )
    if kind is OffloadType.PACKET and nic.eswitch is Eswitch.SWITCHDEV and nic.encap:
        sentence = (
            f"the switch of {nic.handle} is in switchdev mode with encap-mode basic, which excludes packet offload"
        )
        yield Refusal("ESWITCH_MODE", sentence, f"devlink dev eswitch set {nic.handle} encap-mode none")


def _of_mode(sa: SA, known: Limits, kind: OffloadType) -> Iterator[Refusal]:
    tunnel = lines("mode = tunnel", "type=tunnel")
    if sa.mode == Mode.BEET:
        yield Refusal("MODE_BEET", "mode beet is offloaded by no driver", tunnel)
    elif sa.mode == Mode.IPTFS:
        yield Refusal("MODE_IPTFS", "mode iptfs is offloaded by no driver", lines("mode = tunnel", "iptfs=no"))
    elif sa.mode not in known.modes:
        wanted = Mode(next(iter(sorted(known.modes)))).name.lower()
        name = Mode(sa.mode).name.lower() if sa.mode in set(Mode) else str(sa.mode)
        remedy = lines(f"mode = {wanted}", f"type={wanted}")
        yield Refusal("MODE_UNSUPPORTED", f"the driver does not take SAs in {name} mode", remedy)
    if sa.compression is not None or sa.proto == _IPCOMP:
        yield Refusal("IPCOMP", "compressed packets cannot be offloaded", lines("ipcomp = no", "compress=no"))
    elif sa.proto != _ESP:
        yield Refusal("NOT_ESP", "only ESP is offloaded", PROPOSAL)
    if sa.encap is not None and not (kind is OffloadType.PACKET and sa.mode == Mode.TRANSPORT):
        yield Refusal(
            "ENCAP",
            "UDP encapsulation (NAT traversal) is not offloaded",
            lines("encap = no, and no NAT between the peers", "encapsulation=no, and no NAT between the peers"),
        )


_ESP, _IPCOMP = 50, 108


def _of_algorithm(sa: SA, known: Limits) -> Iterator[Refusal]:
    if sa.proto != _ESP:
        return
    if sa.algorithm != "rfc4106(gcm(aes))":
        yield Refusal("NOT_AES_GCM", f"{sa.algorithm or sa.auth_algorithm} is not offloaded, AES-GCM is", PROPOSAL)
        return
    if sa.icv_bits is not None and sa.icv_bits not in known.icv_bits:
        yield Refusal("ICV_NOT_128", f"its ICV has {sa.icv_bits} bits, and only 128 are offloaded", PROPOSAL)
    if sa.key_bits is not None and sa.key_bits not in known.key_bits:
        size = max(known.key_bits) - 32
        remedy = lines(f"esp_proposals = aes{size}gcm16", f"esp=aes_gcm{size}")
        yield Refusal("KEY_SIZE", f"the driver takes no AES keys of {sa.key_bits - 32} bits", remedy)


def _of_sequence(sa: SA, known: Limits, kind: OffloadType) -> Iterator[Refusal]:
    if sa.replay.esn and kind is OffloadType.CRYPTO and not known.esn:
        yield Refusal(
            "ESN_UNSUPPORTED",
            "the driver does not follow extended sequence numbers",
            lines("esp_proposals = aes128gcm16-noesn", "esn=no"),
        )
