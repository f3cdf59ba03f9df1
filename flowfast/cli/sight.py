"""The router as explain, show and top look at it: with its config, or without one."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click

from flowfast.cli import common
from flowfast.cli.settings import set_option
from flowfast.config.load import NO_SETTINGS
from flowfast.config.schema import Config, Devices
from flowfast.kernel import Kernel
from flowfast.kernel.real import real_kernel
from flowfast.kernel.routes import RealRoutes
from flowfast.model.errors import UsageError
from flowfast.model.state import Flow
from flowfast.observe import observe
from flowfast.plan.case import SaKey, Sight
from flowfast.plan.planner import plan
from flowfast.plan.tunnels import find_tunnels

NO_CONFIG = "no config: roles of devices, names of tunnels and what is wanted are unknown"

NAMELESS = Config(devices=Devices(lan=("lan",), wan=("wan",)))
"""Names no tunnel and says nothing of any: the devices are not looked at."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the router, and the kernel to ask for more."""

    kernel: Kernel
    sight: Sight

    @property
    def config(self) -> Config | None:
        """The config, if there is one."""
        return self.sight.config

    async def flows(self, *, offloaded: bool = False) -> list[Flow]:
        """What conntrack tracks now; nothing where it cannot be read (`sight.blind` says why). Raises KernelError."""
        return [] if self.sight.blind else await self.kernel.conntrack.flows(offloaded=offloaded)


def optional_config(command: common.Decorated) -> common.Decorated:
    """CONFIG, by default the one of this router if it has one, and --set (keywords `config` and `settings`)."""
    return click.argument("config", type=click.Path(), required=False)(set_option(command))


def chosen(given: str | None) -> str | None:
    """The config that is meant: the one given, the environment's, the router's own if it has one."""
    return given or os.environ.get("FLOWFAST_CONFIG") or (common.CONFIG if Path(common.CONFIG).exists() else None)


async def look(given: str | None, settings: Mapping[str, str] = NO_SETTINGS) -> Look:
    """Observes, and plans if there is a config. Raises ConfigError for one that does not fit this router,
    and UsageError for settings without a config.
    """
    path = chosen(given)
    if path is not None:
        found = await common.router(path, settings)
        tunnels = tuple(each.tunnel for each in found.desired.paths)
        sight = Sight(found.state, tunnels, found.loaded.config, found.desired, RealRoutes().route)
        return Look(found.kernel, sight)
    if settings:
        raise UsageError(f"--set {next(iter(settings))}: there is no config that it could be a parameter of")
    kernel = real_kernel()
    common.need_root(kernel)
    state = await observe(kernel, await kernel.probe.features())
    return Look(kernel, Sight(state, find_tunnels(state, NAMELESS), route=RealRoutes().route))


async def again(before: Look) -> Look:
    """A second look, with the same config and features."""
    sight, config = before.sight, before.config
    netns = config.underlay_netns if config else ()
    state = await observe(before.kernel, sight.state.features, netns)
    desired = plan(state, config) if config else None
    tunnels = tuple(each.tunnel for each in desired.paths) if desired else find_tunnels(state, NAMELESS)
    return Look(before.kernel, Sight(state, tunnels, config, desired, sight.route))


async def with_growth(before: Look, seconds: float) -> Look:
    """The router after so many seconds, with the packets that each SA carried meanwhile."""
    await asyncio.sleep(seconds)
    now = await again(before)
    had, have = _packets(before.sight), _packets(now.sight)
    growth = {key: packets - had.get(key, packets) for key, packets in have.items()}
    return replace(now, sight=replace(now.sight, growth=growth))


def _packets(sight: Sight) -> Mapping[SaKey, int]:
    spds = (sight.state.sas, *(spd.sas for spd in sight.state.underlay.values()))
    return {sa.key: sa.counters.packets for sas in spds for sa in sas}
