"""Network devices over rtnetlink, and a fake of them."""

import ctypes
import errno
import fcntl
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from struct import Struct
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from flowfast.kernel import LinkChanged
from flowfast.kernel.events import Events, FakeSource
from flowfast.kernel.netlink import NETLINK_ROUTE, GroupEvents, Message, attributes, text
from flowfast.model.errors import KernelError
from flowfast.model.link import Link

_RTNLGRP_LINK, _RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR = 1, 5, 9
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR = 16, 17, 20, 21
_IFLA_IFNAME = 3
_IFF_UP = 1
_DUMP_ATTEMPTS = 20

_IFINFOMSG = Struct("=BxHiII")  # family, type, index, flags, change (linux/rtnetlink.h)
_IFADDRMSG = Struct("=BBBBI")  # family, prefix length, flags, scope, index (linux/if_addr.h)

_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 3
_DRVINFO_SIZE = 196  # struct ethtool_drvinfo (linux/ethtool.h): command, then the driver's name in 32 bytes


class RealLinks:
    """The devices of the network namespace in which it is called."""

    def __init__(self) -> None:
        self.with_features = False

    async def links(self) -> tuple[Link, ...]:
        """All devices with their addresses, by ifindex. Raises KernelError."""
        for _ in range(_DUMP_ATTEMPTS):
            try:
                async with AsyncIPRoute() as ipr:
                    found = [message async for message in await ipr.link("dump")]
                    addresses = await _addresses(await ipr.addr("dump"))
                break
            except NetlinkDumpInterrupted:
                continue
            except NetlinkError as refused:
                raise KernelError(f"rtnetlink: devices: {refused}", refused.code) from refused
        else:
            raise KernelError(f"rtnetlink: devices changed {_DUMP_ATTEMPTS} times while they were read", errno.EINTR)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asker:
            links = [_link(message, addresses.get(message["index"], []), asker) for message in found]
        if self.with_features:
            links = [replace(link, features=features_on(link.name)) for link in links]
        return tuple(sorted(links, key=lambda link: link.ifindex))

    def changes(self) -> Events[LinkChanged]:
        """Each device or address that comes, goes or changes; listening from now on."""
        groups = (_RTNLGRP_LINK, _RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR)
        return GroupEvents(NETLINK_ROUTE, groups, Changes(socket.if_nameindex()).decode, lost=LinkChanged(None))


async def _addresses(dump: AsyncIterator[Any]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    async for message in dump:
        # IFA_LOCAL is our own end; IPv6 has it only where IFA_ADDRESS is the peer's.
        address = message.get("local") or message.get("address")
        found.setdefault(message["index"], []).append(f"{address}/{message['prefixlen']}")
    return found


def _link(message: Any, addresses: Iterable[str], asker: socket.socket) -> Link:
    kind = message.get(("linkinfo", "kind"))
    name = message.get("ifname")
    return Link(
        ifindex=message["index"],
        name=name,
        kind=kind,
        up=bool(message["flags"] & _IFF_UP),
        mtu=message.get("mtu"),
        addresses=tuple(addresses),
        mac=message.get("address"),
        driver=driver(asker, name),
        master=message.get("master"),
        xfrm_if_id=message.get(("linkinfo", "data", "xfrm_if_id")) if kind == "xfrm" else None,
        underlay_ifindex=message.get("link") or None,  # 0 of an xfrm interface without a device
        underlay_netns=message.get("link_netnsid"),
        num_rx_queues=message.get("num_rx_queues"),
        num_tx_queues=message.get("num_tx_queues"),
        rx_bytes=message.get(("stats64", "rx_bytes")),
        tx_bytes=message.get(("stats64", "tx_bytes")),
    )


def driver(asker: socket.socket, device: str) -> str | None:
    """The device's driver, asked by ioctl in the socket's own network namespace (sysfs shows that of its mount)."""
    info = bytearray(_DRVINFO_SIZE)
    info[:4] = _ETHTOOL_GDRVINFO.to_bytes(4, sys.byteorder)
    where = ctypes.addressof(ctypes.c_char.from_buffer(info))
    request = device.encode()[:15].ljust(16, b"\0") + where.to_bytes(8, sys.byteorder) + bytes(16)
    try:
        fcntl.ioctl(asker, _SIOCETHTOOL, request)
    except OSError:  # no driver's doing: lo, or gone since
        return None
    return info[4:36].partition(b"\0")[0].decode() or None


def features_on(device: str) -> frozenset[str]:
    """The device's ethtool features that are on; none of a device that is gone, or has none."""
    try:
        features = IoctlEthtool(device).get_features()
    except (OSError, EthtoolError):
        return frozenset()
    return frozenset(name for name, on, _, _, _ in features if name and on)


class Changes:
    """Turns rtnetlink's messages into LinkChanged; knows the names, because addresses and renames come by ifindex."""

    def __init__(self, names: Iterable[tuple[int, str]]) -> None:
        self._names = dict(names)

    def decode(self, message: Message) -> Iterator[LinkChanged]:
        """What changed, by name; a rename is a device gone and another that came."""
        if message.type in (_NEWADDR, _DELADDR):
            index = _IFADDRMSG.unpack_from(message.body)[4]
            yield LinkChanged(self._names.get(index))
        elif message.type in (_NEWLINK, _DELLINK):
            family, _, index, _, _ = _IFINFOMSG.unpack_from(message.body)
            if family != socket.AF_UNSPEC:  # of a bridge's port, not of the device
                return
            name = text(dict(attributes(message.body[_IFINFOMSG.size :]))[_IFLA_IFNAME])
            before = self._names.pop(index, name)
            if before != name:
                yield LinkChanged(before, gone=True)
            if message.type == _NEWLINK:
                self._names[index] = name
            yield LinkChanged(name, gone=message.type == _DELLINK)


class FakeLinks:
    """Devices that a test sets."""

    def __init__(self, links: Iterable[Link] = ()) -> None:
        self.with_features = False
        self._links = {link.name: link for link in links}
        self._changes: FakeSource[LinkChanged] = FakeSource()

    async def links(self) -> tuple[Link, ...]:
        """All that were set, by ifindex."""
        return tuple(sorted(self._links.values(), key=lambda link: link.ifindex))

    def changes(self) -> Events[LinkChanged]:
        """Each set() and remove() from now on."""
        return self._changes.listen()

    def set(self, link: Link) -> None:
        """The device appears, or changes."""
        self._links[link.name] = link
        self._changes.send(LinkChanged(link.name))

    def change(self, name: str, **values: Any) -> None:
        """The device's named fields change."""
        self.set(replace(self._links[name], **values))

    def remove(self, name: str) -> None:
        """The device vanishes."""
        del self._links[name]
        self._changes.send(LinkChanged(name, gone=True))

    def lose_events(self) -> None:
        """The kernel dropped events (ENOBUFS)."""
        self._changes.send(LinkChanged(None))
