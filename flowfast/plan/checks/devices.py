"""The devices that face a side: are they up, are they the ones that packets are routed on, do MTUs fit?"""

from collections.abc import Iterator

from flowfast.model.link import Link
from flowfast.model.reason import Reason, Severity
from flowfast.plan.checks.base import Check, Examination
from flowfast.plan.mtu import tunnel_mtu
from flowfast.plan.roles import Role

_AREA = "devices"
_MASTERS = ("bridge", "bond", "team")


def devices(seen: Examination) -> Iterator[Check]:
    """One line for each device of the config, and each xfrm interface."""
    for link in seen.facing(Role.LAN, Role.WAN, Role.XFRM):
        yield Check(_AREA, link.name, _found(seen, link), _down(link) or _port(seen, link) or _too_large(seen, link))


def _found(seen: Examination, link: Link) -> str:
    words = [str(seen.roles[link.name]), f"MTU {link.mtu}"]
    if link.driver:
        words.append(link.driver)
    if link.name in seen.state.hooked:
        words.append("on the flowtable")
    if "esp-hw-offload" in link.features:
        words.append("offloads ESP")
    return ", ".join(words)


def _down(link: Link) -> Reason | None:
    if link.up:
        return None
    return Reason("DEVICE_DOWN", link.name, "is down", f"ip link set {link.name} up")


def _port(seen: Examination, link: Link) -> Reason | None:
    master = next((each for each in seen.state.links if each.ifindex == link.master), None)
    if master is None or master.kind not in _MASTERS:
        return None
    sentence = f"is a port of the {master.kind} {master.name}: packets are routed on that, and no flow is found here"
    return Reason("DEVICE_IS_PORT", link.name, sentence, f"name {master.name} in the config instead")


def _too_large(seen: Examination, link: Link) -> Reason | None:
    """An xfrm interface whose MTU promises more than its SAs have room for: nobody keeps the two in step."""
    underlay = next((each for each in seen.state.links if each.ifindex == link.underlay_ifindex), None)
    if not link.is_xfrm or underlay is None or link.underlay_netns is not None:
        return None
    rooms = [
        room
        for tunnel in seen.tunnels
        if tunnel.interface == link.name
        for sa in tunnel.outbound
        if (room := tunnel_mtu(sa, underlay.mtu)) is not None
    ]
    if not rooms or link.mtu <= min(rooms):
        return None
    room = min(rooms)
    sentence = (
        f"its MTU is {link.mtu}, and its SAs carry {room} bytes over {underlay.name}: what is larger is never fast"
    )
    return Reason("MTU_TOO_LARGE", link.name, sentence, f"ip link set {link.name} mtu {room}", Severity.WARNING)
