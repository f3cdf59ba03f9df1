"""The ledger: what each tunnel carried since counting began, added up over all generations of its SAs.

The kernel counts per SA, and an SA lives for an hour. A dump says what live SAs have counted; the event of an end
carries the last values (XFRM_MSG_DELSA; XFRM_MSG_EXPIRE with hard set, which is all that a hard limit sends:
xfrm_timer_handler, net/xfrm/xfrm_state.c). Both may come late, twice or not at all, so that an SA is remembered for a
while after it went.

Bytes are inner bytes, IP header included. In tunnel mode the kernel counts just those, in both directions:
xfrm_output_one (net/xfrm/xfrm_output.c) counts skb->len while skb->data is still at the payload, xfrm_input after ESP
is off. In transport and BEET mode the payload is what follows the IP header, which is added here. Measured with ten
pings of 128 bytes of IPv4: tunnel 1280, transport 1080, BEET 1080, in and out, on 6.1.0-50 and 7.2.12; so, too, with
IPv6 outside or inside and with UDP encapsulation. IP-TFS counts its own framing, which is left as it is; an SA in
packet offload counts what its driver says.

Packets are those on the wire. An outbound SA counts a packet once that ESP is to segment (GSO), but gives each segment
a sequence number (xfrm_replay_overflow_offload, net/xfrm/xfrm_replay.c: oseq += gso_segs): there the growth of its
sequence number is taken. Where that cannot be the packets (an SA that started with a high number, a NIC that numbers
by itself), its own count is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from flowfast.metrics.keep import SPARE, trim
from flowfast.model.sa import SA, Counters, Direction, Mark, Mode
from flowfast.model.snapshot import Traffic
from flowfast.model.tunnel import Tunnel, TunnelKey

_COUNTED = frozenset((50, 51))  # ESP, AH. IPComp (108) would count the same packets once more.
_IP_HEADER = {2: 20, 10: 40}

_Key = tuple[str, int, int, Mark | None, str | None]
"""Destination, SPI, protocol, mark: what the kernel tells SAs apart by; and the network namespace."""
_Way = tuple[int, int, str, str, str | None]
"""Reqid, if_id, source, destination, namespace: whose SA it is."""


class _Account:
    """The running total of one tunnel and direction."""

    __slots__ = ("bytes", "name", "packets")

    def __init__(self, name: tuple[str, Direction]) -> None:
        self.name = name
        self.bytes = 0
        self.packets = 0


_Seen = tuple[_Account, Counters, int]
"""Where an SA's traffic goes, and how far it has been counted: its counters, and its outbound sequence number."""

_NOTHING = Counters(0, 0, 0, None)

AccountRow = tuple[str, str, int, int]
"""Tunnel, direction, bytes, packets."""
SaRow = tuple[bool, str, str, str, int, int, Mark | None, str | None, int, int, int, int | None, int]
"""Whether its end is known, tunnel and direction that it counts for, its key, its counters, its sequence number."""


@dataclass(frozen=True, slots=True)
class LedgerState:
    """All that a ledger knows, or what changed, in plain tuples: what is written down and read again.

    Of all the rows are made as they are asked for, once: they would take as much memory as the ledger itself.
    """

    accounts: tuple[AccountRow, ...] = ()
    sas: Iterable[SaRow] = ()


_ESP_AROUND = 36
"""Bytes of AES-GCM: header 8, IV 8, padding 1.5 on average and its two bytes, ICV 16."""


def inner_bytes(sa: SA, octets: int, packets: int) -> int:
    """Bytes of inner packets with their IP header (without options), of what the SA counted.

    Of an SA that a NIC does (packet offload) an estimate: its driver counts what is on the wire less Ethernet and outer
    IP header (mlx5e_xfrm_update_stats), which is the packet with all of ESP around it.
    """
    if sa.offload is not None and sa.offload.packet:
        octets = max(octets - packets * _ESP_AROUND, 0)
    if sa.mode == Mode.TRANSPORT:
        return octets + packets * _IP_HEADER.get(sa.family, 0)
    if sa.mode == Mode.BEET:
        return octets + packets * _IP_HEADER.get(sa.selector.family or sa.family, 0)
    return octets


def wire_packets(packets: int, octets: int, numbers: int) -> int:
    """Packets on the wire, of what an SA counted: packets, bytes, and outbound sequence numbers that it used.

    Every segment of a packet takes a number and has at least a byte: more numbers than that mean something else.
    """
    return numbers if packets < numbers <= packets + octets else packets


class Ledger:
    """Totals by tunnel name and direction. They never go down while a tunnel is known, and nothing counts twice.

    What SAs had counted when the ledger first saw them is part of the totals. Where counts are lost (an SA that went
    between two dumps, its event lost too), the totals are too low, never too high. Not thread-safe.
    """

    def __init__(self) -> None:
        self.ends_missed = 0
        """SAs that were gone from a dump, and whose last counts had not come by the next."""
        self._accounts: dict[tuple[str, Direction], _Account] = {}  # those absent longest come first
        self._live: dict[_Key, _Seen] = {}
        self._gone: dict[_Key, _Seen] = {}
        self._untold: set[_Key] = set()  # gone at the last dump, and nobody said how far they had counted
        self._told: set[_Key] = set()  # whose end came since the last dump, which the next may be older than
        self._tunnels: tuple[tuple[str, TunnelKey], ...] = ()
        self._owners: dict[_Way, _Account] | None = None

    def update(self, tunnels: Iterable[Tunnel]) -> None:
        """Adds the growth of every live SA, from a dump. 100 000 SAs take about 0.1 s."""
        before, self._live = self._live, {}
        present: set[_Account] = set()
        known = []
        for tunnel in tunnels:
            netns = tunnel.key.netns
            known.append((tunnel.name, tunnel.key))
            for direction, sas in ((Direction.OUT, tunnel.outbound), (Direction.IN, tunnel.inbound)):
                account = self._account(tunnel.name, direction)
                present.add(account)
                for sa in sas:
                    if sa.proto in _COUNTED:
                        key = (sa.dst, sa.spi, sa.proto, sa.mark, netns)
                        seen = before.pop(key, None)
                        if seen is None:
                            if not self._ended(key, sa):
                                self._live[key] = self._met(key, sa, account)
                        elif seen[1] == sa.counters and seen[0] is account:
                            self._live[key] = seen
                        else:
                            same = seen[1].add_time == sa.counters.add_time
                            self._live[key] = _grown(account, sa, seen if same else None)
        self.ends_missed += len(self._untold - self._live.keys())
        # A tunnel that went out of sight with its policies may still have its SAs.
        self._untold = {key for key, seen in before.items() if seen[0] in present}
        self._gone |= before
        self._told.clear()
        self._tunnels, self._owners = tuple(known), None
        trim(self._gone, max(SPARE, len(self._live)))
        trim(self._accounts, 2 * len(self._tunnels) + SPARE)

    def deleted(self, sa: SA, netns: str | None = None) -> LedgerState:
        """Adds the last growth of an SA, from the event of its end. Of a stranger's SA, or twice: nothing.

        Returns what changed.
        """
        key = (sa.dst, sa.spi, sa.proto, sa.mark, netns)
        self._untold.discard(key)
        seen = self._live.get(key)
        if seen is not None:
            if sa.counters.add_time < seen[1].add_time:
                return LedgerState()  # of an older SA under the same SPI, whose end the last dump has told already
            del self._live[key]
            same = sa.counters.add_time == seen[1].add_time
            self._gone[key] = _grown(seen[0], sa, seen if same else None)
        elif (account := self._owner(sa, netns)) is not None or key in self._gone:
            self._gone[key] = self._met(key, sa, account or self._gone[key][0])
        else:
            return LedgerState()
        self._told.add(key)
        return LedgerState((_account_row(self._gone[key][0]),), (_sa_row(key, self._gone[key], ended=True),))

    def totals(self) -> dict[tuple[str, Direction], Traffic]:
        """Everything so far; also of tunnels that are down or gone now, but not of thousands of them."""
        return {key: Traffic(account.bytes, account.packets) for key, account in self._accounts.items()}

    def state(self) -> LedgerState:
        """All of it as it is now, whatever comes while its rows are asked for."""
        known = dict.fromkeys(self._accounts)
        accounts = tuple(map(_account_row, self._accounts.values()))
        gone, live = self._gone.copy(), self._live.copy()
        # What counted for a tunnel that is forgotten by now counts for nobody.
        sas = (
            _sa_row(key, seen, ended=group is gone)
            for group in (gone, live)
            for key, seen in group.items()
            if seen[0].name in known
        )
        return LedgerState(accounts, sas)

    def restore(self, state: LedgerState) -> None:
        """Takes in what was written down, in the order in which it was: later rows replace earlier ones."""
        for name, way, octets, packets in state.accounts:
            account = self._account(name, Direction(way))
            account.bytes, account.packets = octets, packets
        for ended, name, way, dst, spi, proto, mark, netns, octets, packets, added, used, sequence in state.sas:
            key = (dst, spi, proto, mark, netns)
            self._live.pop(key, None)
            group = self._gone if ended else self._live
            group[key] = (self._account(name, Direction(way)), Counters(octets, packets, added, used), sequence)

    def _account(self, name: str, direction: Direction) -> _Account:
        account = self._accounts.pop((name, direction), None) or _Account((name, direction))
        self._accounts[name, direction] = account  # at the end: present
        return account

    def _met(self, key: _Key, sa: SA, account: _Account) -> _Seen:
        """An SA that was not there in the last dump: new, or one that went and is reported once more."""
        seen = self._live.get(key) or self._gone.pop(key, None)
        if seen is None or sa.counters.add_time > seen[1].add_time:
            return _grown(account, sa, None)
        if sa.counters.add_time == seen[1].add_time and _not_less(sa.counters, seen[1]):
            return _grown(account, sa, seen)
        return account, *seen[1:]  # from a dump that is older than the event of the deletion, or of an older SA

    def _ended(self, key: _Key, sa: SA) -> bool:
        """Whether the SA of a dump ended while it was read, as its event has said since."""
        return key in self._told and sa.counters.add_time <= self._gone[key][1].add_time

    def _owner(self, sa: SA, netns: str | None) -> _Account | None:
        """Whose SA it was that came and went between two dumps."""
        if sa.proto not in _COUNTED:
            return None
        if self._owners is None:
            self._owners = {}
            for name, at in self._tunnels:
                out, inward = self._accounts[name, Direction.OUT], self._accounts[name, Direction.IN]
                self._owners[at.reqid, at.if_id, at.local, at.remote, at.netns] = out
                self._owners.setdefault((at.reqid, at.if_id, at.remote, at.local, at.netns), inward)
        return self._owners.get((sa.reqid, sa.if_id, sa.src, sa.dst, netns))


def _grown(account: _Account, sa: SA, last: _Seen | None) -> _Seen:
    counters, sequence = sa.counters, sa.replay.oseq
    had, had_sequence = last[1:] if last is not None else (_NOTHING, 0)
    if not _not_less(counters, had):
        had, had_sequence = _NOTHING, 0  # another SA under the same SPI
    packets, octets = counters.packets - had.packets, counters.bytes - had.bytes
    account.bytes += inner_bytes(sa, octets, packets)
    account.packets += wire_packets(packets, octets, sequence - had_sequence)
    return account, counters, sequence or had_sequence  # the event of an expiry does not say


def _not_less(counters: Counters, last: Counters) -> bool:
    return counters.bytes >= last.bytes and counters.packets >= last.packets


def _account_row(account: _Account) -> AccountRow:
    name, direction = account.name
    return name, direction.value, account.bytes, account.packets


def _sa_row(key: _Key, seen: _Seen, *, ended: bool) -> SaRow:
    name, direction = seen[0].name
    return (ended, name, direction.value, *key, *seen[1], seen[2])
