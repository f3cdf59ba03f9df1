"""Which side a device faces: what the config says of each that is there."""

from collections.abc import Mapping
from enum import StrEnum

from flowfast.config.devices import matching
from flowfast.config.schema import Config
from flowfast.model.state import RouterState


class Role(StrEnum):
    """The side that a device faces."""

    LAN = "lan"
    WAN = "wan"
    XFRM = "xfrm"  # the end of a tunnel, whatever a glob of the config says


def roles(state: RouterState, config: Config | None) -> Mapping[str, Role]:
    """By name of the device; those that face no side are left out. Without a config only xfrm interfaces are known."""
    found: dict[str, Role] = {}
    if config is not None:
        drivers = {link.name: link.driver for link in state.links}
        features = {link.name: link.features for link in state.links}
        for role, wanted in ((Role.LAN, config.devices.lan), (Role.WAN, config.devices.wan)):
            found |= dict.fromkeys(matching(wanted, drivers, drivers=drivers, features=features), role)
    return found | {link.name: Role.XFRM for link in state.links if link.is_xfrm}
