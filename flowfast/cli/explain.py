"""`flowfast explain SRC DST [PROTO] [PORT]`: which path a connection takes, by which tunnel and SA, and why."""

import asyncio
import json
from ipaddress import ip_address

import click
from rich.text import Text

from flowfast.cli.common import json_option
from flowfast.cli.output import STYLES, console, reason_json
from flowfast.cli.settings import set_option
from flowfast.cli.sight import NO_CONFIG, Look, look, with_growth
from flowfast.model.errors import UsageError
from flowfast.model.reason import Reason
from flowfast.model.sa import SA
from flowfast.model.state import Flow, Status, TcpState
from flowfast.model.tunnel import Tunnel
from flowfast.plan.explain import Answer, Query, Way
from flowfast.plan.explain import explain as reasons_of
from flowfast.plan.flows import proto_number

NOT_FAST = 3
"""Exit code where a connection is not, or not in both directions, on the flowtable."""
WATCH_SECONDS = 0.5
"""How long SAs are watched to see which of several carries packets."""


@click.command("explain")
@click.argument("src")
@click.argument("dst")
@click.argument("protocol", required=False, metavar="[tcp|udp|PROTO]")
@click.argument("port", type=click.IntRange(1, 65535), required=False)
@click.option("--source-port", type=click.IntRange(1, 65535), help="Port of the end that opened the connection.")
@click.option("--size", type=click.IntRange(1, 65535), help="Bytes of a packet: does it fit the tunnel?")
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Connections to speak of.")
@click.option("--config", type=click.Path(), help="The config; by default this router's own, if it has one.")
@set_option
@json_option
@click.pass_context
def explain(
    context: click.Context,
    *,
    src: str,
    dst: str,
    protocol: str | None,
    port: int | None,
    source_port: int | None,
    size: int | None,
    limit: int,
    config: str | None,
    settings: dict[str, str],
    as_json: bool,
) -> None:
    """Say which path the connection between SRC and DST takes, and the first reason why it is not fast.

    Either end may come first; PORT is the service's. Asks the kernel as it is now. Exits 0 where every connection that
    is meant is on the flowtable in both directions, 3 where one is not or none is tracked.
    """
    query = Query(*_ends(src, dst), _protocol(protocol), port, source_port, size)
    seen, answers = asyncio.run(_ask(query, config, settings))
    answers.sort(key=lambda answer: answer.fast)
    if as_json:
        listed = [_json(answer) for answer in answers[:limit]]
        said = {"fast": _all_fast(answers), "config": seen.config is not None, "matching": len(answers)}
        click.echo(json.dumps({**said, "connections": listed}, indent=2))
    else:
        out = console()
        for answer in answers[:limit]:
            out.print(_text(answer))
        if rest := answers[limit:]:
            fast = sum(answer.fast for answer in rest)
            out.print(f"and {len(rest)} more, {fast} of them fast (--source-port names one, --limit shows more)")
        if seen.config is None:
            out.print(NO_CONFIG, style="dim")
    if not _all_fast(answers):
        context.exit(NOT_FAST)


def _ends(src: str, dst: str) -> tuple[str, str]:
    found = []
    for text in (src, dst):
        try:
            found.append(ip_address(text))
        except ValueError:
            raise UsageError(f"{text}: is not an IP address (explain takes two of them)") from None
        if "%" in text:
            raise UsageError(f"{text}: an address with a scope stays on its link, and is never forwarded")
    if found[0].version != found[1].version:
        raise UsageError(f"{src} and {dst}: one is IPv4, the other IPv6; a connection has one family")
    return str(found[0]), str(found[1])


def _protocol(text: str | None) -> int | None:
    if text is None:
        return None
    number = proto_number(text)
    if number is None:
        raise UsageError(f"{text}: no such protocol (tcp, udp, icmp, gre, ..., or a number from 0 to 255)")
    return number


async def _ask(query: Query, config: str | None, settings: dict[str, str]) -> tuple[Look, list[Answer]]:
    seen = await look(config, settings)
    answers = reasons_of(query, await seen.flows(), seen.sight)
    if any(way.sa is None and len(way.sas) > 1 for answer in answers if answer.flow for way in (answer.tx, answer.rx)):
        seen = await with_growth(seen, WATCH_SECONDS)
        answers = reasons_of(query, await seen.flows(), seen.sight)
    return seen, answers


def _all_fast(answers: list[Answer]) -> bool:
    return all(answer.fast for answer in answers)


# for a person


def _text(answer: Answer) -> Text:
    text = Text()
    verdict = "fast" if answer.fast else "not fast" if answer.flow else "not tracked"
    text.append(f"{answer.packet}: ").append(verdict, style="green" if answer.fast else "yellow")
    lines = [("conntrack", _conntrack(answer.flow)), ("tunnel", _tunnel(answer.tunnel))]
    for name, way in (("tx", answer.tx), ("rx", answer.rx)):
        lines.append((name, _way(answer, way)))
    for name, line in lines:
        text.append(f"\n  {name:<10} {line}")
    for reason in _reasons(answer):
        about = "" if reason.object == str(answer.packet) else f"{reason.object}: "
        text.append(f"\n  {'why':<10} ")
        text.append(f"{about}{reason.sentence} [{reason.code}]", style=STYLES[reason.severity])
        if reason.remedy:
            text.append(f"\n  {'remedy':<10} {reason.remedy}")
    for hint in answer.hints:
        text.append(f"\n  {'':<10} {hint.sentence}", style="dim")
    return text


def _reasons(answer: Answer) -> list[Reason]:
    """The first reason, and that of each direction where it is another."""
    return list(dict.fromkeys(each for each in (answer.reason, answer.tx.reason, answer.rx.reason) if each))


def _conntrack(flow: Flow | None) -> str:
    if flow is None:
        return "shows no such connection; one would take:"
    said = ["HW_OFFLOAD"] if flow.hardware else ["OFFLOAD"] if flow.offloaded else ["no OFFLOAD"]
    if flow.tcp_state is not None:
        said.append(str(_state(flow)))
    said.append("answered" if flow.established else "unanswered")
    if flow.says(Status.ASSURED):
        said.append("ASSURED")
    if flow.helper:
        said.append(f"helper {flow.helper}")
    if flow.mark:
        said.append(f"mark {flow.mark:#x}")
    if flow.zone:
        said.append(f"zone {flow.zone}")
    if flow.packets is not None and flow.bytes is not None:
        said.append(f"{sum(flow.packets):,} packets, {sum(flow.bytes):,} bytes")
    return ", ".join(said)


def _state(flow: Flow) -> str | None:
    if flow.tcp_state is None:
        return None
    return TcpState(flow.tcp_state).name if flow.tcp_state in set(TcpState) else str(flow.tcp_state)


def _tunnel(tunnel: Tunnel | None) -> str:
    if tunnel is None:
        return "none"
    key = tunnel.key
    ends = f"{key.local} - {key.remote}, reqid {key.reqid}" if key.remote else "its SAs are not to be seen here"
    where = f", {tunnel.interface}" if tunnel.interface else ""
    netns = f", SAs in netns {key.netns}" if key.netns else ""
    return f"{tunnel.name} ({tunnel.topology}: {ends}{where}{netns})"


def _way(answer: Answer, way: Way) -> str:
    path = ("flowtable" if way.fast else "full path") + (f" ({way.how})" if way.fast and way.how else "")
    if answer.tunnel is None:
        return path
    return f"{path}, {_sa(way)}"


def _sa(way: Way) -> str:
    if way.sa is not None:
        return f"SA {_sa_text(way.sa)}"
    if not way.sas:
        return "no SA"
    several = ", ".join(map(_sa_text, way.sas[:4])) + (", ..." if len(way.sas) > 4 else "")
    if any(sa.pcpu is not None for sa in way.sas):
        return f"one of {len(way.sas)} SAs, by the CPU that it is on: {several}"
    return f"one of {len(way.sas)} SAs, which cannot be told now: {several}"


def _sa_text(sa: SA) -> str:
    return f"{sa.spi:#010x}" + (" (any CPU)" if sa.pcpu is None else f" (CPU {sa.pcpu})")


# for a program


def _json(answer: Answer) -> dict[str, object]:
    return {
        "connection": str(answer.packet),
        "fast": answer.fast,
        "reason": reason_json(answer.reason),
        "conntrack": _flow_json(answer.flow),
        "tunnel": answer.tunnel.name if answer.tunnel else None,
        "mtu": answer.mtu,
        "tx": _way_json(answer.tx),
        "rx": _way_json(answer.rx),
        "hints": [reason_json(hint) for hint in answer.hints],
    }


def _flow_json(flow: Flow | None) -> dict[str, object] | None:
    if flow is None:
        return None
    return {
        "proto": flow.proto,
        "original": {"src": flow.src, "sport": flow.sport, "dst": flow.dst, "dport": flow.dport},
        "reply": {"src": flow.reply_src, "sport": flow.reply_sport, "dst": flow.reply_dst, "dport": flow.reply_dport},
        "offload": "hardware" if flow.hardware else "software" if flow.offloaded else None,
        "established": flow.established,
        "assured": flow.says(Status.ASSURED),
        "tcp_state": _state(flow),
        "helper": flow.helper,
        "mark": flow.mark,
        "zone": flow.zone,
        "packets": flow.packets,
        "bytes": flow.bytes,
    }


def _way_json(way: Way) -> dict[str, object]:
    return {
        "path": "flowtable" if way.fast else "l3",
        "how": way.how,
        "sa": None if way.sa is None else {"spi": way.sa.spi, "pcpu": way.sa.pcpu},
        "sas": [{"spi": sa.spi, "pcpu": sa.pcpu} for sa in way.sas],
        "reason": reason_json(way.reason),
    }
