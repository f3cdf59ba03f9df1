"""Forwarding, reverse path filtering, and the switches that turn IPsec off on a device."""

from collections.abc import Iterable, Iterator

from flowfast.model.link import Link
from flowfast.model.reason import Reason, Severity
from flowfast.plan.checks.base import Check, Examination, some
from flowfast.plan.roles import Role

_AREA = "sysctls"
_FAMILIES = (("IPv4", "net.ipv4", "net.ipv4.ip_forward"), ("IPv6", "net.ipv6", "net.ipv6.conf.all.forwarding"))
_SIDES = (Role.LAN, Role.WAN, Role.XFRM)
STRICT = 1

CONNTRACK = tuple(
    f"net.netfilter.nf_{name}"
    for name in (
        "conntrack_acct",
        "conntrack_max",
        "conntrack_count",
        "conntrack_buckets",
        "conntrack_tcp_timeout_established",
        "conntrack_udp_timeout_stream",
        "flowtable_tcp_timeout",
        "flowtable_udp_timeout",
    )
)


def wanted_sysctls(links: Iterable[Link]) -> list[str]:
    """All that the checks ask for: of the router, and of each device."""
    names = [*CONNTRACK, "net.ipv4.conf.all.rp_filter", *(forward for _, _, forward in _FAMILIES)]
    for link in links:
        names += [_of("net.ipv4", link.name, each) for each in ("forwarding", "rp_filter", "disable_xfrm")]
        names += [_of(family, link.name, "disable_policy") for _, family, _ in _FAMILIES]
        names.append(_of("net.ipv6", link.name, "forwarding"))
    return names


def _of(family: str, device: str, name: str) -> str:
    # As sysctl(8) has it: the dot of a VLAN's name is written as a slash.
    return f"{family}.conf.{device.replace('.', '/')}.{name}"


def sysctls(seen: Examination) -> Iterator[Check]:
    """Is it forwarded, is it dropped for its source, is it let past IPsec?"""
    for family, prefix, forward in _FAMILIES:
        value = seen.sysctl(forward)
        if value is not None:
            yield Check(_AREA, forward, value, _forwarding(seen, family, prefix, forward, value))
    yield from _rp_filter(seen)
    yield from _ipsec_off(seen)


def _forwarding(seen: Examination, family: str, prefix: str, forward: str, value: str) -> Reason | None:
    if value == "0":
        sentence = f"{family} is not forwarded, so no {family} flow can be fast"
        return Reason("NOT_FORWARDING", forward, sentence, f"sysctl -w {forward}=1")
    for link in seen.facing(*_SIDES):
        name = _of(prefix, link.name, "forwarding")
        if seen.sysctl(name) == "0":
            sentence = f"{family} that arrives on {link.name} is not forwarded"
            return Reason("NOT_FORWARDING", name, sentence, f"sysctl -w {name}=1")
    return None


def _rp_filter(seen: Examination) -> Iterator[Check]:
    """Strict filtering drops what arrives on another device than the one towards its source. Decrypted packets are
    exempt as long as they have their secpath (fib_validate_source, net/ipv4/fib_frontend.c), which one that crosses
    into another network namespace has not. A connection that is fast is not checked."""
    for_all = seen.number("net.ipv4.conf.all.rp_filter") or 0
    wan = [link.name for link in seen.facing(Role.WAN)]
    strict = [
        link.name
        for link in seen.facing(*_SIDES)
        # The larger of the two counts (IN_DEV_RPFILTER).
        if max(for_all, seen.number(_of("net.ipv4", link.name, "rp_filter")) or 0) == STRICT
    ]
    if not seen.facing(*_SIDES):
        return
    reason = None
    crossing = [link.name for link in seen.state.links if link.is_xfrm and link.underlay_netns is not None]
    if hit := [name for name in crossing if name in strict]:
        sentence = (
            "what comes out of this tunnel has no secpath in this network namespace: on the full path it is dropped "
            f"unless the route to its source leads back into {hit[0]}"
        )
        reason = Reason("RP_FILTER", hit[0], sentence, f"sysctl -w {_of('net.ipv4', hit[0], 'rp_filter')}=2")
    elif len(wan) > 1 and (hit := [name for name in wan if name in strict]):
        sentence = (
            f"ESP that arrives here is dropped where the route to its peer leaves by another of {some(wan)} "
            "(nstat IPReversePathFilter counts it)"
        )
        remedy = f"sysctl -w {_of('net.ipv4', hit[0], 'rp_filter')}=2"
        reason = Reason("RP_FILTER", hit[0], sentence, remedy, Severity.INFO)
    yield Check(_AREA, "rp_filter", f"strict on {some(strict)}" if strict else "not strict", reason)


def _ipsec_off(seen: Examination) -> Iterator[Check]:
    links = seen.facing(Role.LAN, Role.WAN) or [link for link in seen.state.links if link.name != "lo"]
    # Without IPsec policies these switches change nothing; the LAN's disable_xfrm is of no consequence either.
    if not seen.tunnels:
        return
    wan = seen.facing(Role.WAN) or links
    unchecked = [
        (link.name, name)
        for link in links
        for name in (_of("net.ipv4", link.name, "disable_policy"), _of("net.ipv6", link.name, "disable_policy"))
        if not link.is_xfrm and seen.sysctl(name) == "1"
    ]
    clear = [
        (link.name, name)
        for link in wan
        if not link.is_xfrm and seen.sysctl(name := _of("net.ipv4", link.name, "disable_xfrm")) == "1"
    ]
    yield _switch(
        "disable_policy",
        unchecked,
        "POLICY_DISABLED",
        "the kernel does not check what arrives here against the policies: plaintext of tunnels is let in",
    )
    yield _switch(
        "disable_xfrm", clear, "XFRM_DISABLED", "what leaves here is not encrypted, whatever the policies ask for"
    )


def _switch(name: str, on: list[tuple[str, str]], code: str, sentence: str) -> Check:
    if not on:
        return Check(_AREA, name, "0")
    device, sysctl = on[0]
    found = f"on: {some(list(dict.fromkeys(device for device, _ in on)))}"
    return Check(_AREA, name, found, Reason(code, device, sentence, f"sysctl -w {sysctl}=0", Severity.ERROR))
