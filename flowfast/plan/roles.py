"""Which side a device faces: what the config says of each that is there."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from flowfast.config.devices import matching
from flowfast.config.schema import Config
from flowfast.config.selectors import Device
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
        for role, wanted in ((Role.LAN, config.devices.lan), (Role.WAN, config.devices.wan)):
            found |= dict.fromkeys(there(state, wanted), role)
    return found | {link.name: Role.XFRM for link in state.links if link.is_xfrm}


def there(state: RouterState, wanted: Sequence[Device]) -> tuple[str, ...]:
    """The devices that entries of the config mean, among those that are there."""
    drivers = {link.name: link.driver for link in state.links}
    features = {link.name: link.features for link in state.links}
    return matching(wanted, drivers, drivers=drivers, features=features)
