"""The knobs of bulking: what a stage and its profile want of them, what the config sets by name, and what cannot be."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from flowfast.config.bulk import Bulk, DeviceBulk, EspOffload, Profile
from flowfast.model.bulk import MODULES, BulkState, DeviceKnobs, Stage, knob_of
from flowfast.model.knob import Knob, KnobKind, Settings
from flowfast.model.reason import Reason, Severity
from flowfast.model.state import RouterState

WAITS = {Profile.LATENCY: 0, Profile.BALANCED: 20_000, Profile.THROUGHPUT: 200_000, Profile.AUTO: 20_000}
"""gro_flush_timeout in nanoseconds: how long a packet may wait for others."""
LARGEST = 65536
"""Bytes that may travel as one: nobody tried more (BIG TCP) in front of ESP."""
MOST_AGAIN = 3
"""A knob that something else turns back is turned again so often; then it is left alone."""
IN_USE = "esp-hw-offload"


def for_stage(device: str, held: DeviceKnobs, stage: Stage, profile: Profile) -> tuple[dict[Knob, str], list[Reason]]:
    """The knobs of a stage that can be turned, and the reasons for those that cannot."""
    wanted = _wanted(held, stage, WAITS.get(profile, 0) if stage is not Stage.OFF else 0)
    return {knob_of(device, name): value for name, value in wanted.items() if name not in held.fixed}, list(
        _fixed(device, held, wanted)
    )


def _wanted(held: DeviceKnobs, stage: Stage, wait: int) -> dict[str, str]:
    """All knobs for a stage. LRO, in hardware or not, makes packets that cannot be forwarded (ip_forward)."""
    wanted = {
        "rx-lro": "off",
        "rx-gro-hw": "off",
        "rx-gro-list": "on" if stage is Stage.LIST else "off",
        "rx-udp-gro-forwarding": "on" if stage is Stage.UDP else "off",
        "rx-gro": "off" if stage is Stage.OFF else "on",
    }
    wanted |= dict.fromkeys(held.napi("gro_flush_timeout"), str(wait))
    wanted |= dict.fromkeys(held.napi("napi_defer_hard_irqs"), "1" if wait else "0")
    for name in ("gro_max_size", "gro_ipv4_max_size"):
        wanted[name] = str(min(int(held.values.get(name, LARGEST)), LARGEST))
    return {name: value for name, value in wanted.items() if name in held.values}


def _fixed(device: str, held: DeviceKnobs, wanted: Mapping[str, str]) -> Iterator[Reason]:
    for name, value in wanted.items():
        if name in held.fixed and held.values[name] != value:
            sentence = f"{name} is {held.values[name]} and its driver lets nobody turn it {value}"
            yield Reason("BULK_FIXED", device, sentence, "none: the rest of the profile holds", Severity.INFO)


def by_name(state: RouterState, config: Bulk) -> tuple[dict[Knob, str], list[Reason]]:
    """The knobs that the config sets by name, and those that are not there or cannot be turned."""
    settings: dict[Knob, str] = {}
    reasons = []
    for name, value in config.sysctls.items():
        sysctl = f"net.core.{name}"
        if sysctl in state.bulk.sysctls:
            settings[Knob(KnobKind.SYSCTL, "", sysctl)] = value
        else:
            sentence = "this kernel has none, or only in the first network namespace"
            reasons.append(Reason("BULK_ABSENT", sysctl, sentence, "leave it out of bulk.sysctls"))
    for device, own in config.devices.items():
        held = state.bulk.knobs.get(device)
        asked = _asked(own, held)
        if held is None:
            if asked:
                sentence = f"no device of that name is there now to set {', '.join(asked)} on"
                reasons.append(Reason("DEVICE_MISSING", device, sentence, "they are set when it appears"))
            continue
        wanted = {name: value for name, value in asked.items() if name in held.values}
        for name in asked.keys() - wanted.keys():
            sentence = f"its driver, or this kernel, has no {name}"
            reasons.append(Reason("BULK_ABSENT", device, sentence, f"leave it out of bulk.devices.{device}"))
        reasons += _fixed(device, held, wanted)
        if wanted.get(IN_USE) == "off" and _holds_sas(state, device):
            del wanted[IN_USE]
            sentence = f"SAs are in this device: {IN_USE} stays on"
            reasons.append(Reason("BULK_IN_USE", device, sentence, "have the IKE daemon take them out first"))
        settings |= {knob_of(device, name): value for name, value in wanted.items() if name not in held.fixed}
    return settings, reasons


def _holds_sas(state: RouterState, device: str) -> bool:
    index = next((link.ifindex for link in state.links if link.name == device), None)
    return any(sa.offload is not None and sa.offload.ifindex == index for sa in state.sas)


def _asked(own: DeviceBulk, held: DeviceKnobs | None) -> dict[str, str]:
    """Names as DeviceKnobs has them."""
    asked = {**own.features, **own.sizes}
    for group, values in (("rings", own.rings), ("channels", own.channels), ("coalesce", own.coalesce)):
        asked |= {f"{group} {name}": value for name, value in values.items()}
    for name, value in own.napi.items():
        number = {"on": "1", "off": "0"}.get(value, value)
        asked |= dict.fromkeys((held.napi(name) if held else []) or [name], number)
    return asked


def esp_modules(state: RouterState, wanted: EspOffload) -> tuple[dict[Knob, str], BulkState, list[Reason]]:
    """The knobs of the ESP offload modules; and bulking's state, in which nobody knows of them while they change."""
    if wanted is EspOffload.KEEP:
        return {}, state.bulk, []
    loaded = wanted is EspOffload.LOADED
    due = [name for name in MODULES if state.bulk.modules.get(name) is not loaded]
    reasons = []
    if due and loaded and state.sas:
        sentence = "SAs that were made without it go on without it"
        reasons.append(Reason("BULK_MODULE_LATE", ", ".join(due), sentence, "until their rekey", Severity.INFO))
    settings = {Knob(KnobKind.MODULE, "", name): str(wanted) for name in MODULES}
    return settings, replace(state.bulk, esp_offload=None) if due else state.bulk, reasons


def _held(bulk: BulkState, knob: Knob) -> str | None:
    if knob.kind is KnobKind.SYSCTL:
        return bulk.sysctls.get(knob.name)
    if knob.kind is KnobKind.MODULE:
        return str(EspOffload.LOADED if bulk.modules.get(knob.name) else EspOffload.ABSENT)
    return bulk.knobs[knob.object].values.get(knob.name) if knob.object in bulk.knobs else None


def uncontested(settings: Settings, bulk: BulkState) -> tuple[dict[Knob, str], list[Reason]]:
    """The settings without those that something else turned back once too often, and a reason for each that it turned.

    What was set again for the last time stays as it is set, until something else turns it once more.
    """
    left, reasons = dict(settings), []
    for knob, times in bulk.turned_back.items():
        if knob not in settings:
            continue
        name, times_said = f"{knob.name}", "once" if times == 1 else f"{times} times"
        if times < MOST_AGAIN or _held(bulk, knob) == settings[knob]:
            sentence = f"something else turned {name} back {times_said}: it is set again"
            reasons.append(Reason("BULK_TURNED_BACK", knob.object or name, sentence, "find what sets it"))
            continue
        del left[knob]
        sentence = f"something else turned {name} back again and again: it is left as it is"
        remedy = "find what sets it, then restart flowfast"
        reasons.append(Reason("BULK_CONTESTED", knob.object or name, sentence, remedy))
    return left, reasons
