"""The section `bulk`: packets that go the same way travel together, as far as that leaves them whole."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from flowfast.config.knobs import Channels, Coalesce, Features, Napi, Rings, Sizes, Sysctls
from flowfast.config.section import ANY, Section
from flowfast.config.values import DISTINCT, DeviceName, Truth, choice, listed


class Profile(StrEnum):
    """What is wanted of the aggregation stages of a device."""

    KEEP = "keep"  # as they are: nothing is turned, what breaks packets is reported
    OFF = "off"
    LATENCY = "latency"  # the best stage that leaves packets whole; nothing waits for more packets
    BALANCED = "balanced"  # the same; packets wait up to 20 us for others
    THROUGHPUT = "throughput"  # the same; up to 200 us
    AUTO = "auto"  # balanced, and off again where nothing is put together


class Risk(StrEnum):
    """What may become of packets, and that an operator may take upon himself."""

    UNQUALIFIED = "unqualified"  # nobody tried this kernel, driver or topology
    LOSS = "loss"  # the lab saw packets of some kind get lost
    CORRUPTION = "corruption"  # the lab saw packets of some kind arrive changed
    UNFINISHED = "unfinished-checksums"  # packets arrive, or may arrive, with unfinished checksums
    UNSHIELDED = "panic-without-shield"  # the kernel dies if somebody takes the shield's XDP program off the device


class EspOffload(StrEnum):
    """What is wanted of the modules esp4_offload and esp6_offload."""

    KEEP = "keep"
    LOADED = "loaded"
    ABSENT = "absent"


class DeviceBulk(Section):
    """What one device wants otherwise, and the knobs that are set on it by name, whatever its profile."""

    profile: Annotated[
        Profile | None,
        choice(Profile, "a bulking profile"),
        Field(description="The profile of this device."),
    ] = None
    accept: Annotated[
        tuple[Annotated[Risk, choice(Risk, "a risk of bulking")], ...],
        Field(description="Risks that are taken on this device, in addition to bulk.accept.", json_schema_extra=ANY),
        listed("risks", empty=True),
        DISTINCT,
    ] = ()
    napi: Napi = Field(default_factory=dict)
    sizes: Sizes = Field(default_factory=dict)
    features: Features = Field(default_factory=dict)
    rings: Rings = Field(default_factory=dict)
    channels: Channels = Field(default_factory=dict)
    coalesce: Coalesce = Field(default_factory=dict)


class Bulk(Section):
    """How packets are put together, on all LAN and WAN devices."""

    profile: Annotated[
        Profile,
        choice(Profile, "a bulking profile"),
        Field(
            description="keep: turn nothing, report what breaks packets. off: every aggregation stage off. latency, "
            "balanced, throughput: the best stage that the lab found to leave packets whole; they wait 0, 20, 200 "
            "microseconds for others. auto: as balanced, and off where nothing is put together."
        ),
    ] = Profile.KEEP
    accept: Annotated[
        tuple[Annotated[Risk, choice(Risk, "a risk of bulking")], ...],
        Field(
            description="Risks that are taken, by name: unqualified, loss, corruption, unfinished-checksums, "
            "panic-without-shield. A stage that kills the kernel cannot be accepted.",
            json_schema_extra=ANY,
        ),
        listed("risks", empty=True),
        DISTINCT,
    ] = ()
    shield: Annotated[
        Truth | None,
        Field(
            description="Whether an XDP program may make the faster stages safe on LAN devices while esp4_offload is "
            "loaded. It clears DF of IPv4 packets of up to 512 bytes, and keeps UDP over IPv6 apart. Without a word: "
            "in profile auto."
        ),
    ] = None
    esp_offload: Annotated[
        EspOffload,
        choice(EspOffload, "what is wanted of the ESP offload modules"),
        Field(
            description="Whether the modules esp4_offload and esp6_offload are loaded. SAs that are there already go "
            "on as they are until their rekey, and do not let go of a module. keep: as they are."
        ),
    ] = EspOffload.KEEP
    sysctls: Sysctls = Field(default_factory=dict)
    devices: Annotated[
        dict[DeviceName, DeviceBulk],
        Field(description="Devices that want it otherwise, by name."),
    ] = Field(default_factory=dict)

    def of(self, device: str) -> Profile:
        """The profile of a device."""
        own = self.devices.get(device)
        return own.profile if own and own.profile else self.profile

    def accepted(self, device: str) -> frozenset[Risk]:
        """The risks that are taken on it."""
        own = self.devices.get(device)
        return frozenset((*self.accept, *(own.accept if own else ())))
