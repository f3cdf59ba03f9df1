"""Sets up the namespaces of a topology, from inside each: addresses, routes, forwarding, xfrm interfaces."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

IFA_F_NODAD = 0x02
SYSCTL = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True)
class Device:
    """A device to bring up: addresses as "10.1.0.2/16"; `xfrm_if_id` makes it an xfrm interface first.

    `bridge_of` makes it a bridge with these ports, `dummy` a dummy device.
    """

    name: str
    addresses: Sequence[str] = ()
    mtu: int = 1500
    xfrm_if_id: int | None = None
    xfrm_link: str | None = None
    dummy: bool = False
    bridge_of: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A route to `prefix` ("default" too) via a neighbour, or through a device; `source` is where packets come from."""

    prefix: str
    via: str | None = None
    device: str | None = None
    source: str | None = None


def set_up(devices: Sequence[Device], routes: Sequence[Route], forwarding: bool) -> None:
    """Configures the namespace that this process is in: devices up (the loopback too), routes, forwarding if asked for.

    No reverse path filter, no duplicate address detection: addresses work at once.
    """
    for family in ("ipv4", "ipv6"):
        conf = SYSCTL / family / "conf"
        for name in ("all", "default", *(device.name for device in devices)):
            if family == "ipv4" and (conf / name).is_dir():
                (conf / name / "rp_filter").write_text("0")
            elif (conf / name).is_dir():
                (conf / name / "accept_dad").write_text("0")
                (conf / name / "accept_ra").write_text("0")
            neighbours = SYSCTL / family / "neigh" / name / "retrans_time_ms"
            if neighbours.exists():
                # A NIC that has just come up may lose the first question: ask again soon, not after a second.
                neighbours.write_text("100")
        if forwarding:
            (conf / "all" / "forwarding").write_text("1")
    with IPRoute() as ipr:
        ipr.link("set", index=1, state="up")
        for device in devices:
            _device(ipr, device)
        for route in routes:
            _route(ipr, route)


def _index(ipr: IPRoute, name: str) -> int:
    index: int = ipr.link_lookup(ifname=name)[0]
    return index


def _device(ipr: IPRoute, device: Device) -> None:
    if device.xfrm_if_id is not None:
        link = {"xfrm_link": _index(ipr, device.xfrm_link)} if device.xfrm_link else {}
        ipr.link("add", ifname=device.name, kind="xfrm", xfrm_if_id=device.xfrm_if_id, **link)
    elif device.dummy:
        ipr.link("add", ifname=device.name, kind="dummy")
    elif device.bridge_of:
        ipr.link("add", ifname=device.name, kind="bridge")
        for port in device.bridge_of:
            ipr.link("set", index=_index(ipr, port), master=_index(ipr, device.name), state="up")
    index = _index(ipr, device.name)
    for address in device.addresses:
        local, length = address.split("/")
        flags = {"flags": IFA_F_NODAD} if ":" in local else {}
        ipr.addr("add", index=index, address=local, prefixlen=int(length), **flags)
    ipr.link("set", index=index, mtu=device.mtu, state="up")


def _route(ipr: IPRoute, route: Route) -> None:
    where: dict[str, object] = {"family": 10 if ":" in route.prefix + (route.via or "") else 2}
    if route.via:
        where["gateway"] = route.via
    if route.device:
        where["oif"] = _index(ipr, route.device)
    if route.source:
        where["prefsrc"] = route.source
    ipr.route("add", dst=route.prefix, **where)
