"""Where the kernel's routing sends a packet."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """A way to a destination. `mtu` is the route's own (a metric, or what path MTU discovery found), if it has one."""

    ifindex: int
    gateway: str | None = None
    mtu: int | None = None
    local: bool = False
    """To this router itself."""


Lookup = Callable[[str, str | None, int | None], Route | None]
"""Destination, and source and ifindex of arrival of a packet that is forwarded -> its route; None: there is no way."""
