"""fallen(): do NICs really do what they took over? From two snapshots, by what the CPU did and what moved in between.

Of an SA in a NIC by packet offload the CPU sees no ESP, and so never a sequence number: where the kernel's own go on,
it was the CPU that did the work (xfrm_replay_advance() for what came in, xfrm_replay_overflow() for what left). How
many packets it did they do not say: of what comes in the highest number counts, whoever saw those before it. Of one by
crypto offload it sees all ESP, and the kernel keeps to itself who encrypted; only a feature that is off tells.
"""

from collections.abc import Iterable, Iterator, Mapping

from flowfast.model.link import Link
from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import SA, Direction
from flowfast.model.snapshot import Snapshot
from flowfast.model.tunnel import Tunnel

ENOUGH_BYTES = 1_000_000
"""That a device must have moved between two snapshots before SAs on it that counted nothing are odd."""
ENOUGH_PACKETS = 100
"""Of a tunnel, on the full path alone."""

Key = tuple[str, int, int, int]


def key(sa: SA) -> Key:
    """What makes an SA the same one in two dumps: its SPI may be used again."""
    return (*sa.key, sa.counters.add_time)


def cpu_sequence(sa: SA, direction: Direction) -> int | None:
    """The last sequence number that the CPU saw or gave, of an SA in a NIC by packet offload; None of others."""
    if not in_nic(sa):
        return None
    return sa.replay.seq if direction is Direction.IN else sa.replay.oseq


def in_nic(sa: SA) -> bool:
    """Whether the SA is in a NIC by packet offload."""
    return sa.offload is not None and sa.offload.packet


def in_nics(tunnels: Iterable[Tunnel]) -> Iterator[tuple[Tunnel, SA, Direction]]:
    """Every SA that is in a NIC of this network namespace by packet offload."""
    for tunnel in tunnels:
        if tunnel.key.netns is not None:
            continue
        for direction, sas in ((Direction.OUT, tunnel.outbound), (Direction.IN, tunnel.inbound)):
            for sa in sas:
                if in_nic(sa):
                    yield tunnel, sa, direction


def fallen(before: Snapshot, now: Snapshot) -> list[Reason]:
    """Reasons for SAs in NICs whose packets the CPU encrypted or decrypted, and for those that counted nothing."""
    had = {key(sa): sa for _, sa, _ in in_nics(path.tunnel for path in before.desired.paths)}
    pairs = [
        (tunnel, sa, direction, had[key(sa)])
        for tunnel, sa, direction in in_nics(path.tunnel for path in now.desired.paths)
        if key(sa) in had
    ]
    links = {link.ifindex: link for link in now.state.links}
    seconds = now.state.taken_at - before.state.taken_at
    reasons = {_fell_back(each, links, seconds) for each in pairs} | {*_still(pairs, before, now, links)}
    return sorted(reason for reason in reasons if reason is not None)


_Pair = tuple[Tunnel, SA, Direction, SA]
"""A tunnel, its SA now, which way, and the same SA before."""


def _fell_back(pair: _Pair, links: Mapping[int, Link], seconds: float) -> Reason | None:
    tunnel, sa, direction, was = pair
    last, earlier = cpu_sequence(sa, direction) or 0, cpu_sequence(was, direction) or 0
    if last <= earlier or sa.offload is None:
        return None
    done = "decrypted" if direction is Direction.IN else "encrypted"
    name = links[sa.offload.ifindex].name if sa.offload.ifindex in links else "a NIC"
    sentence = f"its {direction} SA is in {name}, but the CPU {done} packets of it in the last {seconds:.0f} s"
    remedy = f"ethtool -S {name} and the kernel's log say why; rekeying the tunnel puts the SA into it anew"
    return Reason("FELL_BACK", tunnel.name, sentence, remedy, Severity.ERROR)


def _counted(pair: _Pair) -> bool:
    _, sa, direction, was = pair
    return sa.counters.packets != was.counters.packets or cpu_sequence(sa, direction) != cpu_sequence(was, direction)


def _still(pairs: list[_Pair], before: Snapshot, now: Snapshot, links: Mapping[int, Link]) -> Iterator[Reason]:
    """SAs that counted nothing while their tunnel, or the whole device, did carry packets."""
    tunnels = {(tunnel.name, direction): tunnel for tunnel, _, direction, _ in pairs}
    devices = {(sa.offload.ifindex, direction) for _, sa, direction, _ in pairs if sa.offload is not None}
    for pair in filter(_counted, pairs):
        tunnel, sa, direction, _ = pair
        tunnels.pop((tunnel.name, direction), None)
        devices.discard((sa.offload.ifindex if sa.offload else 0, direction))
    for (name, direction), tunnel in tunnels.items():
        packets = _full_path(now, tunnel, direction) - _full_path(before, tunnel, direction)
        if packets >= ENOUGH_PACKETS:
            yield _blind(name, f"{packets} packets went {direction}, and no SA of it in a NIC counted any")
    earlier = {link.ifindex: link for link in before.state.links}
    for ifindex, direction in devices:
        octets = _moved(earlier.get(ifindex), links.get(ifindex), direction)
        if octets >= ENOUGH_BYTES:
            yield _blind(links[ifindex].name, f"{octets} bytes went {direction}, and none of the SAs in it counted any")


def _full_path(snapshot: Snapshot, tunnel: Tunnel, direction: Direction) -> int:
    counter = snapshot.full_path.get(f"{direction}_{tunnel.slug}")
    return counter.packets if counter is not None else 0


def _moved(was: Link | None, link: Link | None, direction: Direction) -> int:
    if was is None or link is None:
        return 0
    pair = (was.rx_bytes, link.rx_bytes) if direction is Direction.IN else (was.tx_bytes, link.tx_bytes)
    return pair[1] - pair[0] if pair[0] is not None and pair[1] is not None else 0


def _blind(name: str, sentence: str) -> Reason:
    remedy = "the driver's counters are not to be trusted: limits of bytes and packets of its SAs do not work either"
    return Reason("COUNTERS_STILL", name, sentence, remedy, Severity.WARNING)
