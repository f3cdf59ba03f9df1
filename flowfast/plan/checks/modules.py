"""The ESP offload modules, and what they mean for the bulking that is on; libnftables.

What bulking breaks in front of software IPsec was measured on 7.3.4: a merged packet is taken whole by ESP where
esp4_offload (esp6_offload) is there, and split again behind it; see docs/doctor.md.
"""

from collections.abc import Iterator

from flowfast.model.reason import Reason, Severity
from flowfast.plan.checks.base import Check, Examination, some
from flowfast.plan.roles import Role

_AREA = "modules"
_FAMILIES = (("esp4_offload", "IPv4"), ("esp6_offload", "IPv6"))
_LIST, _FORWARDING = "rx-gro-list", "rx-udp-gro-forwarding"


def modules(seen: Examination) -> Iterator[Check]:
    """libnftables, and each offload module with the bulking in front of it."""
    if seen.libnftables is not None:
        yield Check(_AREA, "libnftables", seen.libnftables)
    if seen.modules is None:
        return
    for module, family in _FAMILIES:
        loaded = module in seen.modules
        yield Check(_AREA, module, "loaded" if loaded else "not loaded", _module(seen, module, family, loaded=loaded))
    yield from _bulking(seen)


def _module(seen: Examination, module: str, family: str, *, loaded: bool) -> Reason | None:
    if loaded:
        return None
    offloaded = [sa for sa in seen.state.sas if sa.offload is not None and (":" in sa.src) == (family == "IPv6")]
    if offloaded:
        sentence = f"SAs over {family} ask a device for offload, which this module is needed for"
        return Reason("NO_OFFLOAD_MODULE", module, sentence, f"modprobe {module}")
    sentence = f"what arrives in tunnels over {family} is not merged (GRO) before it is decrypted"
    remedy = f"modprobe {module}, where nothing merges packets on the LAN in front of it"
    return Reason("NO_ESP_GRO", module, sentence, remedy, Severity.INFO)


def _bulking(seen: Examination) -> Iterator[Check]:
    """Merging on devices from which packets go into tunnels: the LAN, or without a config every device."""
    links = (
        seen.facing(Role.LAN) if seen.config is not None else [link for link in seen.state.links if not link.is_xfrm]
    )
    ipsec = bool(seen.tunnels)
    taken_whole = bool(seen.modules and seen.modules & {"esp4_offload", "esp6_offload"})
    for feature, judge in ((_LIST, _list), (_FORWARDING, _forwarding)):
        on = [link.name for link in links if feature in link.features]
        yield Check(
            _AREA, feature, f"on: {some(on)}" if on else "off", judge(on, taken_whole) if on and ipsec else None
        )


def _list(on: list[str], taken_whole: bool) -> Reason:
    remedy = f"ethtool -K {on[0]} {_LIST} off"
    if taken_whole:
        sentence = (
            "merged packets reach ESP with too little headroom and unfinished checksums: Linux 7.3.4 panicked on it, "
            "and receivers drop what does arrive"
        )
    else:
        sentence = "merged packets with unfinished checksums arrive broken, and receivers drop them"
    return Reason("BULKING_BREAKS", some(on), sentence, remedy, Severity.ERROR)


def _forwarding(on: list[str], taken_whole: bool) -> Reason:
    remedy = f"ethtool -K {on[0]} {_FORWARDING} off"
    broken = "UDP with unfinished checksums arrives broken"
    lost = "merged UDP of up to 60 bytes with DF is lost in ESP (XfrmOutStateModeError)"
    sentence = f"{lost}; {broken}" if taken_whole else f"{broken} (from veth, tap or virtio with checksum offload)"
    return Reason("BULKING_BREAKS", some(on), sentence, remedy, Severity.ERROR if taken_whole else Severity.WARNING)
