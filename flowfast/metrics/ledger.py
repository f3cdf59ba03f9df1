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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from struct import Struct

from flowfast.metrics.keep import SPARE, trim
from flowfast.metrics.numbered import Numbered
from flowfast.model.sa import SA, Direction, Mark, Mode
from flowfast.model.snapshot import Traffic
from flowfast.model.tunnel import Tunnel, TunnelKey

_COUNTED = frozenset((50, 51))  # ESP, AH. IPComp (108) would count the same packets once more.
_IP_HEADER = {2: 20, 10: 40}

_Place = tuple[str, int, Mark | None, str | None]
"""Destination, protocol, mark: what the kernel tells SAs apart by, with the SPI; and the network namespace."""
_Key = int
"""An SA: its place's number, and its SPI in the lower 32 bits. A tuple would take 80 bytes more."""
_Way = tuple[int, int, str, str, str | None]
"""Reqid, if_id, source, destination, namespace: whose SA it is."""


class _Account:
    """The running total of one tunnel and direction."""

    __slots__ = ("bytes", "name", "packets")

    def __init__(self, name: tuple[str, Direction]) -> None:
        self.name = name
        self.bytes = 0
        self.packets = 0


_Seen = bytes
"""How far an SA has been counted, packed: 200 bytes less than its objects, for each of 100 000 SAs."""
_SEEN = Struct("=BIQQQQ")
"""Look at which it was there (modulo 256), number of the account that it counts for; bytes, packets, when it was added,
outbound sequence number."""
_LOOKS = 256

AccountRow = tuple[str, str, int, int]
"""Tunnel, direction, bytes, packets."""
SaRow = tuple[bool, str, str, str, int, int, Mark | None, str | None, int, int, int, int]
"""Whether its end is known; tunnel and direction that it counts for; destination, SPI, protocol, mark, namespace;
bytes, packets, when it was added, its sequence number."""


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
        self._numbered = Numbered[_Account]()  # also those that are forgotten, while an SA is known that was theirs
        self._places = Numbered[_Place]()
        self._look = 0
        self._live: dict[_Key, _Seen] = {}
        self._gone: dict[_Key, _Seen] = {}
        self._untold: set[_Key] = set()  # gone at the last dump, and nobody said how far they had counted
        self._told: set[_Key] = set()  # whose end came since the last dump, which the next may be older than
        self._tunnels: tuple[tuple[str, TunnelKey], ...] = ()
        self._owners: dict[_Way, _Account] | None = None

    def update(self, tunnels: Iterable[Tunnel]) -> None:
        """Adds the growth of every live SA, from a dump. 100 000 SAs take about 0.1 s."""
        self._look = (self._look + 1) % _LOOKS
        live, look = self._live, self._look  # one table: the next look's beside it would be 5 MB
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
                        key = self._key(sa, netns)
                        seen = live.get(key)
                        if seen is not None and seen[0] != look:
                            live[key] = self._grown(account, sa, seen)
                        elif seen is not None or not self._ended(key, sa):
                            live[key] = self._met(key, sa, account)
        left = {key: seen for key, seen in live.items() if seen[0] != look}
        for key in left:
            del live[key]
        self.ends_missed += len(self._untold - live.keys())
        # A tunnel that went out of sight with its policies may still have its SAs.
        here = {self._numbered.number(account) for account in present}
        self._untold = {key for key, seen in left.items() if _SEEN.unpack(seen)[1] in here}
        self._gone |= left
        self._told.clear()
        self._tunnels, self._owners = tuple(known), None
        trim(self._gone, max(SPARE, len(self._live)))
        trim(self._accounts, 2 * len(self._tunnels) + SPARE)
        self._tidy()

    def deleted(self, sa: SA, netns: str | None = None) -> LedgerState:
        """Adds the last growth of an SA, from the event of its end. Of a stranger's SA, or twice: nothing.

        Returns what changed.
        """
        key = self._key(sa, netns)
        self._untold.discard(key)
        seen = self._live.get(key)
        if seen is not None:
            if sa.counters.add_time < _added(seen):
                return LedgerState()  # of an older SA under the same SPI, whose end the last dump has told already
            del self._live[key]
            ended = self._grown(self._counts_for(seen), sa, seen)
        elif (account := self._owner(sa, netns)) is not None or key in self._gone:
            ended = self._met(key, sa, account or self._counts_for(self._gone[key]))
        else:
            return LedgerState()
        self._gone[key] = ended
        self._told.add(key)
        row = _sa_row(key, ended, self._places.things, self._numbered.things, ended=True)
        return LedgerState((_account_row(self._counts_for(ended)),), (row,))

    def totals(self) -> dict[tuple[str, Direction], Traffic]:
        """Everything so far; also of tunnels that are down or gone now, but not of thousands of them."""
        return {key: Traffic(account.bytes, account.packets) for key, account in self._accounts.items()}

    def state(self) -> LedgerState:
        """All of it as it is now, whatever comes while its rows are asked for."""
        known = dict.fromkeys(self._accounts)
        accounts = tuple(map(_account_row, self._accounts.values()))
        groups = [(ended, list(of), list(of.values())) for ended, of in ((True, self._gone), (False, self._live))]
        places, numbered = self._places.things, self._numbered.things
        # What counted for a tunnel that is forgotten by now counts for nobody.
        sas = (
            _sa_row(key, seen, places, numbered, ended=ended)
            for ended, keys, those in groups
            for key, seen in zip(keys, those, strict=True)
            if numbered[_SEEN.unpack(seen)[1]].name in known
        )
        return LedgerState(accounts, sas)

    def restore(self, state: LedgerState) -> None:
        """Takes in what was written down, in the order in which it was: later rows replace earlier ones."""
        for name, way, octets, packets in state.accounts:
            account = self._account(name, Direction(way))
            account.bytes, account.packets = octets, packets
        for ended, name, way, dst, spi, proto, mark, netns, *counted in state.sas:
            key = self._places.number((dst, proto, mark, netns)) << 32 | spi
            self._live.pop(key, None)
            group = self._gone if ended else self._live
            group[key] = _SEEN.pack(self._look, self._numbered.number(self._account(name, Direction(way))), *counted)

    def _key(self, sa: SA, netns: str | None) -> _Key:
        return self._places.number((sa.dst, sa.proto, sa.mark, netns)) << 32 | sa.spi

    def _counts_for(self, seen: _Seen) -> _Account:
        return self._numbered.things[_SEEN.unpack(seen)[1]]

    def _tidy(self) -> None:
        """Forgets numbers that no SA names, before there are more of them than there are SAs."""
        most = len(self._live) + len(self._gone) + SPARE
        if len(self._places) > most:
            self._places.keep({key >> 32 for group in (self._live, self._gone, self._told) for key in group})
        if len(self._numbered) > most + len(self._accounts):
            known = {_SEEN.unpack(seen)[1] for group in (self._live, self._gone) for seen in group.values()}
            self._numbered.keep(known | {self._numbered.number(account) for account in self._accounts.values()})

    def _account(self, name: str, direction: Direction) -> _Account:
        account = self._accounts.pop((name, direction), None) or _Account((name, direction))
        self._accounts[account.name] = account  # at the end: present
        return account

    def _met(self, key: _Key, sa: SA, account: _Account) -> _Seen:
        """An SA that was not there in the last dump: new, or one that went and is reported once more."""
        seen = self._live.get(key) or self._gone.pop(key, None)
        if seen is None or sa.counters.add_time > _added(seen):
            return self._grown(account, sa, None)
        _, _, octets, packets, added, sequence = _SEEN.unpack(seen)
        if sa.counters.add_time == added and sa.counters.bytes >= octets and sa.counters.packets >= packets:
            return self._grown(account, sa, seen)
        # From a dump that is older than the event of the deletion, or of an older SA.
        return _SEEN.pack(self._look, self._numbered.number(account), octets, packets, added, sequence)

    def _ended(self, key: _Key, sa: SA) -> bool:
        """Whether the SA of a dump ended while it was read, as its event has said since."""
        return key in self._told and sa.counters.add_time <= _added(self._gone[key])

    def _grown(self, account: _Account, sa: SA, last: _Seen | None) -> _Seen:
        """Adds what the SA has counted since the last time; all of it where that was another SA under the same SPI."""
        octets, packets, added, _ = sa.counters
        sequence = sa.replay.oseq
        had_octets = had_packets = had_sequence = 0
        if last is not None:
            _, _, was_octets, was_packets, was_added, was_sequence = _SEEN.unpack(last)
            if was_added == added and was_octets <= octets and was_packets <= packets:
                had_octets, had_packets, had_sequence = was_octets, was_packets, was_sequence
        more_octets, more = octets - had_octets, packets - had_packets
        account.bytes += inner_bytes(sa, more_octets, more)
        account.packets += wire_packets(more, more_octets, sequence - had_sequence)
        # The event of an expiry does not say it.
        sequence = sequence or had_sequence
        return _SEEN.pack(self._look, self._numbered.number(account), octets, packets, added, sequence)

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


def _added(seen: _Seen) -> int:
    added: int = _SEEN.unpack(seen)[4]
    return added


def _account_row(account: _Account) -> AccountRow:
    name, direction = account.name
    return name, direction.value, account.bytes, account.packets


def _sa_row(
    key: _Key, seen: _Seen, places: Mapping[int, _Place], numbered: Mapping[int, _Account], *, ended: bool
) -> SaRow:
    dst, proto, mark, netns = places[key >> 32]
    _, account, *counted = _SEEN.unpack(seen)
    name, direction = numbered[account].name
    return (ended, name, direction.value, dst, key & 0xFFFFFFFF, proto, mark, netns, *counted)
