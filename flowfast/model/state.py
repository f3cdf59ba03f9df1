"""RouterState: everything the planner may know of the router, asked once, never changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from ipaddress import ip_interface

from flowfast.model.bulk import BulkState
from flowfast.model.link import Link
from flowfast.model.machine import Machine
from flowfast.model.nftables import Ruleset
from flowfast.model.nic import Nic
from flowfast.model.reason import Reason
from flowfast.model.sa import SA, Policy


@dataclass(frozen=True, slots=True)
class Feature:
    """A capability of this kernel and its tools, found out by trying. `reason` says why it is missing."""

    name: str
    present: bool
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class CounterValue:
    """What a named nft counter holds. Packets are sk_buffs: one that GRO made of many counts once."""

    packets: int
    bytes: int


class Status(IntFlag):
    """Conntrack's word on a connection: IPS_* of linux/netfilter/nf_conntrack_common.h."""

    EXPECTED = 1 << 0
    SEEN_REPLY = 1 << 1
    ASSURED = 1 << 2
    CONFIRMED = 1 << 3
    SRC_NAT = 1 << 4
    DST_NAT = 1 << 5
    SEQ_ADJUST = 1 << 6
    DYING = 1 << 9
    HELPER = 1 << 13
    OFFLOAD = 1 << 14
    HW_OFFLOAD = 1 << 15


class TcpState(IntEnum):
    """TCP_CONNTRACK_* of linux/netfilter/nf_conntrack_tcp.h."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    SYN_SENT2 = 9


@dataclass(frozen=True, slots=True)
class Flow:
    """A tracked connection. Bytes and packets by direction (original, reply); None without conntrack accounting.

    Ports are 0 where the protocol has none. `status` are the bits of Status; `tcp_state` a TcpState, which the kernel
    does not give for an offloaded connection. None is what was not said. What conntrack remarks (status and below) is
    not part of what makes two flows equal: tuples, path and counts are.
    """

    family: int
    proto: int
    src: str
    dst: str
    sport: int
    dport: int
    reply_src: str
    reply_dst: str
    reply_sport: int
    reply_dport: int
    offloaded: bool
    hardware: bool
    established: bool
    bytes: tuple[int, int] | None = None
    packets: tuple[int, int] | None = None
    status: int | None = field(default=None, compare=False)
    tcp_state: int | None = field(default=None, compare=False)
    helper: str | None = field(default=None, compare=False)
    mark: int | None = field(default=None, compare=False)
    zone: int = field(default=0, compare=False)

    def says(self, bit: Status) -> bool | None:
        """Whether conntrack set this bit."""
        return None if self.status is None else bool(self.status & bit)


@dataclass(frozen=True, slots=True)
class Spd:
    """The SAs and policies of one network namespace."""

    sas: tuple[SA, ...] = ()
    policies: tuple[Policy, ...] = ()


@dataclass(frozen=True, slots=True)
class RouterState:
    """One immutable snapshot. `taken_at` in seconds since the epoch."""

    taken_at: float
    links: tuple[Link, ...] = ()
    sas: tuple[SA, ...] = ()
    policies: tuple[Policy, ...] = ()
    underlay: Mapping[str, Spd] = field(default_factory=dict)
    """SAs and policies of other network namespaces (the underlays of xfrm interfaces), by the namespace's name."""
    ruleset: Ruleset = field(default_factory=Ruleset)
    """What the kernel holds of our own tables; nothing of anybody else's."""
    generation: int | None = None
    """That of nftables when the ruleset was read; None without nftables."""
    hooked: frozenset[str] = frozenset()
    """Devices on whose ingress hook our flowtable really stands."""
    nics: tuple[Nic, ...] = ()
    """Those of `links` that can offload IPsec, switched on or not."""
    hardware: frozenset[str] = frozenset()
    """Devices whose driver takes a flowtable with `flags offload`, where that was tried."""
    features: Mapping[str, Feature] = field(default_factory=dict)
    sysctls: Mapping[str, str | None] = field(default_factory=dict)
    bulk: BulkState = field(default_factory=BulkState)
    machine: Machine | None = None
    """CPUs and queues; None where no config asks for steering."""

    def link(self, name: str) -> Link | None:
        """The device of that name, if it is there."""
        return next((link for link in self.links if link.name == name), None)

    def local_addresses(self) -> frozenset[str]:
        """Every address of this router, without prefix length."""
        return frozenset(str(ip_interface(a).ip) for link in self.links for a in link.addresses)

    def has(self, feature: str) -> bool:
        """True where the feature was probed and is there."""
        found = self.features.get(feature)
        return found is not None and found.present
