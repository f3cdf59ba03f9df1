"""What `flowfast compare` found, as tables on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from flowfast.cli.output import print_reasons, table
from flowfast.compare.result import WORDS, Result
from flowfast.compare.verdict import Pair, pairs_of
from flowfast.compare.view import rows, sa_rows, sure, times, tunnel_rows, verdict


def show(result: Result, out: Console) -> None:
    """The verdict first, then what it is made of."""
    factor = result.findings.factor
    good = factor is not None and factor.differs and factor.value > 1
    out.print(Text(verdict(result), style="bold green" if good else "bold yellow"))
    if result.ended:
        out.print(Text(f"Ended early: {result.ended}.", style="yellow"))
    print_reasons(out, result.findings.reasons)
    pairs = pairs_of(result.windows)
    if pairs:
        _figures(result, pairs, out)
    print_reasons(out, [each.why_not for each in result.findings.tunnels if each.why_not])
    out.print(f"configuration {result.fingerprint_hash}, seed {result.seed}")


def _figures(result: Result, pairs: Sequence[Pair], out: Console) -> None:
    whole = table("all tunnels", WORDS["full"], WORDS["fast"], "factor", "interval")
    for row in rows(pairs, result.findings):
        whole.add_row(row.what, row.full, row.fast, times(row.factor), sure(row.factor))
    out.print(whole)
    ways = table("tunnel", "dir", WORDS["full"], WORDS["fast"], "more carried", "CPU factor", "interval")
    for way in tunnel_rows(pairs, result.findings):
        cells = (times(way.throughput), times(way.cpu), sure(way.cpu))
        ways.add_row(way.tunnel, way.direction, way.full, way.fast, *cells)
    out.print(ways)
    sas = table("tunnel", "dir", "SPI", WORDS["full"], WORDS["fast"])
    for sa in sa_rows(pairs):
        spi = "others" if sa.spi is None else f"0x{sa.spi:08x}"
        sas.add_row(sa.tunnel, sa.direction, spi, sa.full, sa.fast)
    out.print(sas)
