"""Pairs of emulated NICs with several queues: taps on the host, in a network namespace of their own, joined by bridges.

QEMU's hub, which joins the other NICs, knows one queue. This needs /dev/net/tun and root on the host, which not every
machine that runs the tests has.
"""

import ctypes
import fcntl
import os
import struct
import threading

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from flowfast.model.errors import Unavailable

_TUNSETIFF = 0x400454CA
_TAP, _NO_PI, _MULTI_QUEUE, _VNET_HDR = 0x0002, 0x1000, 0x0100, 0x4000  # IFF_* of linux/if_tun.h
_REQUEST = struct.Struct("16sH22x")  # struct ifreq
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def taps(pairs: int, queues: int) -> dict[tuple[int, int], list[int]]:
    """Descriptors of the queues of each end (pair, 1 or 2); taps, bridges and namespace go when all are closed.

    Raises Unavailable where the host has no taps, or lets nobody make them.
    """
    made: dict[tuple[int, int], list[int]] = {}
    failed: list[Exception] = []

    def build() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(_NEW_NETWORK):  # of this thread alone
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            for pair in range(pairs):
                for end in (1, 2):
                    made[pair, end] = [_queue(f"t{pair}.{end}") for _ in range(queues)]
                _bridge(pair)
        except (OSError, NetlinkError) as error:
            failed.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    thread.join()
    if failed:
        for descriptor in (fd for each in made.values() for fd in each):
            os.close(descriptor)
        raise Unavailable(f"NICs with several queues need taps on this machine (/dev/net/tun, root): {failed[0]}")
    return made


def _queue(name: str) -> int:
    """One queue of a tap, as QEMU wants it."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        request = _REQUEST.pack(name.encode(), _TAP | _NO_PI | _MULTI_QUEUE | _VNET_HDR)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _bridge(pair: int) -> None:
    """Joins both ends. No addresses, and so no packets, of its own; no snooping: a wire passes everything on."""
    with IPRoute() as ipr:
        silent = {"IFLA_AF_SPEC": {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}}
        ipr.link("add", ifname=f"b{pair}", kind="bridge", br_mcast_snooping=0, br_forward_delay=0)
        for name in (f"b{pair}", f"t{pair}.1", f"t{pair}.2"):
            index = ipr.link_lookup(ifname=name)[0]
            ipr.link("set", index=index, **silent)
            if name[0] == "t":
                ipr.link("set", index=index, master=ipr.link_lookup(ifname=f"b{pair}")[0])
            ipr.link("set", index=index, state="up")
