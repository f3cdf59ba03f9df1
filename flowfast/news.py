"""Which XFRM events are news: those that change what the last plan was made of.

A router of 1000 tunnels rekeys all day. A new SA that marks its packets like the one before, or a policy that is
installed again as it was, changes nothing that a plan says: no round for it, and above all no flow taken off.
"""

from collections.abc import Iterable
from functools import cached_property

from flowfast.kernel.xfrm import (
    Event,
    Migrated,
    PoliciesFlushed,
    PolicyAdded,
    PolicyDeleted,
    PolicyExpired,
    PolicyUpdated,
    SaAdded,
    SaDeleted,
    SaExpired,
    SaUpdated,
)
from flowfast.model.sa import SA, Mark, Policy
from flowfast.model.tunnel import Tunnel, TunnelKey


class Known:
    """What the last plan was made of. Holds until the first event that is news. `steering`: per-CPU SAs matter."""

    def __init__(self, policies: Iterable[Policy], tunnels: Iterable[Tunnel], *, steering: bool = False) -> None:
        self._all, self._steering = policies, steering
        self._marks = {tunnel.key: _marks(tunnel) for tunnel in tunnels}

    def changed_by(self, event: Event) -> bool:
        """Whether the event is news."""
        match event:
            case SaAdded() | SaUpdated() | SaDeleted() | SaExpired() if event.sa.pcpu is not None and self._steering:
                return True
            case SaAdded() | SaUpdated():
                return not event.sa.larval and self._marks_of(event.sa) not in (None, (event.sa.output_mark,))
            case SaDeleted():
                return len(self._marks_of(event.sa) or ()) > 1  # it may have been the last one with a mark of its own
            case PolicyAdded() | PolicyUpdated():
                return _lasting(event.policy) not in self._policies
            case PolicyDeleted() | PolicyExpired() | PoliciesFlushed() | Migrated():
                return True
        return False

    def _marks_of(self, sa: SA) -> "_Found | None":
        """The marks that tell the peer apart which the SA receives from (plan/peers.py); None for any other SA."""
        return self._marks.get(TunnelKey(sa.reqid, sa.if_id, sa.dst, sa.src))

    @cached_property
    def _policies(self) -> frozenset[Policy]:
        return frozenset(map(_lasting, self._all))


_Found = tuple[Mark | None, ...]
"""Each mark once: a tuple of one is a quarter of a set of one, and there are 10 000."""


def _marks(tunnel: Tunnel) -> _Found:
    return tuple({sa.output_mark for sa in tunnel.inbound})


def _lasting(policy: Policy) -> Policy:
    """What a plan makes something of."""
    return policy._replace(counters=None, lifetime=None, policy_index=0)
