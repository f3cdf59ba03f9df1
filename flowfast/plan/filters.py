"""What of the traffic may be fast: the config's `offload` and `exclude` as rules that return before a flow is added.

Every rule says what stays on the full path. A flow is added by one packet, and from then on none of this is looked at
again (kernel-facts.md 1.2): so a changed filter takes all flows off (plan/diff.py).
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from flowfast.config.offload import Exclude, Offload
from flowfast.config.traffic import Mark
from flowfast.model.nftables import Element, Set

EXCLUDED_ADDRESSES = "excluded"
"""Sets (by family) of addresses whose connections keep to the full path."""
EXCLUDED = "excluded_"
"""Begins the names of the counters of what stays on the full path."""


def excluded_counters(offload: Offload, exclude: Exclude) -> frozenset[str]:
    """A counter for each key of the config that keeps something on the full path."""
    keys = [key for key in ("addresses", "ports", "marks", "dscp") if getattr(exclude, key)]
    return frozenset(EXCLUDED + key for key in (*keys, *(["conditions"] if _conditions(offload) else [])))


def filter_rules(offload: Offload, exclude: Exclude) -> list[str]:
    """Rules of the chain in front of `flow add`; TCP and UDP only come here."""
    return [*_exclusions(exclude), *_conditions(offload)]


def excluded_sets(exclude: Exclude) -> list[Set]:
    """The excluded addresses, by family, as sets without overlaps."""
    four = [prefix for prefix in exclude.addresses if isinstance(prefix, IPv4Network)]
    six = [prefix for prefix in exclude.addresses if isinstance(prefix, IPv6Network)]
    sets = []
    if four:
        sets.append(_prefix_set("4", "ipv4_addr", (str(prefix) for prefix in collapse_addresses(four)), "/32"))
    if six:
        sets.append(_prefix_set("6", "ipv6_addr", (str(prefix) for prefix in collapse_addresses(six)), "/128"))
    return sets


def _prefix_set(digit: str, kind: str, prefixes: Iterable[str], host: str) -> Set:
    elements: dict[Element, str] = {(prefix.removesuffix(host),): "" for prefix in prefixes}
    return Set(f"{EXCLUDED_ADDRESSES}{digit}", kind, interval=True, elements=elements)


def _exclusions(exclude: Exclude) -> list[str]:
    rules = []
    for each in excluded_sets(exclude):
        ip = "ip" if each.name.endswith("4") else "ip6"
        rules += [f"{ip} {end} @{each.name} {_counted('addresses')}" for end in ("saddr", "daddr")]
    rules += [f"th {end} {_listed(exclude.ports)} {_counted('ports')}" for end in ("sport", "dport") if exclude.ports]
    rules += [f"{_marked(mark, '==')} {_counted('marks')}" for mark in exclude.marks]
    if exclude.dscp:
        rules += [f"{ip} dscp {_listed(exclude.dscp)} {_counted('dscp')}" for ip in ("ip", "ip6")]
    return rules


def _counted(key: str) -> str:
    return f"counter name {EXCLUDED}{key} return"


def _conditions(offload: Offload) -> list[str]:
    rules = []
    if offload.ports:
        # The port that the connection was made to, whichever way this packet goes and whatever NAT did to it.
        # nft 1.0.6 only knows what kind of number it is where the protocol is named in the same rule.
        ports = f"meta l4proto {{ 6, 17 }} ct original proto-dst != {_listed(offload.ports)}"
        rules.append(f"{ports} {_counted('conditions')}")
    if offload.marks:
        rules.append(" ".join(_marked(mark, "!=") for mark in offload.marks) + f" {_counted('conditions')}")
    if offload.dscp:
        rules += [f"{ip} dscp != {_listed(offload.dscp)} {_counted('conditions')}" for ip in ("ip", "ip6")]
    if offload.zones:
        rules.append(f"ct zone != {_listed(offload.zones)} {_counted('conditions')}")
    if offload.after_packets:
        rules.append(f"ct packets < {offload.after_packets} {_counted('conditions')}")
    return rules


def _marked(mark: Mark, how: str) -> str:
    return f"meta mark & {mark.mask:#x} {how} {mark.value:#x}"


def _listed(values: Iterable[object]) -> str:
    return "{ " + ", ".join(str(value) for value in values) + " }"
