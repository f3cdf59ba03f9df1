"""Judges a result: every line is a reason for which the demo fails. Pure."""

from collections.abc import Iterator

from flowfast.lab.demo.result import WAYS, Part, Result, Route, Way

ENOUGH = 0.95
"""Share of the bytes of each tunnel and direction that must have taken the fast path."""

WORDS: dict[Way, str] = {"tx": "LAN to tunnel", "rx": "tunnel to LAN"}
PATHS: dict[Route, str] = {"full": "full L3 path", "fast": "flowtable"}


def problems(result: Result) -> list[str]:
    """Nothing if the demo showed what it should."""
    found = list(result.failures)
    for part in result.parts:
        found += (
            f"{part.topology}: {problem}" for problem in (*_paths(part), *_esp(part), *_wire(part), *_streams(part))
        )
    return found if found or result.parts else ["nothing was measured"]


def _paths(part: Part) -> Iterator[str]:
    for tunnel in part.tunnels:
        for way in WAYS:
            share = part.carried(tunnel, way, "fast").fast_share
            if share is None:
                yield f"{tunnel}, {WORDS[way]}: not a byte was carried"
            elif share < ENOUGH:
                yield f"{tunnel}, {WORDS[way]}: only {share:.1%} of the bytes took the fast path ({ENOUGH:.0%} wanted)"


def _esp(part: Part) -> Iterator[str]:
    for sa in part.esp:
        where = f"{sa.tunnel}, {WORDS[sa.way]}"
        if sa.wanted and sa.device is None:
            yield f"{where}: its SA is not in the NIC"
        elif sa.device is not None and not sa.wanted:
            yield f"{where}: its SA is in {sa.device}, and nobody asked for that"
        elif sa.device is not None and sa.by_cpu:
            yield f"{where}: the CPU did ESP, up to sequence number {sa.by_cpu}, in place of {sa.device}"


def _wire(part: Part) -> Iterator[str]:
    for wire, when in ((part.full_wire, "before flowfast ran"), (part.fast_wire, "while flowfast ran")):
        if wire.inner:
            yield (
                f"{wire.inner} packets of the tunnels' networks crossed the WAN unencrypted {when}, "
                f"the first one {wire.examples[0]}"
            )
        if wire.missed:
            yield f"{wire.missed} unencrypted packets {when} were lost to the capture, and so not looked at"
        if not wire.esp or not wire.packets:
            yield f"no ESP packet was seen on the WAN {when}"


def _streams(part: Part) -> Iterator[str]:
    for stream in part.streams:
        if stream.corrupt or stream.sent == stream.lost:
            yield (
                f"{stream.tunnel}, IPv{stream.family}: of {stream.sent} packets sent while flowfast started, "
                f"{stream.lost} were lost and {stream.corrupt} corrupted"
            )
