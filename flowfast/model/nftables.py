"""What a ruleset is made of, and the text of it in nft's own syntax.

A tiny vocabulary in the manner of knftables: typed objects, and operations (Add, Flush, Delete) on them that make one
transaction. Native syntax and not JSON, because libnftables' JSON drops a flowtable's flags (src/json.c up to 1.1.7).
Every rule carries a comment with the hash of its own text: so a ruleset read back from the kernel can be compared with
the one wanted, whatever the nft version makes of its spelling.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

OWN_TABLE = "flowfast"
"""The name of our two tables, of family inet and netdev; every other table is somebody else's."""

_KEYWORDS = """
    accept add ah all and arp auto-merge bridge bytes cgroup chain comment comp constant continue counter cpu
    create ct day dccp define delete describe device devices dnat drop dst dup dynamic ecn element elements esp
    ether exists expires export exthdr fib flags flow flowtable flush frag fwd gc-interval get goto gt handle hbh
    hook hour ibriport ibrname icmp icmpv6 igmp iif iifgroup iifname iiftype import include index inet insert
    interval ip ip6 ipsec jhash jump last limit list log lt map mark masquerade meta meter mh missing monitor name
    ne netdev nftrace not notrack numgen obriport obrname offload oif oifgroup oifname oiftype or osf packets
    pkttype policy position priority queue quota random redefine redirect reject rename replace reset return rt
    rt0 rt2 rtclassid rule ruleset sctp secmark set size skgid skuid snat socket srh symhash synproxy table tcp th
    time timeout tproxy tunnel type typeof udp udplite undefine update vlan vmap xor xt
"""
KEYWORDS = frozenset(_KEYWORDS.split())
"""Words that no chain, set, flowtable or counter may be named (nft 1.0.6 calls them a syntax error)."""

RULE_MARK = "ff:"
"""How the comment of a rule of ours begins."""

Element = tuple[str, ...]
"""Element of a set: its parts as nft lists them, concatenated with `.`, names without quotes.

A prefix without host bits ("10.1.0.0/16"), a host without length ("10.2.0.1"), a range ("10.0.0.1-10.0.0.5") only where
no prefix says the same, a device ("lan0"), a protocol or port by its number ("6").
"""


@dataclass(frozen=True, slots=True, order=True)
class Table:
    """A table by family ("inet", "netdev") and name."""

    family: str
    name: str

    def __str__(self) -> str:
        return f"{self.family} {self.name}"


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain stands. `priority` as a number; `device` for netdev ingress."""

    type: str
    hook: str
    priority: int
    policy: str = "accept"
    device: str | None = None

    def __str__(self) -> str:
        device = f' device "{self.device}"' if self.device else ""
        return f"type {self.type} hook {self.hook}{device} priority {self.priority}; policy {self.policy};"


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain with all its rules, each the text of one rule without comment."""

    name: str
    rules: tuple[str, ...] = ()
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class Set:
    """A set, or with `data` a map. `type` and `data` as nft writes them ("ipv4_addr . ipv4_addr", "counter")."""

    name: str
    type: str
    interval: bool = False
    data: str | None = None
    elements: Mapping[Element, str] = field(default_factory=dict)
    """Element -> its data (the empty string for a plain set): a counter's name, or a verdict ("jump offload")."""
    timeout: bool = False
    """Elements leave by themselves: they are put there for a moment (AddTimed), and are part of no plan."""

    def __post_init__(self) -> None:
        if any('"' in "".join(texts) for texts in (chain.from_iterable(self.elements), self.elements.values())):
            bare = {tuple(map(_bare, element)): _bare(data) for element, data in self.elements.items()}
            object.__setattr__(self, "elements", bare)

    @property
    def keyword(self) -> str:
        """`map` or `set`: nft's word for it."""
        return "map" if self.data else "set"


@dataclass(frozen=True, slots=True)
class Flowtable:
    """A flowtable, always whole: naming one device alone would drop the flags (field-notes.md 0.3)."""

    name: str
    devices: frozenset[str]
    priority: int = 0
    counter: bool = True
    hook: str = "ingress"
    offload: bool = False
    """In hardware: for flows that no tunnel carries. Those through tunnels stay in software all the same
    (nf_flow_rule_route_common(), net/netfilter/nf_flow_table_offload.c)."""


@dataclass(frozen=True, slots=True)
class TableState:
    """A table with everything in it: what is wanted, or what the kernel holds."""

    table: Table
    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, Set] = field(default_factory=dict)
    flowtables: Mapping[str, Flowtable] = field(default_factory=dict)
    counters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All tables of ours, by (family, name)."""

    tables: Mapping[Table, TableState] = field(default_factory=dict)


def rule_hash(rule: str) -> str:
    """What stands in the comment of a rule: `ff:` and 12 hex digits of its text's SHA-256."""
    return RULE_MARK + hashlib.sha256(rule.encode()).hexdigest()[:12]


_NUMBER = re.compile(r"[0-9a-fA-F.:/-]*[0-9:][0-9a-fA-F.:/-]*")  # addresses, prefixes, ranges, ports, marks
_NAME = re.compile(r"[A-Za-z_][^:]*")
_VERDICT = re.compile(r"(accept|drop|continue|return|(jump|goto) .*)")


def _bare(text: str) -> str:
    return text.strip('"')


@lru_cache(maxsize=1 << 16)
def _named(text: str) -> str:
    """A name in quotes, because it may be an nft keyword or have a dot; an address, range or number as it is."""
    if text[:1].isdigit() and not text.strip("0123456789./"):
        return text  # what the expressions would say of IPv4, in a third of the time
    return f'"{text}"' if _NAME.fullmatch(text) or not _NUMBER.fullmatch(text) else text


def element_text(element: Element, data: str = "") -> str:
    """An element as nft writes it: `10.1.0.0/16 . 10.2.0.0/16 : "name"`."""
    key = " . ".join(map(_named, element))
    return f"{key} : {data if _VERDICT.fullmatch(data) else _named(data)}" if data else key


def elements_text(elements: Mapping[Element, str]) -> str:
    """All elements in braces, sorted, so that equal sets have equal text."""
    return "{ " + ", ".join(element_text(key, elements[key]) for key in sorted(elements)) + " }"


def quoted(names: Iterable[str]) -> str:
    """Device names in braces, each in quotes: a name may be an nft keyword or have a dot."""
    return "{ " + ", ".join(f'"{name}"' for name in sorted(names)) + " }"
