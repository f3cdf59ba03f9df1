"""What the commands share: the config argument, the real kernel, and the first look at the router."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from flowfast.bulking import watched, with_arrivals
from flowfast.cli.settings import set_option
from flowfast.config.devices import check_devices
from flowfast.config.load import NO_SETTINGS, LoadedConfig, load
from flowfast.config.problem import ConfigError
from flowfast.config.schema import Config
from flowfast.config.selectors import Traits
from flowfast.kernel import Kernel
from flowfast.kernel.real import real_kernel
from flowfast.model.desired import Desired
from flowfast.model.errors import Unavailable
from flowfast.model.state import RouterState
from flowfast.observe import observe
from flowfast.plan.planner import plan

CONFIG = "/etc/flowfast/flowfast.yaml"

Decorated = Callable[..., Any]


def config_argument(command: Decorated) -> Decorated:
    """CONFIG, by default the one of this router, and --set for a template's parameters (keyword `settings`)."""
    argument = click.argument("config", type=click.Path(), default=CONFIG, envvar="FLOWFAST_CONFIG")
    return argument(set_option(command))


def json_option(command: Decorated) -> Decorated:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def need_root(kernel: Kernel) -> None:
    """Raises Unavailable without CAP_NET_ADMIN."""
    if not kernel.system.privileged():
        raise Unavailable("flowfast talks to the kernel as root (CAP_NET_ADMIN): run it with sudo")


@dataclass(frozen=True, slots=True)
class Router:
    """A loaded config and the router it is for, observed and planned."""

    loaded: LoadedConfig
    kernel: Kernel
    state: RouterState
    desired: Desired


def prepare(kernel: Kernel, config: Config) -> None:
    """Tells the kernel's readers what this config needs to know; the rest costs time, and is not asked for."""
    devices = config.devices
    kernel.links.with_features = any(
        isinstance(entry, Traits) and entry.feature for entry in (*devices.lan, *devices.wan)
    )
    kernel.machine.wanted = config.steering.on
    kernel.nft.with_hardware = config.offload.hardware


async def fit(loaded: LoadedConfig, kernel: Kernel) -> None:
    """Raises Unavailable without privileges, ConfigError for a config that names devices which are not there."""
    need_root(kernel)
    prepare(kernel, loaded.config)
    links = await kernel.links.links()
    problems = check_devices(
        loaded,
        [link.name for link in links],
        drivers={link.name: link.driver for link in links},
        features={link.name: link.features for link in links},
    )
    if problems:
        raise ConfigError(problems)


async def router(path: str, settings: Mapping[str, str] = NO_SETTINGS) -> Router:
    """Loads, checks, probes, observes and plans. Raises ConfigError for a config that does not fit this router."""
    loaded = load(path, settings)
    kernel = real_kernel()
    await fit(loaded, kernel)
    features = await kernel.probe.features()
    state = await observe(kernel, features, loaded.config.underlay_netns)
    if watched(loaded.config.bulk):
        state = await with_arrivals(kernel, state)
    return Router(loaded, kernel, state, plan(state, loaded.config))
