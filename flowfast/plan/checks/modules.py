"""The ESP offload modules, and the bulking in front of them; libnftables.

What is on and breaks packets, with or without the modules, is said by the table of what was tried (plan/bulk.py).
"""

from collections.abc import Iterator

from flowfast.model.reason import Reason, Severity
from flowfast.plan.checks.base import Check, Examination, some
from flowfast.plan.roles import Role

_AREA = "modules"
_FAMILIES = (("esp4_offload", "IPv4"), ("esp6_offload", "IPv6"))
_MERGING = ("rx-gro-list", "rx-udp-gro-forwarding")


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
    """What merges packets, on devices from which they go into tunnels: the LAN, or without a config every device."""
    links = (
        seen.facing(Role.LAN) if seen.config is not None else [link for link in seen.state.links if not link.is_xfrm]
    )
    for feature in _MERGING:
        on = [link.name for link in links if feature in link.features]
        yield Check(_AREA, feature, f"on: {some(on)}" if on else "off")
