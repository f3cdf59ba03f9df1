"""What libnftables' JSON listing of a table says, in the words of the model.

Shapes differ by version: `flags` is a list, or a string (1.1.4). Chains' hooks and flowtables are not taken from here,
but from netlink (wire.py).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, summarize_address_range
from typing import Any

from flowfast.model.errors import DecodeError
from flowfast.model.nftables import RULE_MARK, Element, Set


@dataclass(slots=True)
class Listing:
    """Chains with their rules (hashes, "?" for a rule that is not ours), sets and maps, named counters."""

    chains: dict[str, list[str]] = field(default_factory=dict)
    sets: dict[str, Set] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)


def parse(text: str) -> Listing:
    """The listing of one table. Raises DecodeError."""
    listing = Listing()
    try:
        for entry in json.loads(text)["nftables"]:
            for kind, found in entry.items():
                _add(listing, kind, found)
    except (ValueError, LookupError, TypeError, AttributeError) as wrong:
        raise DecodeError(f"nft: its JSON listing makes no sense: {wrong!r}") from wrong
    return listing


def _add(listing: Listing, kind: str, found: dict[str, Any]) -> None:
    match kind:
        case "chain":
            listing.chains.setdefault(found["name"], [])
        case "rule":
            comment = str(found.get("comment", ""))
            listing.chains.setdefault(found["chain"], []).append(comment if comment.startswith(RULE_MARK) else "?")
        case "set" | "map":
            listing.sets[found["name"]] = _set(found)
        case "counter":
            listing.counters.add(found["name"])


def _set(found: dict[str, Any]) -> Set:
    data = found.get("map")
    pairs = found.get("elem", ())
    flags = _listed(found.get("flags", ()))
    elements = {_element(key): "" for key in pairs} if data is None else {_element(key): _data(of) for key, of in pairs}
    return Set(
        name=found["name"],
        type=_type(found["type"]),
        interval="interval" in flags,
        data=None if data is None else _type(data),
        elements=elements,
        timeout="timeout" in flags,
    )


def _listed(value: Any) -> Iterable[Any]:
    return (value,) if isinstance(value, str) else value


def _type(value: str | list[str]) -> str:
    return " . ".join(_listed(value))


def _element(key: Any) -> Element:
    if isinstance(key, dict) and "elem" in key:  # an element with a timeout, counter or comment of its own
        key = key["elem"]["val"]
    if isinstance(key, dict) and "concat" in key:
        return tuple(_part(part) for part in key["concat"])
    return (_part(key),)


def _part(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    if "prefix" in part:
        return f"{part['prefix']['addr']}/{part['prefix']['len']}"
    if "range" in part:
        first, last = part["range"]
        return range_text(str(first), str(last))
    raise ValueError(f"an element of {sorted(part)}")


def range_text(first: str, last: str) -> str:
    """A range; as a prefix where it is one, as nft itself mostly writes it."""
    try:
        networks = list(summarize_address_range(ip_address(first), ip_address(last)))
    except (ValueError, TypeError):
        return f"{first}-{last}"
    return str(networks[0]) if len(networks) == 1 else f"{first}-{last}"


def _data(data: Any) -> str:
    if not isinstance(data, dict):
        return str(data)
    ((verdict, of),) = data.items()
    return f"{verdict} {of['target']}" if isinstance(of, dict) else str(verdict)
