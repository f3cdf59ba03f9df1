"""How facts look on a terminal: the same Reason and the same path, wherever they are printed."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowfast.apply.commit import transactions
from flowfast.cli.steering import steering_json
from flowfast.model.desired import Desired, Step
from flowfast.model.knob import KnobKind, Turn
from flowfast.model.reason import Reason, Severity
from flowfast.model.tunnel import Path, TunnelPath

FIRST = ("BULK_CONDEMNED",)
"""Before all other errors: packets are being broken now."""
STYLES = {Severity.INFO: "dim", Severity.WARNING: "yellow", Severity.ERROR: "bold red"}


def console() -> Console:
    """Standard output; as wide as its lines where it is no terminal, so that nothing is cut.

    Without markup: the name of a tunnel is the operator's, brackets and all.
    """
    out = Console(highlight=False, markup=False, soft_wrap=True)
    return out if out.is_terminal else Console(highlight=False, markup=False, width=200)


def table(*columns: str) -> Table:
    """A table without a frame."""
    return Table(*columns, box=None, pad_edge=False, header_style="bold")


def path_text(path: Path) -> Text:
    """A path, green where it is the fast one."""
    return Text(str(path), style="green" if path.fast else "yellow")


def print_steps(out: Console, steps: Sequence[Step]) -> None:
    """What would be done, a line each."""
    if not steps:
        out.print("Nothing to do: the kernel holds what the config asks for.")
        return
    count = len(transactions(steps))
    out.print(f"{len(steps)} steps, {'one transaction' if count == 1 else f'{count} transactions'}:", style="bold")
    for step in steps:
        out.print(f"  {'~' if step.flushes else '+'} {step.what}{' (a transaction of its own)' if step.before else ''}")


def print_paths(out: Console, paths: Iterable[TunnelPath]) -> None:
    """The way of every tunnel, by direction."""
    listed = table("tunnel", "topology", "peer", "tx", "rx")
    for path in paths:
        tunnel = path.tunnel
        listed.add_row(
            tunnel.name, str(tunnel.topology), tunnel.key.remote or "-", path_text(path.tx), path_text(path.rx)
        )
    out.print(listed if listed.row_count else "No tunnel is there: no policy with an ESP template, no xfrm interface.")


def print_reasons(out: Console, reasons: Iterable[Reason]) -> None:
    """Every reason, a line each, the worst first."""
    order = list(reversed(Severity))
    for reason in sorted(reasons, key=lambda one: (order.index(one.severity), one.code not in FIRST, one)):
        out.print(Text(f"{reason.severity}: {reason} [{reason.code}]", style=STYLES[reason.severity]))


def reason_json(reason: Reason | None) -> dict[str, str] | None:
    """A reason for --json."""
    if reason is None:
        return None
    return {
        "code": reason.code,
        "object": reason.object,
        "sentence": reason.sentence,
        "remedy": reason.remedy,
        "severity": str(reason.severity),
    }


def path_json(path: TunnelPath) -> dict[str, object]:
    """A tunnel's identity and paths for --json."""
    tunnel = path.tunnel
    return {
        "tunnel": tunnel.name,
        "topology": str(tunnel.topology),
        "reqid": tunnel.key.reqid,
        "if_id": tunnel.key.if_id,
        "local": tunnel.key.local,
        "remote": tunnel.key.remote,
        "netns": tunnel.key.netns,
        "interface": tunnel.interface,
        "selectors": [{"local": each.local, "remote": each.remote} for each in tunnel.selectors],
        "tx": {"fast": path.tx.fast, "how": path.tx.how, "reason": reason_json(path.tx.reason)},
        "rx": {"fast": path.rx.fast, "how": path.rx.how, "reason": reason_json(path.rx.reason)},
    }


def print_turns(out: Console, turns: Sequence[Turn]) -> None:
    """The knobs that would be turned, a line each."""
    if turns:
        out.print(f"{len(turns)} knobs to turn, their values kept to be turned back:", style="bold")
    for turn in turns:
        stops = turn.knob.kind is KnobKind.NIC and turn.knob.name.startswith(("rings", "channels"))
        out.print(Text(f"  + {turn}{' (interrupts the device)' if stops else ''}"))


def plan_json(desired: Desired, steps: Sequence[Step], turns: Sequence[Turn] = ()) -> dict[str, object]:
    """A plan for --json: the steps with their nft commands, the knobs, the paths, the reasons."""
    return {
        "steps": [
            {"what": step.what, "flushes": step.flushes, "nft": [str(command) for command in step.commands]}
            for step in steps
        ],
        "knobs": [{"knob": str(turn.knob), "from": turn.held, "to": turn.value, "back": turn.back} for turn in turns],
        "steering": None if desired.steering is None else steering_json(desired.steering),
        "paths": [path_json(path) for path in desired.paths],
        "reasons": [reason_json(reason) for reason in desired.reasons],
    }


def rate(bytes_per_second: float | None) -> str:
    """Throughput in bits, as network people write it; "-" where it is unknown."""
    if bytes_per_second is None:
        return "-"
    bits = bytes_per_second * 8
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if bits < 1000:
            return f"{bits:.3g} {unit}"
        bits /= 1000
    return f"{bits:.3g} Gbit/s"
