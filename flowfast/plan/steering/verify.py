"""What became of the plan: packets of each SA that another CPU processed, and what the fallback SAs carried. Pure."""

from collections.abc import Mapping

from flowfast.model.reason import Reason
from flowfast.model.sa import Direction
from flowfast.model.snapshot import Snapshot
from flowfast.model.steering import Owner, Share, Sightings, Steering
from flowfast.model.tunnel import Topology, Tunnel

ENOUGH = 1000
"""Packets below which a share says nothing."""
MOST = 0.01
"""Share of packets on another CPU, or on the fallback SA, that wants an explanation."""
ROUNDS = 3
"""For so many looks a CPU's packets go out on the fallback SA before it counts as refused."""
AGAIN = 360
"""After so many looks (an hour of ten seconds each) it may ask again."""


def elsewhere(steering: Steering, seen: Sightings) -> dict[Owner, Share]:
    """For each SA by CPU that was seen to work: packets that another CPU than its own processed."""
    found: dict[Owner, Share] = {}
    for place in steering.placements:
        by_cpu = seen.get((place.sa.direction, place.sa.spi))
        if place.pcpu is None or not by_cpu:
            continue
        total = sum(by_cpu.values())
        owner = Owner(place.sa.tunnel, place.sa.direction, place.pcpu)
        had = found.get(owner, Share(0, 0))
        found[owner] = Share(had.some + total - by_cpu.get(place.pcpu, 0), had.all + total)
    return found


def misplaced(shares: Mapping[Owner, Share]) -> list[Reason]:
    """A Reason for each SA of which another CPU processed more than a hundredth."""
    reasons = []
    for owner, share in sorted(shares.items()):
        if share.all < ENOUGH // 10 or (share.ratio or 0) <= MOST:
            continue
        way = "in" if owner.direction is Direction.IN else "out"
        sentence = f"{share.ratio:.0%} of what went {way} on the SA of CPU {owner.pcpu} was processed by another CPU"
        remedy = (
            "flowfast show steering says by which; steering.wan: xdp is exact"
            if way == "in"
            else ("a flow was offloaded on another CPU, or the LAN's queues were moved: flowfast plan")
        )
        reasons.append(Reason("STEERED_ELSEWHERE", f"{owner.tunnel} cpu {owner.pcpu} {way}", sentence, remedy))
    return reasons


def fallback(before: Snapshot, now: Snapshot) -> dict[tuple[str, Direction], Share]:
    """Packets on the fallback SAs between two snapshots, of each tunnel that has SAs by CPU."""
    had = {sa.key: sa.counters.packets for each in _tunnels(before) for sa in (*each.inbound, *each.outbound)}
    found = {}
    for tunnel in _tunnels(now):
        for direction, sas in ((Direction.IN, tunnel.inbound), (Direction.OUT, tunnel.outbound)):
            if any(sa.pcpu is not None for sa in sas):
                grown = {sa: max(sa.counters.packets - had.get(sa.key, 0), 0) for sa in sas}
                some = sum(packets for sa, packets in grown.items() if sa.pcpu is None)
                found[tunnel.name, direction] = Share(some, sum(grown.values()))
    return found


def on_fallback(shares: Mapping[tuple[str, Direction], Share]) -> list[Reason]:
    """A Reason for each tunnel whose fallback SA carries more than a hundredth."""
    reasons = []
    for (tunnel, direction), share in sorted(shares.items()):
        if share.all >= ENOUGH and (share.ratio or 0) > MOST:
            sentence = f"{share.ratio:.0%} of what went {direction} was on the fallback SA, which all CPUs share"
            remedy = (
                "does every CPU of `flowfast plan` have an SA (flowfast show sa)? the peer may allow fewer"
                if direction is Direction.OUT
                else "look at the peer: its flows are not on CPUs with an SA of their own"
            )
            reasons.append(Reason("FALLBACK_SA", f"{tunnel} {direction}", sentence, remedy))
    return reasons


def _tunnels(snapshot: Snapshot) -> list[Tunnel]:
    return [path.tunnel for path in snapshot.desired.paths]


def covered(snapshot: Snapshot) -> frozenset[tuple[str, int]]:
    """Tunnels and CPUs with an outbound SA of that CPU; only of tunnels whose flows keep the SA that they began on."""
    return frozenset(
        (tunnel.name, sa.pcpu)
        for tunnel in _tunnels(snapshot)
        if tunnel.topology is Topology.POLICY
        for sa in tunnel.outbound
        if sa.pcpu is not None
    )


def frozen(before: Snapshot, now: Snapshot) -> bool:
    """Whether flows on the flowtable may be on the wrong SA, so that they must be taken off and learnt anew.

    A policy-based flow keeps the SA that it began on (the bundle is cached in the flow entry): the fallback SA, if that
    of its CPU came later; another CPU's, if it has been moved since. A rekey is neither: the kernel sees to that.
    """
    if covered(now) - covered(before):
        return True
    old, new = before.desired.steering, now.desired.steering
    if old is None or new is None or not covered(now):
        return False
    return (old.cpus, old.backends, [table.spread for table in old.tables]) != (
        new.cpus,
        new.backends,
        [table.spread for table in new.tables],
    )


class Patience:
    """CPUs that asked for an SA and never got one: the peer allows fewer SAs than there are CPUs."""

    def __init__(self) -> None:
        self._asked: dict[int, int] = {}
        self._since: dict[int, int] | None = None
        """By CPU that is refused: looks since. None before the first look: what an earlier process found out holds."""

    @property
    def refused(self) -> frozenset[int] | None:
        """The CPUs that are refused by now; None before the first look."""
        return None if self._since is None else frozenset(self._since)

    def look(self, before: Snapshot, now: Snapshot) -> frozenset[int] | None:
        """One more; returns `refused`.

        A CPU has asked where the kernel holds a larval SA for it (meanwhile it drops what that CPU would send), and
        where there is traffic on the fallback SA (of flows that began on it).
        """
        if self._since is None:
            machine = now.state.machine
            self._since = dict.fromkeys(machine.refused if machine is not None else (), 0)
        have = {cpu for _, cpu in _with_sa(now)}
        if not have:
            self._asked.clear()  # the tunnel is down: everything may be different when it is back
            self._since.clear()
            return self.refused
        out = [share for (_, direction), share in fallback(before, now).items() if direction is Direction.OUT]
        asked = sum(share.some for share in out) >= ENOUGH // 10
        waiting = {sa.pcpu for sa in now.state.sas if sa.larval}
        for cpu in now.desired.steering.cpus if now.desired.steering is not None else ():
            if cpu in have:
                self._asked.pop(cpu, None)
            elif asked or cpu in waiting:
                self._asked[cpu] = self._asked.get(cpu, 0) + 1
        self._since = {cpu: looks + 1 for cpu, looks in self._since.items() if cpu not in have and looks < AGAIN}
        for cpu in [cpu for cpu, rounds in self._asked.items() if rounds >= ROUNDS]:
            del self._asked[cpu]
            self._since[cpu] = 0
        return self.refused


def _with_sa(snapshot: Snapshot) -> set[tuple[str, int]]:
    return {(t.name, sa.pcpu) for t in _tunnels(snapshot) for sa in t.outbound if sa.pcpu is not None}
