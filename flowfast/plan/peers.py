"""Several peers on one WAN: may one of them send what another one's tunnel protects?

On the full path the kernel checks each decrypted packet against the policy and the selectors of the SA it came through
(__xfrm_policy_check, net/xfrm/xfrm_policy.c); a flowtable hit skips that, and no nft expression in netdev ingress tells
SAs apart. What does is the packet's mark, if the IKE daemon has each inbound SA set one (XFRMA_SET_MARK, since 4.19;
swanctl: set_mark_in): xfrm_input() puts it on the packet before the flowtable sees it.
"""

from collections.abc import Iterable

from flowfast.model.reason import Reason
from flowfast.model.tunnel import Topology, Tunnel

WHOLE = 0xFFFFFFFF


def peer_marks(tunnels: Iterable[Tunnel]) -> dict[str, int] | Reason | None:
    """Tunnel name -> its mark; None where one peer only is there, a Reason where peers cannot be told apart.

    Each peer needs marks that are nobody else's; a peer's tunnels may share one.
    """
    policy_based = [tunnel for tunnel in tunnels if tunnel.topology is Topology.POLICY]
    if len({tunnel.key.remote for tunnel in policy_based}) < 2:
        return None
    marks: dict[str, int] = {}
    holders: dict[int, str] = {}
    for tunnel in policy_based:
        found = {sa.output_mark for sa in tunnel.inbound}
        if not found:
            continue  # nothing comes in through it now; its SAs will have to have one
        mark = found.pop()
        if found or mark is None or mark.mask != WHOLE or not mark.value:
            return _unmarked(tunnel)
        if holders.setdefault(mark.value, tunnel.key.remote) != tunnel.key.remote:
            return _unmarked(tunnel, f"mark {mark.value:#x} is also that of peer {holders[mark.value]}")
        marks[tunnel.name] = mark.value
    return marks


def _unmarked(tunnel: Tunnel, why: str = "its inbound SAs set no mark of their own") -> Reason:
    return Reason(
        "PEERS_NOT_CONFINED",
        tunnel.name,
        f"several peers share the WAN and nothing would keep one out of another's flows ({why}), so inbound keeps to "
        "the full path",
        "swanctl.conf: set_mark_in = NUMBER, another for each peer; or offload.trust_peers: true",
    )
