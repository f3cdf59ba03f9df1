"""The SAs and policies as the kernel has them, whoever made them."""

from collections.abc import Iterator

from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import Direction
from flowfast.plan.checks.base import Check, Examination, some

_AREA = "ipsec"
ENOUGH = 64
"""Packets of a replay window that RFC 4303 (section 3.4.3) would have by default; 32 is the least that it allows."""
_NOPMTUDISC = 4  # XFRM_STATE_NOPMTUDISC of linux/xfrm.h: the outer header does not take DF from the inner one


def sas(seen: Examination) -> Iterator[Check]:
    """Replay windows, DF, offload to a device, optional policies."""
    inbound = [(tunnel.name, sa) for tunnel in seen.tunnels for sa in tunnel.inbound]
    both = [(tunnel.name, sa) for tunnel in seen.tunnels for sa in (*tunnel.inbound, *tunnel.outbound)]
    if inbound:
        windows = sorted({sa.replay.window for _, sa in inbound})
        small = list(dict.fromkeys(name for name, sa in inbound if sa.replay.window < ENOUGH))
        none = list(dict.fromkeys(name for name, sa in inbound if not sa.replay.window))
        found = f"{windows[0]} packets" if len(windows) == 1 else f"{windows[0]} to {windows[-1]} packets"
        yield Check(_AREA, "replay window", found, _window(small, none))
    if both:
        cut = list(dict.fromkeys(name for name, sa in both if sa.flags & _NOPMTUDISC))
        yield Check(_AREA, "DF", f"not copied: {some(cut)}" if cut else "copied", _df(cut))
        yield Check(_AREA, "offload to a device", _offload(seen))
    optional = [
        f"{policy.selector.src} -> {policy.selector.dst}"
        for policy in seen.state.policies
        if policy.direction is not Direction.IN
        and not policy.action
        and policy.templates
        and all(template.optional for template in policy.templates)
    ]
    if seen.state.policies:
        found = f"optional: {some(optional)}" if optional else "required"
        yield Check(_AREA, "policies", found, _optional(optional))


def _window(small: list[str], none: list[str]) -> Reason | None:
    remedy = "swanctl.conf: replay_window = 128 (libreswan: replay-window=128)"
    if none:
        sentence = "takes packets that were sent before once more: its replay window is 0"
        return Reason("NO_REPLAY_WINDOW", some(none), sentence, remedy)
    if small:
        sentence = (
            f"a replay window of less than {ENOUGH} packets: what is reordered on the way, or between CPUs, is dropped"
        )
        return Reason("REPLAY_WINDOW_SMALL", some(small), sentence, remedy, Severity.INFO)
    return None


def _df(cut: list[str]) -> Reason | None:
    if not cut:
        return None
    sentence = (
        "packets too big for the WAN are encrypted whole and then cut, and the peer has to put them together again "
        "before it can decrypt them"
    )
    remedy = "swanctl.conf: copy_df = yes (libreswan: nopmtudisc=no); the MSS is clamped either way"
    return Reason("DF_NOT_COPIED", some(cut), sentence, remedy, Severity.INFO)


def _offload(seen: Examination) -> str:
    names = {link.ifindex: link.name for link in seen.state.links}
    counts: dict[str, int] = {}
    for tunnel in seen.tunnels:
        for sa in (*tunnel.inbound, *tunnel.outbound):
            if sa.offload is not None:
                what = "packet" if sa.offload.packet else "crypto"
                word = f"{what} on {names.get(sa.offload.ifindex, sa.offload.ifindex)}"
                counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{word}: {count} SAs" for word, count in sorted(counts.items())) or "none"


def _optional(optional: list[str]) -> Reason | None:
    if not optional:
        return None
    sentence = (
        'its template is optional ("level use"): without an SA packets leave in the clear, and plaintext is let in; '
        "flowfast leaves it alone"
    )
    return Reason("POLICY_OPTIONAL", optional[0], sentence, "make it required", Severity.ERROR)
