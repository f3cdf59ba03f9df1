"""What a config file may say: the models that the planner reads, and the JSON Schema that editors read.

Every field has a description (it becomes the JSON Schema's) and is explained with an example in docs/config.md. Values
are checked here once and for all, also across fields: a Config that exists is one that can be planned.
"""

from collections.abc import Hashable, Iterable, Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic import model_validator as validator
from pydantic.config import JsonDict

from flowfast.config.claims import MAX_PAIRS, Clash, clashes, count_pairs
from flowfast.config.problem import Fault, Faulty, faulty
from flowfast.config.scalar import Kind, found, scalar
from flowfast.config.values import (
    DISTINCT,
    U32,
    Address,
    DeviceName,
    DevicePattern,
    Listen,
    NetnsName,
    Prefix,
    Truth,
    TunnelName,
    choice,
    endpoint,
    is_glob,
    listed,
    whole,
)

MAX_PREFIXES = 256  # of one side of one tunnel; IKEv2 itself allows 255 selectors a side (RFC 7296 section 3.13)

# For the JSON Schema only: our own validators say it in better words.
SOME: JsonDict = {"minItems": 1, "uniqueItems": True}
SOME_PREFIXES: JsonDict = {**SOME, "maxItems": MAX_PREFIXES}


class Mode(StrEnum):
    """How far offloading goes."""

    GUARDED = "guarded"  # both directions; a WAN device only behind its guard
    OUTBOUND_ONLY = "outbound-only"  # no WAN device in the flowtable: LAN to tunnel only
    OFF = "off"  # nothing: counts and reports only


class Protocol(StrEnum):
    """The protocols that a flowtable carries."""

    TCP = "tcp"
    UDP = "udp"


class Accounting(StrEnum):
    """How the bytes of a tunnel are counted."""

    OFF = "off"  # what the kernel counts anyway on the full path
    SA = "sa"  # from the SAs' own counters: free
    PRECISE = "precise"  # a counter in front of the flowtable: about 730 instructions a packet


def _nothing(value: object) -> bool:
    one = scalar(value)
    return one is not None and one.kind is Kind.NOTHING


class Section(BaseModel):
    """A mapping with fixed keys. A key without a value is a key left out, so that its content can be commented out."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @validator(mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        if isinstance(value, Section):
            return value
        if _nothing(value):
            return {}
        if not isinstance(value, Mapping):
            raise faulty(f"expected a mapping with the keys {', '.join(cls.model_fields)}, found {found(value)}")
        return {key: item for key, item in value.items() if not (key in cls.model_fields and _nothing(item))}


class Devices(Section):
    """The network devices of the router, by the side they face."""

    lan: Annotated[
        tuple[DevicePattern, ...],
        Field(
            description="Devices towards the hosts whose traffic goes into tunnels. Names or globs.",
            json_schema_extra=SOME,
            examples=[["lan0"]],
        ),
        listed("device names"),
        DISTINCT,
    ]
    wan: Annotated[
        tuple[DevicePattern, ...],
        Field(
            description="Devices on which ESP packets come in and go out. Names or globs. Left out only where every "
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
            if (ours := next((name for name in self.lan if _same(name, theirs)), None))
        ]
        if faults:
            raise Faulty(*faults)
        return self


def _same(one: str, other: str) -> bool:
    """True where both name one device: equal, or a name and a glob that it matches. (Two globs: see devices.py.)"""
    return one == other or (is_glob(one) is not is_glob(other) and (fnmatchcase(one, other) or fnmatchcase(other, one)))


class Tunnel(Section):
    """A tunnel by name: how to know it (everything given must match), and what to do with it."""

    local: Annotated[
        tuple[Prefix, ...],
        Field(description="Traffic selectors on our side.", json_schema_extra=SOME_PREFIXES),
        listed("prefixes", MAX_PREFIXES),
        DISTINCT,
    ] = ()
    remote: Annotated[
        tuple[Prefix, ...],
        Field(description="Traffic selectors on the other side.", json_schema_extra=SOME_PREFIXES),
        listed("prefixes", MAX_PREFIXES),
        DISTINCT,
    ] = ()
    peer: Annotated[Address | None, Field(description="Outer address of the other gateway.")] = None
    reqid: Annotated[
        int | None,
        PlainValidator(lambda value: whole(value, "a reqid", 1, U32)),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": U32}),
        Field(description="reqid of the tunnel's SAs, where the IKE daemon is told to use a fixed one."),
    ] = None
    if_id: Annotated[
        int | None,
        PlainValidator(lambda value: whole(value, "an if_id", 0, U32)),
        WithJsonSchema({"type": "integer", "minimum": 0, "maximum": U32}),
        Field(description="XFRM interface ID of the tunnel's SAs and policies; 0: policy-based, no xfrm interface."),
    ] = None
    interface: Annotated[DeviceName | None, Field(description="Name of the tunnel's xfrm interface.")] = None
    offload: Annotated[
        Truth | None, Field(description="Whether its flows go on the flowtable; without it, defaults.offload says.")
    ] = None

    @property
    def pairs(self) -> tuple[tuple[IPv4Network | IPv6Network, IPv4Network | IPv6Network], ...]:
        """Every local prefix with every remote prefix of its family: (local, remote)."""
        return tuple((ours, theirs) for ours in self.local for theirs in self.remote if ours.version == theirs.version)

    @property
    def own(self) -> Hashable | None:
        """What tells its packets apart from those of a tunnel with the same selectors, None: nothing does."""
        return self.interface if self.if_id is None else self.if_id

    @property
    def marks(self) -> tuple[Hashable, ...]:
        """Everything but selectors by which it is known."""
        return (self.peer, self.reqid, self.if_id, self.interface)

    @validator(mode="after")
    def _matchable(self) -> "Tunnel":
        if not self.local and not self.remote and self.marks == (None,) * 4:
            raise faulty(
                "nothing says which tunnel this is", "give local and remote, or one of peer, reqid, if_id, interface"
            )
        for given, missing in (("local", "remote"), ("remote", "local")):
            if getattr(self, given) and not getattr(self, missing):
                raise Faulty(Fault(f"missing, while {given} is given", "a selector has two sides", (missing,)))
        faults = [*_lonely("local", self.local, self.remote), *_lonely("remote", self.remote, self.local)]
        if faults:
            raise Faulty(*faults)
        return self


def _lonely(side: str, ours: Iterable[Prefix], theirs: Iterable[Prefix]) -> list[Fault]:
    families = {prefix.version for prefix in theirs}
    other = "remote" if side == "local" else "local"
    return [
        Fault(
            f"{prefix} has no {other} prefix of its family", f"add an IPv{prefix.version} prefix to {other}", (side, at)
        )
        for at, prefix in enumerate(ours)
        if prefix.version not in families
    ]


class Defaults(Section):
    """What holds for every tunnel that does not say otherwise, also for those that are not named here."""

    offload: Annotated[Truth, Field(description="Whether the flows of a tunnel go on the flowtable.")] = True


class Offload(Section):
    """What goes on the flowtable."""

    mode: Annotated[
        Mode,
        choice(Mode, "an offload mode"),
        Field(
            description="guarded: both directions, a WAN device only behind a guard against plaintext. "
            "outbound-only: LAN to tunnel, no WAN device in the flowtable. off: nothing, counters and reports only."
        ),
    ] = Mode.GUARDED
    protocols: Annotated[
        tuple[Annotated[Protocol, choice(Protocol, "a protocol that a flowtable carries")], ...],
        Field(description="Transport protocols to offload.", json_schema_extra=SOME),
        listed("protocols"),
        DISTINCT,
    ] = (Protocol.TCP, Protocol.UDP)
    clamp_mss: Annotated[
        Truth,
        Field(
            description="Whether to clamp the MSS of TCP connections to the tunnel's MTU: a packet too large for the "
            "tunnel leaves the flowtable unnoticed."
        ),
    ] = True


class Exporter(Section):
    """The Prometheus exporter."""

    enabled: Annotated[Truth, Field(description="Whether `flowfast run` serves metrics.")] = True
    listen: Annotated[
        Listen, Field(description='Address and port to serve /metrics on; an IPv6 address in brackets ("[::1]:9833").')
    ] = endpoint("127.0.0.1:9833")
    per_sa: Annotated[
        Truth, Field(description="Whether to export series for each SA, not only for each tunnel. Many, at many SAs.")
    ] = False


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


def _sentence(clash: Clash) -> Fault:
    if clash.later_pair is None or clash.earlier_pair is None:
        return Fault(
            f'is known by the same values as tunnel "{clash.earlier}"',
            "add what tells them apart, or make one of the two",
            (clash.later,),
        )
    ours, theirs = clash.later_pair, clash.earlier_pair
    same = (ours.local, ours.remote) == (theirs.local, theirs.remote)
    more = "" if same else f" within {theirs.local} to {theirs.remote}"
    return Fault(
        f'claims {ours.local} to {ours.remote}, which tunnel "{clash.earlier}" claims too{more}',
        "make one of them narrower, or give each its own if_id",
        (clash.later,),
    )


def _one_claim_each(tunnels: Mapping[str, Tunnel]) -> Mapping[str, Tunnel]:
    if (pairs := count_pairs(tunnels)) > MAX_PAIRS:
        raise faulty(
            f"{pairs} pairs of prefixes, at most {MAX_PAIRS} are read", "leave out tunnels that need no setting"
        )
    faults = [_sentence(clash) for clash in clashes(tunnels)]
    if faults:
        raise Faulty(*faults)
    return tunnels


def _named(value: object) -> object:
    if not isinstance(value, Mapping):
        raise faulty(f"expected a mapping of tunnel names to their settings, found {found(value)}")
    return dict(value)


Tunnels = Annotated[dict[TunnelName, Tunnel], BeforeValidator(_named), AfterValidator(_one_claim_each)]


class Config(Section):
    """The config file of flowfast."""

    version: Annotated[
        int,
        PlainValidator(lambda value: whole(value, "the version of this format", 1, 1)),
        WithJsonSchema({"type": "integer", "const": 1}),
        Field(description="Version of this format. A file that does not say is of version 1."),
    ] = 1
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
    accounting: Annotated[
        Accounting,
        choice(Accounting, "a way of accounting"),
        Field(
            description="How the bytes of each path are counted. off: only on the full path. sa: by the SAs' own "
            "counters, at no cost. precise: a counter before the flowtable, about 730 instructions a packet."
        ),
    ] = Accounting.SA
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
        if self.offload.mode is Mode.OFF:
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


def json_schema() -> dict[str, Any]:
    """The config's JSON Schema (draft 2020-12)."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "flowfast config"}
