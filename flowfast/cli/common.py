"""What the commands share: the config argument, the real kernel, and the first look at the router."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from flowfast.config.devices import check_devices
from flowfast.config.load import LoadedConfig, load
from flowfast.config.problem import ConfigError
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
    """CONFIG, by default the one of this router."""
    return click.argument("config", type=click.Path(), default=CONFIG, envvar="FLOWFAST_CONFIG")(command)


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


async def router(path: str) -> Router:
    """Loads, checks, probes, observes and plans. Raises ConfigError for a config that does not fit this router."""
    loaded = load(path)
    kernel = real_kernel()
    need_root(kernel)
    problems = check_devices(loaded, [link.name for link in await kernel.links.links()])
    if problems:
        raise ConfigError(problems)
    features = await kernel.probe.features()
    state = await observe(kernel, features, loaded.config.underlay_netns)
    return Router(loaded, kernel, state, plan(state, loaded.config))
