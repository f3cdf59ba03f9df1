"""The sections `offload` and `exclude`: what goes on the flowtable, and what never does."""

from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from flowfast.config.section import ANY, SOME, Section
from flowfast.config.traffic import APART, WIDEST, Dscp, PacketCount, PacketMark, PortRange, TunnelPattern, Zone
from flowfast.config.values import DISTINCT, Prefix, Truth, choice, listed


class Mode(StrEnum):
    """How far offloading goes."""

    GUARDED = "guarded"  # both directions; a WAN device only behind its guard
    OUTBOUND_ONLY = "outbound-only"  # no WAN device in the flowtable: LAN to tunnel only
    OFF = "off"  # nothing: counts and reports only


class Protocol(StrEnum):
    """The protocols that a flowtable carries."""

    TCP = "tcp"
    UDP = "udp"


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
    trust_peers: Annotated[
        Truth,
        Field(
            description="Whether peers of policy-based tunnels are trusted to send only what their selectors allow, "
            "which a flowtable hit does not check. Without trust, and with several peers on one WAN, inbound keeps to "
            "the full path, unless the IKE daemon marks each peer's packets (swanctl: set_mark_in, another for each)."
        ),
    ] = False
    plain: Annotated[
        Truth,
        Field(
            description="Whether to offload also connections that no tunnel carries (LAN to WAN without IPsec). "
            "Connections that a policy protects stay with their tunnel."
        ),
    ] = False
    hardware: Annotated[
        Truth,
        Field(
            description="Whether NICs may take the flows that no tunnel carries (nft: flags offload). Only with "
            "offload.plain, only where every device's driver takes them, which is tried, and never together with IPsec "
            "packet offload; else flows stay in software."
        ),
    ] = False
    ports: Annotated[
        tuple[PortRange, ...],
        Field(
            description="Offload only connections to these destination ports, as the first packet of the connection "
            'had them: numbers or ranges ("5000-5100"). Empty: to any port.',
            json_schema_extra=ANY,
        ),
        listed("ports", empty=True),
        DISTINCT,
        APART,
    ] = ()
    marks: Annotated[
        tuple[PacketMark, ...],
        Field(
            description='Offload only by packets whose meta mark matches one of these ("0x10/0xff", or a number). '
            "Empty: any packet.",
            json_schema_extra=ANY,
        ),
        listed("packet marks", empty=True),
        DISTINCT,
    ] = ()
    dscp: Annotated[
        tuple[Dscp, ...],
        Field(
            description="Offload only by packets with these DSCP values: names (ef, af41, cs1) or numbers from 0 to "
            "63. Empty: any.",
            json_schema_extra=ANY,
        ),
        listed("DSCP values", empty=True),
        DISTINCT,
    ] = ()
    zones: Annotated[
        tuple[Zone, ...],
        Field(description="Offload only connections of these conntrack zones. Empty: any.", json_schema_extra=ANY),
        listed("conntrack zones", empty=True),
        DISTINCT,
    ] = ()
    after_packets: Annotated[
        PacketCount,
        Field(
            description="Offload a connection only after it has carried this many packets, both directions together: "
            "short ones are not worth an entry. Needs conntrack accounting (net.netfilter.nf_conntrack_acct)."
        ),
    ] = 0


class Exclude(Section):
    """What keeps to the full path, whatever `offload` says."""

    addresses: Annotated[
        tuple[Prefix, ...],
        Field(description="Prefixes; either end of the connection.", json_schema_extra=ANY),
        listed("prefixes", empty=True),
        DISTINCT,
        WIDEST,
    ] = ()
    ports: Annotated[
        tuple[PortRange, ...],
        Field(description="Ports, numbers or ranges; either end of the connection.", json_schema_extra=ANY),
        listed("ports", empty=True),
        DISTINCT,
        APART,
    ] = ()
    marks: Annotated[
        tuple[PacketMark, ...],
        Field(description="Packet marks, as in offload.marks.", json_schema_extra=ANY),
        listed("packet marks", empty=True),
        DISTINCT,
    ] = ()
    dscp: Annotated[
        tuple[Dscp, ...],
        Field(description="DSCP values, names or numbers.", json_schema_extra=ANY),
        listed("DSCP values", empty=True),
        DISTINCT,
    ] = ()
    tunnels: Annotated[
        tuple[TunnelPattern, ...],
        Field(
            description="Tunnels by name, or globs of names; also of tunnels that are not under `tunnels` but found by "
            "themselves.",
            json_schema_extra=ANY,
        ),
        listed("names of tunnels", empty=True),
        DISTINCT,
    ] = ()

    def tunnel(self, name: str) -> bool:
        """Whether the tunnel of that name keeps to the full path."""
        return any(fnmatchcase(name, pattern) for pattern in self.tunnels)
