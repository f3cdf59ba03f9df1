"""How large a packet GRO may make of a device's packets, and GSO may hand to it: rtnetlink's limits, in bytes.

Whoever sets the general limit to at most 64 KiB sets the one of IPv4 with it (netif_set_gro_max_size, net/core/dev.c);
so that each can be turned by itself, and taken back, the one of IPv4 is sent along as it is. Source:
include/uapi/linux/if_link.h (gso 4.16 to read and 5.19 to set, gro 5.19, those of IPv4 6.3).
"""

from collections.abc import Mapping
from socket import if_nametoindex
from struct import Struct

from flowfast.kernel.netlink import NETLINK_ROUTE, Netlink, attribute, attributes
from flowfast.model.bulk import SIZES
from flowfast.model.errors import KernelError
from flowfast.model.knob import Knob

_GETLINK, _SETLINK = 18, 19
_EXT_MASK, _SKIP_STATS = 29, 1 << 3
_LIMITS = dict(zip(SIZES, (58, 64, 41, 63), strict=True))
_WITH_IPV4 = {"gro_max_size": "gro_ipv4_max_size", "gso_max_size": "gso_ipv4_max_size"}
_IFINFOMSG = Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_U32 = Struct("=I")


def sizes(ifindex: int) -> Mapping[str, str]:
    """The limits of a device that this kernel has. Raises KernelError."""
    with Netlink(NETLINK_ROUTE) as netlink:
        return _read(netlink, ifindex)


def _read(netlink: Netlink, ifindex: int) -> Mapping[str, str]:
    body = _IFINFOMSG.pack(0, 0, ifindex, 0, 0) + attribute(_EXT_MASK, _U32.pack(_SKIP_STATS))
    (answer,) = netlink.request(_GETLINK, body, what=f"rtnetlink: device {ifindex}")
    found = dict(attributes(memoryview(answer)[_IFINFOMSG.size :]))
    return {name: str(_U32.unpack(found[at])[0]) for name, at in _LIMITS.items() if at in found}


class SizeKnob:
    """One of the limits."""

    def read(self, knob: Knob) -> str | None:
        """None where the device is not there, or the kernel has no such limit."""
        try:
            return sizes(if_nametoindex(knob.object)).get(knob.name)
        except (OSError, KernelError):
            return None

    def write(self, knob: Knob, value: str) -> None:
        """Sets it, and no other. Raises KernelError, OSError."""
        index = if_nametoindex(knob.object)
        with Netlink(NETLINK_ROUTE) as netlink:
            request = setting(knob.name, value, _read(netlink, index))
            netlink.request(_SETLINK, _IFINFOMSG.pack(0, 0, index, 0, 0) + request, what=str(knob))


def setting(name: str, value: str, held: Mapping[str, str]) -> bytes:
    """The attributes that set one limit and leave the others: do_setlink() takes a general one before that of IPv4."""
    wanted = {name: value}
    if (other := _WITH_IPV4.get(name)) in held and other is not None:
        wanted[other] = held[other]
    return b"".join(attribute(_LIMITS[each], _U32.pack(int(number))) for each, number in wanted.items())
