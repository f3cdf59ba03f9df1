"""How long packets that come out of tunnels take through the router: a sample after each window."""

import logging
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from statistics import median

from flowfast.compare.result import Latency
from flowfast.config.devices import matching
from flowfast.config.schema import Config
from flowfast.kernel.passage import RealPassage
from flowfast.model.state import RouterState
from flowfast.model.tunnel import TunnelPath

log = logging.getLogger(__name__)

LEAST = 10
"""Packets, below which a median says nothing."""


class Sample:
    """Of one router; a sample takes `seconds`."""

    def __init__(self, state: RouterState, config: Config, paths: Iterable[TunnelPath], seconds: float) -> None:
        arriving, leaving = devices(state, config)
        self._pairs = [
            (ip_network(each.remote), ip_network(each.local)) for path in paths for each in path.tunnel.selectors
        ]
        self._passage = RealPassage(arriving, leaving, self._ours, seconds)

    async def sample(self) -> Latency | None:
        """The median and the slowest percent; None where too few packets were seen twice."""
        try:
            took = await self._passage.watch()
        except OSError as error:
            log.warning("no latency: %s", error)
            return None
        return summary(took)

    def _ours(self, src: str, dst: str) -> bool:
        one, other = ip_address(src), ip_address(dst)
        return any(one in remote and other in local for remote, local in self._pairs)


def devices(state: RouterState, config: Config) -> tuple[list[str], list[str]]:
    """Where packets come out of tunnels, and the LAN devices that they leave by."""
    drivers = {link.name: link.driver for link in state.links}
    features = {link.name: link.features for link in state.links}
    xfrm = {link.name for link in state.links if link.is_xfrm and link.up}
    wan = set(matching(config.devices.wan, drivers, drivers=drivers, features=features))
    lan = set(matching(config.devices.lan, drivers, drivers=drivers, features=features))
    return sorted(wan | xfrm), sorted(lan - wan - xfrm)


def summary(took: list[float]) -> Latency | None:
    """Of sorted seconds."""
    if len(took) < LEAST:
        return None
    return Latency(median(took), took[min(len(took) - 1, round(0.99 * len(took)))], len(took))
