"""The kinds of packets that a stage must leave whole."""

from dataclasses import dataclass

from flowfast.lab.topology import Family


@dataclass(frozen=True, slots=True)
class Udp:
    """UDP from a socket, `size` bytes of payload a packet (0: sizes change from packet to packet)."""

    family: Family
    size: int
    df: bool = True
    checksum: bool = True
    count: int = 96

    @property
    def name(self) -> str:
        """As the table has it."""
        marks = ("" if self.df or self.family == 6 else "-nodf") + ("" if self.checksum else "-nosum")
        return f"udp{self.family}{marks}-{self.size or 'mixed'}"

    def payload(self, flow: int, number: int) -> bytes:
        """What packet `number` of a flow carries: as different from the others' as its size allows."""
        size = self.size or 1 + (number * 97 + flow * 31) % 1200
        seed = (number * 2654435761 + flow * 40503) & 0xFFFFFFFF
        word = bytes((seed >> shift) & 0xFF for shift in (0, 8, 16, 24))
        return (bytes([number & 0xFF]) + word * (size // 4 + 1))[:size]


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP stream of `size` bytes. `mss` 0: the path's. `write`: bytes a write, sent at once; 0: all as one."""

    family: Family
    size: int
    mss: int = 0
    write: int = 0

    @property
    def name(self) -> str:
        """As the table has it."""
        how = f"-mss{self.mss}" if self.mss else f"-write{self.write}" if self.write else ""
        return f"tcp{self.family}{how}"


KINDS: tuple[Udp | Tcp, ...] = (
    *(Udp(family, size) for family in (4, 6) for size in (1, 18, 60, 100, 512, 1320)),
    *(Udp(4, size, df=False) for size in (1, 18, 60, 1320)),
    Udp(4, 100, checksum=False),
    *(Udp(family, 0, df=False) for family in (4, 6)),
    *(Udp(family, 3000, df=False, count=16) for family in (4, 6)),  # fragments
    *(Tcp(family, 200_000) for family in (4, 6)),
    *(Tcp(family, 12_000, mss=mss) for family in (4, 6) for mss in (88,)),
    *(Tcp(family, 2_000, write=20) for family in (4, 6)),
)
"""DF is set as sockets set it, unless a kind says otherwise. UDP of 3000 bytes comes in fragments."""
