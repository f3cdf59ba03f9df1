"""Knobs that an operator sets by name: which there are, what each may be, and their JSON Schema.

A mapping from the kernel's own names to values as the kernel writes them: numbers as digits, switches "on" or "off".
"""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from flowfast.config.hints import nearest
from flowfast.config.problem import Fault, Faulty, faulty, quoted
from flowfast.config.scalar import found
from flowfast.config.values import U32, truth, whole

SWITCH = None
"""Of a knob that is on or off."""


class Range(NamedTuple):
    """What a number may be, both ends included."""

    low: int
    high: int


Known = Mapping[str, Range | None]

RINGS: Known = dict.fromkeys(("rx", "tx"), Range(1, 1 << 20))
CHANNELS: Known = dict.fromkeys(("rx", "tx", "combined"), Range(1, 4096))
COALESCE: Known = {
    "rx-usecs": Range(0, 1_000_000),
    "rx-frames": Range(0, 1_000_000),
    "tx-usecs": Range(0, 1_000_000),
    "tx-frames": Range(0, 1_000_000),
    "adaptive-rx": SWITCH,
    "adaptive-tx": SWITCH,
}
SIZES: Known = dict.fromkeys(
    ("gro_max_size", "gro_ipv4_max_size", "gso_max_size", "gso_ipv4_max_size"), Range(2048, 65536)
)
"""At most 64 KiB: nobody tried larger packets (BIG TCP) in front of ESP, whose length field has 16 bits over IPv4."""
FEATURES: Known = dict.fromkeys(
    ("tx-esp-segmentation", "esp-hw-offload", "esp-tx-csum-hw-offload", "tx-gso-list"), SWITCH
)
NAPI: Known = {
    "gro_flush_timeout": Range(0, 10_000_000),
    "napi_defer_hard_irqs": Range(0, 1000),
    "threaded": SWITCH,
}
SYSCTLS: Known = {
    "gro_normal_batch": Range(1, 65536),
    "netdev_budget": Range(1, 1_000_000),
    "netdev_budget_usecs": Range(1, 1_000_000),
    "dev_weight": Range(1, 65536),
    "netdev_max_backlog": Range(1, 10_000_000),
    "qdisc_max_burst": Range(1, U32 >> 1),
}


def _read(given: object, known: Known, what: str) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise faulty(f"expected a mapping of {what}, found {found(given)}", f"one or more of {', '.join(known)}")
    values, faults = {}, []
    for name, value in given.items():
        if name not in known:
            near = nearest(str(name), list(known))
            remedy = f'did you mean "{near}"?' if near else f"one of {', '.join(known)}"
            faults.append(Fault(f"{quoted(str(name))} is not among {what}", remedy, (str(name),)))
            continue
        try:
            values[name] = _value(value, known[name])
        except Faulty as wrong:
            faults += [Fault(each.sentence, each.remedy, (name, *each.path)) for each in wrong.faults]
    if faults:
        raise Faulty(*faults)
    return values


def _value(value: object, allowed: Range | None) -> str:
    if allowed is SWITCH:
        # In words where a Config is read again.
        return str(value) if value in ("on", "off") else "on" if truth(value) else "off"
    return str(whole(int(value) if isinstance(value, str) and value.isdigit() else value, "a number", *allowed))


def _schema(known: Known) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _value_schema(allowed) for name, allowed in known.items()},
        "additionalProperties": False,
    }


def _value_schema(allowed: Range | None) -> dict[str, Any]:
    if allowed is SWITCH:
        return {"type": "boolean"}
    return {"type": "integer", "minimum": allowed.low, "maximum": allowed.high}


def _plain(values: Mapping[str, str]) -> dict[str, int | bool]:
    return {name: int(value) if value.isdigit() else value == "on" for name, value in values.items()}


def _set_by_name(known: Known, what: str, description: str) -> Any:
    return Annotated[
        dict[str, str],
        PlainValidator(lambda given: _read(given, known, what)),
        PlainSerializer(_plain),
        WithJsonSchema(_schema(known)),
        Field(description=description),
    ]


Rings = _set_by_name(
    RINGS, "rings", "Packets in the NIC's rings: rx, tx. Setting it interrupts the device, on some NICs for seconds."
)
Channels = _set_by_name(
    CHANNELS,
    "channels",
    "The NIC's queues: rx, tx, combined. Setting it interrupts the device, as rings do.",
)
Coalesce = _set_by_name(
    COALESCE,
    "coalescing",
    "When the NIC interrupts: rx-usecs, rx-frames, tx-usecs, tx-frames; adaptive-rx, adaptive-tx: as the driver likes.",
)
Sizes = _set_by_name(
    SIZES,
    "limits",
    "Bytes that may travel as one, at most 65536: gro_max_size, gso_max_size, and those of IPv4.",
)
Features = _set_by_name(
    FEATURES,
    "features",
    "Features on the way out, on or off: tx-esp-segmentation, esp-hw-offload, esp-tx-csum-hw-offload, tx-gso-list.",
)
Napi = _set_by_name(
    NAPI,
    "NAPI's settings",
    "Of each of the device's NAPIs, over the profile: gro_flush_timeout (nanoseconds), napi_defer_hard_irqs, threaded.",
)
Sysctls = _set_by_name(
    SYSCTLS,
    "sysctls under net.core",
    "Of the whole machine, by their names under net.core: gro_normal_batch, netdev_budget, netdev_budget_usecs, "
    "dev_weight, netdev_max_backlog (bounds the queues of xfrm interfaces, too), qdisc_max_burst.",
)
