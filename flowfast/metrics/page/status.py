"""Makes the status page: reasons first, then how much went which way, then the tunnels that matter most.

One HTML document without anything from elsewhere: style and script are in it, and the policy in its header allows just
these two, by their hashes. Whatever text comes from the router is escaped.
"""

import base64
import hashlib
import socket
import time
from collections.abc import Iterable
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import parse_qs

from flowfast import __version__
from flowfast.metrics.history import History, Rate
from flowfast.metrics.page.charts import bits, paths_chart, sparkline
from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import Direction
from flowfast.model.snapshot import Snapshot
from flowfast.model.tunnel import Path as Way
from flowfast.model.tunnel import Tunnel, TunnelPath
from flowfast.plan.ruleset import accounting

ROWS = 100
"""Tunnels, and reasons, on the page; a router may have ten thousand."""

_WORST = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
BOTH = (Direction.OUT, Direction.IN)


@cache
def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def headers() -> tuple[tuple[str, str], ...]:
    """What a browser is told of the page: its own style and script, and nothing from anywhere else."""
    policy = {
        "default-src": "'none'",
        "script-src": _hash(_part("status.js")),
        "style-src": _hash(_part("status.css")),
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return (
        ("Content-Security-Policy", "; ".join(f"{key} {value}" for key, value in policy.items())),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    )


def status_page(snapshot: Snapshot | None, history: History, query: str = "") -> bytes:
    """The page as of a snapshot. `query`: the URL's; `q` in it keeps to tunnels whose name or peer has this in it."""
    host = escape(socket.gethostname())
    wanted = parse_qs(query).get("q", [""])[0].strip()
    main = _nothing_yet() if snapshot is None else _main(snapshot, history, wanted)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>flowfast on {host}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_part('status.css')}</style></head><body>"
        f"<header><h1>flowfast on {host}</h1><span class=dim>{escape(__version__)}</span>"
        '<a href="/metrics">metrics</a><span id="lost" class="error">no answer from the router</span></header>'
        f"{main}<script>{_part('status.js')}</script></body></html>\n"
    )
    return page.encode("utf-8", "replace")


def _nothing_yet() -> str:
    return '<main><p class="warning">The controller has not looked at the router yet.</p></main>'


def _main(snapshot: Snapshot, history: History, wanted: str) -> str:
    return (
        f"<main>{_headline(snapshot)}{_reasons(snapshot.reasons)}{_throughput(snapshot, history)}"
        f"{_tunnels(snapshot, history, wanted)}</main>"
    )


def _headline(snapshot: Snapshot) -> str:
    done, state = snapshot.reconciles, snapshot.state
    at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(state.taken_at))
    devices = ", ".join(sorted(state.hooked))
    where = f'<span class="ok">flowtable on {escape(devices)}</span>' if devices else (
        '<span class="warning">no flowtable: all traffic takes the full path</span>'
    )  # fmt: skip
    failed = f', <span class="warning">{done.failed} failed</span>' if done.failed else ""
    return (
        f"<p>{where}; as of {escape(at)}, {done.total} rounds{failed}, {done.changes} changes, {done.flushes} flushes; "
        f"accounting: {accounting(snapshot.desired.ruleset)}</p>"
    )


def _reasons(reasons: Iterable[Reason]) -> str:
    ordered = sorted(reasons, key=lambda reason: (_WORST[reason.severity], reason))
    if not ordered:
        return '<p class="ok">Nothing stands in the way of the fast path.</p>'
    rows = "".join(
        f'<tr><td class="{reason.severity.value}">{reason.severity.value}</td><td>{escape(reason.object)}</td>'
        f"<td>{escape(reason.sentence)}<small>{escape(reason.remedy)}</small></td></tr>"
        for reason in ordered[:ROWS]
    )
    listed = _table("<th>how bad<th>what<th>why", rows)
    return f"<h2>What is missing, and what to do</h2>{listed}{_more(len(ordered), 'reasons')}"


def _throughput(snapshot: Snapshot, history: History) -> str:
    chart = paths_chart(history.points)
    if not chart:
        return "<h2>Throughput</h2><p class=dim>Measuring: there is a chart after the third look at the router.</p>"
    last = history.points[-1]
    unknown = f', <span class="dim">{bits(last.unknown)} not told apart</span>' if last.unknown else ""
    return (
        f'<h2>Throughput</h2><p><span class="fast">&#9632; {bits(last.fast)} on the flowtable</span>, '
        f'<span class="slow">&#9632; {bits(last.slow)} on the full L3 path</span>{unknown}</p>{chart}'
    )


def _tunnels(snapshot: Snapshot, history: History, wanted: str) -> str:
    every = snapshot.desired.paths
    some = [path for path in every if wanted.casefold() in f"{path.tunnel.name} {path.tunnel.key.remote}".casefold()]
    some.sort(
        key=lambda path: (_up(path, history) is not False, -sum(history.line(path.tunnel.name)[-1:]), path.tunnel.name)
    )
    find = (
        f'<form><input name="q" value="{escape(wanted)}" placeholder="name or peer" aria-label="name or peer"></form>'
        if len(every) > ROWS or wanted
        else ""
    )
    head = (
        "<th>tunnel<th>peer<th class=n>SAs in/out<th>to the tunnel<th class=n>rate<th class=n>on flowtable"
        "<th>from the tunnel<th class=n>rate<th class=n>on flowtable<th>last minutes"
    )
    rows = "".join(_row(path, history) for path in some[:ROWS])
    down = sum(_up(path, history) is False for path in every)
    count = f"{len(every)} tunnels" + (f', <span class="warning">{down} down</span>' if down else "")
    return f"<h2>{count}</h2>{find}{_table(head, rows)}{_more(len(some), 'tunnels')}"


def _busiest(name: str, history: History) -> tuple[float, str]:
    return -sum(history.line(name)[-1:]), name


def _up(path: TunnelPath, history: History) -> bool | None:
    tunnel = path.tunnel
    return all(_sas(tunnel, history)) if tunnel.key.remote else None


def _sas(tunnel: Tunnel, history: History) -> tuple[int, int]:
    return history.sas.get(tunnel.name, (0, 0))


def _row(path: TunnelPath, history: History) -> str:
    tunnel = path.tunnel
    down = ' <span class="warning">down</span>' if _up(path, history) is False else ""
    inbound, outbound = _sas(tunnel, history)
    cells = f"<td>{escape(tunnel.name)}{down}<td>{escape(tunnel.key.remote or '-')}"
    cells += f"<td class=n>{inbound}/{outbound}"
    for way, direction in zip((path.tx, path.rx), BOTH, strict=True):
        cells += _way(way) + _rate(history.rates.get((tunnel.name, direction)))
    return f"<tr>{cells}<td>{sparkline(history.line(tunnel.name))}</tr>"


def _way(way: Way) -> str:
    css, name = ("fast", "flowtable") if way.fast else ("slow", "full path")
    return f'<td><span class="{css}">{name}</span><small>{escape(way.how)}</small>'


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return "<td class=n>-<td class=n>-"
    share = "-" if rate.share is None else f"{rate.share:.1%}"
    return f"<td class=n>{bits(rate.bytes)}<td class=n>{share}"


def _table(head: str, rows: str) -> str:
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _more(number: int, what: str) -> str:
    return f"<p class=dim>and {number - ROWS} more {what}</p>" if number > ROWS else ""
