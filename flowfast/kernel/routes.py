"""Where the kernel would send a packet, asked of its routing over rtnetlink; and a fake of it.

A plain look-up of the routing tables and rules, before any IPsec policy: inet_rtm_getroute() of net/ipv4/route.c and
inet6_rtm_getroute() of net/ipv6/route.c call no xfrm_lookup().
"""

import errno
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from struct import Struct, error
from typing import Protocol

from flowfast.kernel.netlink import NETLINK_ROUTE, Netlink, attribute, attributes
from flowfast.model.errors import DecodeError, KernelError
from flowfast.model.route import Route

_GETROUTE = 26
_DST, _SRC, _IIF, _OIF, _GATEWAY, _METRICS = 1, 2, 3, 4, 5, 8
_METRIC_MTU = 2
_LOCAL = 2
_RTMSG = Struct(
    "=BBBBBBBBI"
)  # family, dst and src length, tos, table, protocol, scope, type, flags (linux/rtnetlink.h)
_U32 = Struct("=I")

NO_WAY = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EXDEV, errno.ENODEV))
"""What the kernel answers for no route, unreachable, prohibit, blackhole and a source it does not believe."""


class Routes(Protocol):
    """The routing of the network namespace in which it is called."""

    def route(self, dst: str, src: str | None = None, iif: int | None = None) -> Route | None:
        """The way to `dst`: of a packet of the router's own, or of one from `src` that came in on `iif`. None: no way.

        Raises KernelError where the kernel does not answer at all.
        """


class RealRoutes:
    """The kernel's own."""

    def route(self, dst: str, src: str | None = None, iif: int | None = None) -> Route | None:
        """Asks for one packet. Raises KernelError, DecodeError."""
        family = AF_INET6 if ":" in dst else AF_INET
        bits = 128 if family == AF_INET6 else 32
        body = _RTMSG.pack(family, bits, bits if src else 0, 0, 0, 0, 0, 0, 0) + attribute(_DST, inet_pton(family, dst))
        if src is not None:
            body += attribute(_SRC, inet_pton(family, src))
        if iif is not None:
            body += attribute(_IIF, _U32.pack(iif))
        try:
            with Netlink(NETLINK_ROUTE) as netlink:
                answers = netlink.request(_GETROUTE, body, what=f"rtnetlink: route to {dst}")
        except KernelError as refused:
            if refused.code in NO_WAY:
                return None
            raise
        try:
            return decode_route(memoryview(answers[0])) if answers else None
        except (error, ValueError) as wrong:
            raise DecodeError(f"rtnetlink: route to {dst}: {wrong}") from wrong


def decode_route(body: memoryview) -> Route | None:
    """The route in an RTM_NEWROUTE; None where it leads to no device. Raises DecodeError, struct.error, ValueError."""
    if len(body) < _RTMSG.size:
        raise DecodeError(f"rtnetlink: a route of {len(body)} bytes, less than its header")
    family, kind = body[0], body[7]
    found = dict(attributes(body[_RTMSG.size :]))
    if _OIF not in found:
        return None
    metrics = dict(attributes(found[_METRICS])) if _METRICS in found else {}
    return Route(
        _U32.unpack(found[_OIF])[0],
        inet_ntop(family, bytes(found[_GATEWAY])) if _GATEWAY in found else None,
        _U32.unpack(metrics[_METRIC_MTU])[0] if _METRIC_MTU in metrics else None,
        local=kind == _LOCAL,
    )


class FakeRoutes:
    """Routes that a test sets, by prefix; the longest that holds the destination wins, whatever the source."""

    def __init__(self, routes: Mapping[str, Route] | None = None) -> None:
        self.routes = dict(routes or {})

    def route(self, dst: str, src: str | None = None, iif: int | None = None) -> Route | None:
        """The route of the longest prefix."""
        address = ip_address(dst)
        found = [net for text in self.routes if address in (net := ip_network(text)) and net.version == address.version]
        return self.routes[str(max(found, key=lambda net: net.prefixlen))] if found else None
