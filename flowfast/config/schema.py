"""What a config file may say: the models that the planner reads, and the JSON Schema that editors read.

Every field has a description (it becomes the JSON Schema's) and is explained with an example in docs/config.md. Values
are checked here once and for all, also across fields: a Config that exists is one that can be planned. Sections with
much to say have a file of their own: tunnels.py, offload.py, bulk.py.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic import model_validator as validator

from flowfast.config.bulk import Bulk
from flowfast.config.exporter import Exporter
from flowfast.config.offload import Exclude, Mode, Offload, Protocol
from flowfast.config.parameters import UseList
from flowfast.config.problem import Fault, Faulty
from flowfast.config.section import SOME, Section
from flowfast.config.selectors import DeviceSelector, same
from flowfast.config.steering import Steering
from flowfast.config.tunnels import Tunnel, Tunnels
from flowfast.config.values import DISTINCT, NetnsName, Truth, choice, listed, whole
from flowfast.model.nic import OffloadType

__all__ = [
    "Accounting",
    "Config",
    "Exclude",
    "Exporter",
    "Mode",
    "Offload",
    "Protocol",
    "Section",
    "Steering",
    "Tunnel",
    "Tunnels",
]


class Accounting(StrEnum):
    """How the bytes of a tunnel are counted."""

    OFF = "off"  # what the kernel counts anyway on the full path
    SA = "sa"  # from the SAs' own counters: free
    PRECISE = "precise"  # a counter in front of the flowtable: about 730 instructions a packet


class Devices(Section):
    """The network devices of the router, by the side they face."""

    lan: Annotated[
        tuple[DeviceSelector, ...],
        Field(
            description="Devices towards the hosts whose traffic goes into tunnels. Names, globs, or "
            "mappings that select by driver or ethtool feature.",
            json_schema_extra=SOME,
            examples=[["lan0"]],
        ),
        listed("device names"),
        DISTINCT,
    ]
    wan: Annotated[
        tuple[DeviceSelector, ...],
        Field(
            description="Devices on which ESP packets come in and go out, in the same way. Left out only where every "
            "tunnel is an xfrm interface whose SAs live in another network namespace (underlay_netns).",
            json_schema_extra=SOME,
        ),
        listed("device names"),
        DISTINCT,
    ] = ()

    @validator(mode="after")
    def _apart(self) -> "Devices":
        faults = [
            Fault(
                f"{theirs} is in devices.lan too, as {ours}", "a device faces one side: remove it from one", ("wan", at)
            )
            for at, theirs in enumerate(self.wan)
            if (ours := next((name for name in self.lan if same(name, theirs)), None))
        ]
        if faults:
            raise Faulty(*faults)
        return self


class Defaults(Section):
    """What holds for every tunnel that does not say otherwise, also for those that are not named here."""

    offload: Annotated[Truth, Field(description="Whether the flows of a tunnel go on the flowtable.")] = True


class Loop(Section):
    """How the controller reacts to the kernel's events."""

    debounce_ms: Annotated[
        int,
        PlainValidator(lambda value: whole(value, "a number of milliseconds", 0, 50)),
        WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 50}),
        Field(
            description="Milliseconds to wait after an event for others that belong to it (a rekey makes several). "
            "At most 50, so that a change of the firewall reaches offloaded flows within 100 ms."
        ),
    ] = 20


class Config(Section):
    """The config file of flowfast."""

    version: Annotated[
        int,
        PlainValidator(lambda value: whole(value, "the version of this format", 1, 1)),
        WithJsonSchema({"type": "integer", "const": 1}),
        Field(description="Version of this format. A file that does not say is of version 1."),
    ] = 1
    use: UseList = ()
    devices: Annotated[
        Devices,
        Field(
            description="The network devices of the router, by the side they face.",
            examples=[{"lan": ["lan0"], "wan": ["wan0"]}],
        ),
    ]
    tunnels: Annotated[
        Tunnels,
        Field(
            description="Names for tunnels, and settings of their own. Tunnels that are not here are found by "
            "themselves, are named after what they are, and have the defaults.",
            json_schema_extra={"additionalProperties": False},
        ),
    ] = Field(default_factory=dict)
    defaults: Annotated[Defaults, Field(description="What holds for every tunnel that does not say otherwise.")] = (
        Defaults()
    )
    offload: Annotated[Offload, Field(description="What goes on the flowtable.")] = Offload()
    exclude: Annotated[Exclude, Field(description="What keeps to the full path, whatever `offload` says.")] = Exclude()
    bulk: Annotated[Bulk, Field(description="How packets that go the same way travel together.")] = Bulk()
    nic_offload: Annotated[
        OffloadType | None,
        choice(OffloadType, "a kind of IPsec offload"),
        Field(
            description="What the IKE daemon was told to have NICs do for its SAs (swanctl: hw_offload, libreswan: "
            "nic-offload): crypto, or packet. flowfast offloads no SA itself; with this it warns of each that is not. "
            "Left out: of those only whose tunnel has another SA in a NIC."
        ),
    ] = None
    notrack: Annotated[
        Truth,
        Field(
            description="Whether to keep the outer ESP and NAT-T packets of known peers out of connection tracking, "
            "which saves each of them a lookup. A firewall that matches on their connection state must not."
        ),
    ] = False
    accounting: Annotated[
        Accounting,
        choice(Accounting, "a way of accounting"),
        Field(
            description="How the bytes of each path are counted. off: only on the full path. sa: by the SAs' own "
            "counters, at no cost. precise: a counter before the flowtable, about 730 instructions a packet."
        ),
    ] = Accounting.SA
    steering: Annotated[
        Steering, Field(description="Which CPUs process the packets of which SA. Off unless it is asked for.")
    ] = Steering()
    underlay_netns: Annotated[
        tuple[NetnsName, ...],
        Field(
            description="Network namespaces (as in `ip netns list`) that hold the SAs of xfrm interfaces which were "
            "made there and moved here.",
            json_schema_extra=SOME,
        ),
        listed("network namespaces"),
        DISTINCT,
    ] = ()
    exporter: Annotated[Exporter, Field(description="The Prometheus exporter.")] = Exporter()
    loop: Annotated[Loop, Field(description="How the controller reacts to the kernel's events.")] = Loop()

    def offloads(self, tunnel: str | None) -> bool:
        """Whether the flows of a tunnel go on the flowtable: by its name here, None for one that has none."""
        named = self.tunnels.get(tunnel) if tunnel is not None else None
        own = named.offload if named else None
        if self.offload.mode is Mode.OFF or (tunnel is not None and self.exclude.tunnel(tunnel)):
            return False
        return self.defaults.offload if own is None else own

    @validator(mode="after")
    def _has_wan(self) -> "Config":
        if not self.devices.wan and not self.underlay_netns:
            raise Faulty(
                Fault(
                    "missing",
                    "name the devices on which ESP packets come in; only with underlay_netns there may be none",
                    ("devices", "wan"),
                )
            )
        return self
