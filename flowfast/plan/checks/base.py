"""What is examined, and what a check says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from flowfast.config.schema import Config
from flowfast.model.ike import IkeDaemon
from flowfast.model.link import Link
from flowfast.model.reason import Reason
from flowfast.model.state import RouterState
from flowfast.model.tunnel import Tunnel
from flowfast.plan.roles import Role, roles


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: its area and name, what was found, and a Reason where it is not as it should be."""

    area: str
    name: str
    found: str
    reason: Reason | None = None


@dataclass(frozen=True)
class Examination:
    """All that the checks may know. What could not be read is None or missing, and then nothing is said of it.

    `config` None: no config yet, so that only xfrm interfaces face a known side. `sysctls` by name, those of
    wanted_sysctls(); `modules` that are loaded or built in.
    """

    state: RouterState
    tunnels: tuple[Tunnel, ...] = ()
    config: Config | None = None
    sysctls: Mapping[str, str | None] = field(default_factory=dict)
    modules: frozenset[str] | None = None
    daemons: tuple[IkeDaemon, ...] = ()
    libnftables: str | None = None

    @cached_property
    def roles(self) -> Mapping[str, Role]:
        """The side that each device faces."""
        return roles(self.state, self.config)

    def facing(self, *sides: Role) -> list[Link]:
        """The devices that face one of these sides."""
        return [link for link in self.state.links if self.roles.get(link.name) in sides]

    def sysctl(self, name: str) -> str | None:
        """Its value, as far as it was read."""
        return self.sysctls.get(name)

    def number(self, name: str) -> int | None:
        """A sysctl that is a number."""
        value = self.sysctl(name)
        return int(value) if value is not None and value.isdecimal() else None


def some(names: list[str], most: int = 3) -> str:
    """The first few of many names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
