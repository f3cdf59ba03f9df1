"""What an IKE daemon is set to, as far as it matters to the fast path; no secret can be in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IkeChild:
    """What the daemon's own files say of one CHILD_SA. `options` in strongSwan's words, only those asked for."""

    connection: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.connection}.{self.name}" if self.name != self.connection else self.name


@dataclass(frozen=True, slots=True)
class IkeDaemon:
    """A running daemon. `options` of the daemon as a whole, by their full name ("charon.install_routes").

    `loaded`: the connections that it says it has; None where it cannot be asked. `unread`: files that could not be
    read, and why.
    """

    name: str
    source: str
    version: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    children: tuple[IkeChild, ...] = ()
    loaded: frozenset[str] | None = None
    unread: tuple[str, ...] = ()
