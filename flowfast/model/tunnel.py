"""A tunnel, as an operator means it: the SAs and policies between two endpoints under one reqid and if_id."""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from flowfast.model.reason import Reason
from flowfast.model.sa import SA


@lru_cache(maxsize=65536)
def identifier(name: str) -> str:
    """A name as an nft identifier: unchanged where it is one, with a hash where a character had to go."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return plain if plain == name else f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"


class Topology(StrEnum):
    """How traffic gets into the tunnel (design.md, "Topologies")."""

    POLICY = "policy"
    INTERFACE = "interface"  # xfrm interface, SAs in this network namespace
    CROSS_NETNS = "cross-netns"  # xfrm interface, SAs in another one


class TunnelKey(NamedTuple):
    """What a tunnel is known by; outlives rekeys. `local` and `remote` are the outer addresses."""

    reqid: int
    if_id: int
    local: str
    remote: str
    netns: str | None = None
    """Where its SAs live, if not here."""


class Selectors(NamedTuple):
    """One protected pair of inner prefixes, seen from here; `mode` is that of the policy's template."""

    local: str
    remote: str
    family: int
    mode: int


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel with its live SAs. `configured`: named in the config; `offload`: wanted on the fast path."""

    name: str
    key: TunnelKey
    topology: Topology
    selectors: tuple[Selectors, ...] = ()
    inbound: tuple[SA, ...] = ()
    outbound: tuple[SA, ...] = ()
    interface: str | None = None
    configured: bool = False
    offload: bool = True

    @property
    def slug(self) -> str:
        """The name as an nft identifier: unchanged where it is one, with a hash where it had to be changed."""
        return identifier(self.name)


@dataclass(frozen=True, slots=True)
class Path:
    """The way packets of one direction take: on the flowtable or the full L3 path, and in words why."""

    fast: bool
    how: str
    reason: Reason | None = None

    def __str__(self) -> str:
        return ("flowtable" if self.fast else "full path") + (f" ({self.how})" if self.how else "")


@dataclass(frozen=True, slots=True)
class TunnelPath:
    """Both directions of a tunnel: `tx` is LAN to tunnel, `rx` tunnel to LAN."""

    tunnel: Tunnel
    tx: Path
    rx: Path
