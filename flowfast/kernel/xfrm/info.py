"""What the kernel says of its databases as a whole: SADINFO, SPDINFO, and the default policy."""

from enum import IntEnum
from typing import NamedTuple

from flowfast.kernel.xfrm import uapi
from flowfast.kernel.xfrm.attributes import attributes, corrupt, least, require, u32
from flowfast.kernel.xfrm.uapi import SadAttr, SpdAttr


class DefaultAction(IntEnum):
    """XFRM_USERPOLICY_*: what becomes of a packet that no policy matches. UNSPEC in a request leaves it as it is."""

    UNSPEC = 0
    BLOCK = 1
    ACCEPT = 2


class DefaultPolicy(NamedTuple):
    """The default action by direction (kernel 5.15)."""

    inbound: int = DefaultAction.UNSPEC
    forward: int = DefaultAction.UNSPEC
    outbound: int = DefaultAction.UNSPEC


class SadInfo(NamedTuple):
    """The SAD: SAs in it, and the buckets of its hash tables."""

    sas: int
    buckets: int
    max_buckets: int


class Thresholds(NamedTuple):
    """Prefix lengths from which on a policy's selector is hashed; shorter ones are searched one by one."""

    local: int
    remote: int


class SpdInfo(NamedTuple):
    """The SPD: policies by direction (those of sockets apart), and how they are hashed."""

    inbound: int
    outbound: int
    forward: int
    socket_inbound: int
    socket_outbound: int
    socket_forward: int
    buckets: int
    max_buckets: int
    ipv4: Thresholds
    ipv6: Thresholds


def default_policy(body: memoryview) -> DefaultPolicy:
    """The body of GETDEFAULT, reply and notification. Raises DecodeError."""
    require(body, uapi.USERPOLICY_DEFAULT.size)
    return DefaultPolicy(*uapi.USERPOLICY_DEFAULT.unpack_from(body))


_SAD_LENGTHS = least({SadAttr.CNT: 4, SadAttr.HINFO: uapi.SADHINFO.size})
_SPD_STRUCTS = {
    SpdAttr.INFO: uapi.SPDINFO,
    SpdAttr.HINFO: uapi.SPDHINFO,
    SpdAttr.IPV4_HTHRESH: uapi.SPDHTHRESH,
    SpdAttr.IPV6_HTHRESH: uapi.SPDHTHRESH,
}
_SPD_LENGTHS = least({kind: struct.size for kind, struct in _SPD_STRUCTS.items()})


def sad_info(body: memoryview) -> SadInfo:
    """The body of NEWSADINFO. Raises DecodeError."""
    found = attributes(body, 4, _SAD_LENGTHS)
    count, sizes = u32(body, found, SadAttr.CNT), found.get(SadAttr.HINFO)
    if count is None or sizes is None:
        raise corrupt("a part of SADINFO is missing")
    return SadInfo(count, *uapi.SADHINFO.unpack_from(body, sizes))


def spd_info(body: memoryview) -> SpdInfo:
    """The body of NEWSPDINFO. Raises DecodeError."""
    found = attributes(body, 4, _SPD_LENGTHS)
    if not found.keys() >= _SPD_STRUCTS.keys():
        raise corrupt("a part of SPDINFO is missing")
    parts = {kind: struct.unpack_from(body, found[kind]) for kind, struct in _SPD_STRUCTS.items()}
    thresholds = (Thresholds(*parts[kind]) for kind in (SpdAttr.IPV4_HTHRESH, SpdAttr.IPV6_HTHRESH))
    return SpdInfo._make((*parts[SpdAttr.INFO], *parts[SpdAttr.HINFO], *thresholds))
