"""The result on a terminal: a table by tunnel, one by SA, what a packet costs, what was seen on the WAN."""

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowfast.lab.demo.result import Part, Result, Traffic, factor, pairs, sa_rate
from flowfast.lab.demo.verdict import ENOUGH, WORDS

CAVEAT = (
    "One emulated CPU does the work of both hosts, both gateways and iperf3, and its seconds are 10^9 instructions: "
    "compare the two paths; nothing here is a line rate, and the factor of the gateway alone is in the table of costs."
)


def show(result: Result, out: Console) -> None:
    """Prints everything but the verdict."""

    def section(words: str, *tables: Table) -> None:
        out.print()
        out.print(Text(words, style="dim"))
        for table in tables:
            out.print(table)

    for part in result.parts:
        out.print()
        out.print(Text(f"{part.topology}: {', '.join(part.tunnels)}", style="bold"))
        section(
            "Mbit/s of inner packets on each path; packets that the forward chain saw, before and since",
            by_tunnel(part),
        )
        section("By SA, all loads together", by_sa(part))
        if part.esp:
            section("Who did ESP for gateway gw1, all loads together", by_worker(part))
        section("\n".join(remarks(part)))
    section(
        "Instructions of gateway gw1 for one packet (UDP, IPv4, 60 bytes); hosts, gw2, a NIC's own work are not in it",
        costs(result.parts),
    )
    section("What left through both ends of the WAN", wire(result.parts))
    section(CAVEAT)
    out.print()


def _table(*columns: str, left: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right")
    return table


def by_tunnel(part: Part) -> Table:
    """A line for each tunnel, family, direction and load."""
    table = _table(
        *("tunnel", "direction", "load", "bytes", "full L3", "flowtable", "factor", "on fast path"),
        "forward chain saw",
        left=3,
    )
    last = None
    for full, fast in pairs(part):
        lane = full.lane
        table.add_row(
            *(("", "") if lane == last else (f"{lane.tunnel} IPv{lane.family}", WORDS[lane.way])),
            full.load,
            number(fast.traffic.bytes),
            mbit(full.bits_per_second),
            mbit(fast.bits_per_second),
            times(factor(full.bits_per_second, fast.bits_per_second)),
            share(fast.traffic),
            f"{number(full.traffic.forward_packets)} > {number(fast.traffic.forward_packets)}",
        )
        last = lane
    return table


def by_sa(part: Part) -> Table:
    """A line for each SA of gw1."""
    table = _table(
        *("tunnel", "direction", "SPI", "CPU", "bytes", "full L3", "flowtable", "factor", "on fast path"),
        "forward chain saw",
        left=3,
    )
    for sa in part.sas:
        full, fast = sa_rate(part, sa, "full"), sa_rate(part, sa, "fast")
        table.add_row(
            sa.tunnel,
            WORDS[sa.way],
            f"0x{sa.spi:08x}",
            "any" if sa.cpu is None else str(sa.cpu),
            number(sa.full.bytes + sa.fast.bytes),
            mbit(full),
            mbit(fast),
            times(factor(full, fast)),
            share(sa.fast),
            f"{number(sa.full.forward_packets)} > {number(sa.fast.forward_packets)}",
        )
    return table


def by_worker(part: Part) -> Table:
    """A line for each SA of gw1: where it is, and how many of its packets NIC and CPU encrypted or decrypted."""
    table = _table("tunnel", "direction", "SPI", "the SA is in", "ESP packets", "by the NIC", "by the CPU", left=4)
    for sa in part.esp:
        table.add_row(
            *(sa.tunnel, WORDS[sa.way], f"0x{sa.spi:08x}", sa.device or "the CPU"),
            *(number(each) for each in (sa.packets, sa.packets - sa.by_cpu, sa.by_cpu)),
        )
    return table


def costs(parts: Iterable[Part]) -> Table:
    """What a packet costs the gateway itself."""
    table = _table("tunnels", "direction", "full L3", "flowtable", "factor", left=2)
    for cost in (cost for part in parts for cost in part.costs):
        for words, full, fast in (
            (WORDS["tx"], cost.tx_full, cost.tx_fast),
            (WORDS["rx"], cost.rx_full, cost.rx_fast),
        ):
            table.add_row(cost.of, words, whole(full), whole(fast), times(factor(fast, full)))
    return table


def wire(parts: Iterable[Part]) -> Table:
    """What left through the WAN's ends."""
    table = _table(
        *("tunnels", "captured during", "packets", "ESP", "ARP, ND, IKE", "unencrypted", "of tunnels' networks"),
        left=2,
    )
    for part in parts:
        for when, seen in (("full L3 path", part.full_wire), ("switch-over and flowtable", part.fast_wire)):
            other = max(0, seen.packets - seen.esp - seen.unencrypted)
            table.add_row(
                part.topology,
                when,
                *(number(each) for each in (seen.packets, seen.esp, other, seen.unencrypted)),
                Text(str(seen.inner), style="bold red" if seen.inner else "green"),
            )
    return table


def remarks(part: Part) -> Iterator[str]:
    """What else was seen, a line each."""
    for stream in part.streams:
        yield (
            f"{stream.tunnel}, IPv{stream.family}: {stream.sent} numbered packets went out and back while flowfast "
            f"started: {stream.lost} lost, {stream.reordered} out of order, {stream.corrupt} corrupted."
        )
    yield f"conntrack listed {len(part.offloaded)} connections as [OFFLOAD]."
    for window in (each for each in part.windows if each.start >= part.killed):
        yield (
            f"After kill -9 of the controllers: {share(window.traffic).plain} of the bytes on the fast path, "
            f"{mbit(window.bits_per_second)} Mbit/s."
        )


def number(value: int | None) -> str:
    """With thousands apart."""
    return "-" if value is None else f"{value:,}"


def whole(value: float | None) -> str:
    """A float that is as good as a whole number."""
    return "-" if value is None else f"{value:,.0f}"


def mbit(value: float | None) -> str:
    """Bits a second in Mbit/s."""
    return "-" if value is None else f"{value / 1e6:.1f}"


def times(value: float | None) -> str:
    """A factor."""
    return "-" if value is None else f"{value:.2f}x"


def share(traffic: Traffic) -> Text:
    """The fast path's share, red where it is not enough."""
    known = traffic.fast_share
    if known is None:
        return Text("-")
    return Text(f"{known:.2%}", style="green" if known >= ENOUGH else "bold red")
