"""Transactions in a row, and what becomes of each: tried on the kernel in the guest, and on FakeNft everywhere."""

import errno
from collections.abc import Iterator
from typing import NamedTuple

from flowfast.model.nftables import Flowtable, Hook, Set, Table
from flowfast.model.transaction import (
    AddChain,
    AddCounter,
    AddElements,
    AddFlowtable,
    AddRule,
    AddSet,
    AddTable,
    Command,
    DeleteChain,
    DeleteCounter,
    DeleteDevices,
    DeleteElements,
    DeleteFlowtable,
    DeleteSet,
    DeleteTable,
    FlushChain,
)

INET, NETDEV = Table("inet", "flowfast"), Table("netdev", "flowfast")
DEVICES = ("v0", "v1", "eth0.5")
"""Exist where the cases are tried; "ghost" does not."""

FORWARD = Hook("filter", "forward", 2147483000)
GUARD = Hook("filter", "ingress", -10, device="v0")
FAST = Flowtable("fast", frozenset({"v0"}))


class Case(NamedTuple):
    """One transaction; the errnos with which it may fail, none if it must succeed."""

    what: str
    commands: tuple[Command, ...]
    codes: frozenset[int] = frozenset()


def _case(what: str, *commands: Command, fails: tuple[int, ...] = ()) -> Case:
    return Case(what, commands, frozenset(fails))


def _plain(*elements: tuple[str, ...]) -> dict[tuple[str, ...], str]:
    return dict.fromkeys(elements, "")


def _pairs(name: str, *elements: tuple[str, ...], of: str = "ipv4_addr") -> Set:
    return Set(name, f"{of} . {of}", interval=True, elements=_plain(*elements))


def cases(*, name_binding: bool) -> Iterator[Case]:
    """All of them, in order. `name_binding`: the kernel takes names of devices that do not exist (6.16)."""
    yield _case("a chain without its table", AddChain(INET, "forward", FORWARD), fails=(errno.ENOENT,))
    yield _case("tables", AddTable(INET), AddTable(NETDEV))
    yield _case("a table again", AddTable(INET))
    yield from _counters_and_sets()
    yield from _elements()
    yield from _chains()
    yield from _flowtables()
    yield from _rules()
    yield from _in_use()
    yield _case("a netdev chain", AddChain(NETDEV, "guard", GUARD), AddRule(NETDEV, "guard", "meta ipsec missing drop"))
    ghosts = () if name_binding else (errno.ENOENT,)
    ghost = Hook("filter", "ingress", -10, device="ghost")
    yield _case("a netdev chain on no device", AddChain(NETDEV, "haunted", ghost), fails=ghosts)
    yield _case(
        "a flowtable on no device", AddFlowtable(INET, Flowtable("haunted", frozenset({"ghost"}))), fails=ghosts
    )
    yield _case("remove a table", DeleteTable(NETDEV))
    yield _case("remove a table that is gone", DeleteTable(NETDEV), fails=(errno.ENOENT,))


def _counters_and_sets() -> Iterator[Case]:
    yield _case("counters", AddCounter(INET, "out_a"), AddCounter(INET, "in_a"))
    yield _case("a counter again", AddCounter(INET, "in_a"))
    yield _case("a chain named like a keyword", AddChain(INET, "offload"), fails=(errno.EINVAL,))
    yield _case(
        "sets of pairs",
        AddSet(INET, _pairs("fast4", ("10.1.0.0/16", "10.2.0.1"), ("0.0.0.0/0", "192.168.0.0/24"))),
        AddSet(INET, _pairs("fast6", ("fd00:1::/64", "fd00:2::1"), ("::/0", "fd00:3::/48"), of="ipv6_addr")),
        AddSet(NETDEV, _pairs("guarded4", ("10.2.0.0/16", "10.1.0.1-10.1.0.5"))),
    )
    yield _case(
        "sets of one part",
        AddSet(INET, Set("lan", "ifname", elements=_plain(("v0",), ("eth0.5",)))),
        AddSet(INET, Set("own4", "ipv4_addr", elements=_plain(("192.0.2.1",), ("192.0.2.2",)))),
        AddSet(INET, Set("own6", "ipv6_addr", elements=_plain(("2001:db8::1",)))),
        AddSet(INET, Set("near4", "ipv4_addr", interval=True, elements=_plain(("10.0.0.0/24",), ("10.0.1.0/24",)))),
        AddSet(INET, Set("services", "inet_proto . inet_service", elements=_plain(("6", "80"), ("17", "4500")))),
        AddSet(INET, Set("nothing", "ipv4_addr")),
    )
    yield _case(
        "a prefix in a set of hosts",
        AddSet(INET, Set("hosts", "ipv4_addr", elements=_plain(("10.0.0.0/8",)))),
        fails=(errno.EINVAL,),
    )
    to_counter = {("10.1.0.0/16", "10.2.0.0/16"): "out_a", ("10.1.0.0/16", "10.3.0.1"): "in_a"}
    yield _case(
        "a map to counters",
        AddSet(INET, Set("out4", "ipv4_addr . ipv4_addr", interval=True, data="counter", elements=to_counter)),
    )
    unknown = {("10.1.0.0/16", "10.2.0.0/16"): "nobody"}
    yield _case(
        "a map to a counter that is not there",
        AddSet(INET, Set("in4", "ipv4_addr . ipv4_addr", interval=True, data="counter", elements=unknown)),
        fails=(errno.ENOENT,),
    )
    yield _case("the same set with another type", AddSet(INET, _pairs("fast4", of="ipv6_addr")), fails=(errno.EEXIST,))
    yield _case("the same set, nothing new", AddSet(INET, _pairs("fast4")))


def _elements() -> Iterator[Case]:
    held, other = {("10.1.0.0/16", "10.2.0.0/16"): "out_a"}, {("10.1.0.0/16", "10.2.0.0/16"): "in_a"}
    yield _case("elements that are there", AddElements(INET, "out4", held))
    yield _case("an element with other data", AddElements(INET, "out4", other), fails=(errno.EEXIST, errno.EBUSY))
    yield _case(
        "one in a wider one", AddElements(INET, "out4", {("10.1.7.0/24", "10.2.0.1"): "out_a"}), fails=(errno.EEXIST,)
    )
    yield _case("one around a narrower one", AddElements(INET, "out4", {("10.0.0.0/8", "10.3.0.0/24"): "out_a"}))
    yield _case("beside it", AddElements(INET, "out4", {("10.1.0.0/16", "10.4.0.0/16"): "out_a"}))
    yield _case(
        "an overlap in a set of one part", AddElements(INET, "near4", _plain(("10.0.0.0/25",))), fails=(errno.EEXIST,)
    )
    yield _case("another overlap in it", AddElements(INET, "near4", _plain(("10.0.0.0/23",))), fails=(errno.EEXIST,))
    yield _case("what touches in it", AddElements(INET, "near4", _plain(("10.0.2.0/24",), ("9.255.255.255",))))
    yield _case("elements out of a map, by key", DeleteElements(INET, "out4", _plain(("10.1.0.0/16", "10.4.0.0/16"))))
    yield _case("elements out of a set", DeleteElements(INET, "fast6", _plain(("fd00:1::/64", "fd00:2::1"))))
    yield _case("an element that is not there", DeleteElements(INET, "lan", _plain(("v1",))), fails=(errno.ENOENT,))
    yield _case("elements of no set", AddElements(INET, "nowhere", _plain(("v1",))), fails=(errno.ENOENT,))
    yield _case("move an element", DeleteElements(INET, "out4", held), AddElements(INET, "out4", other))


def _chains() -> Iterator[Case]:
    yield _case("chains", AddChain(INET, "fastpath"), AddChain(INET, "forward", FORWARD))
    yield _case("a chain again", AddChain(INET, "fastpath"), AddChain(INET, "forward", FORWARD))
    moved = Hook("filter", "forward", 5)
    yield _case(
        "a chain with another priority", AddChain(INET, "forward", moved), fails=(errno.EEXIST, errno.EOPNOTSUPP)
    )
    closed = Hook("filter", "forward", FORWARD.priority, policy="drop")
    yield _case("another policy", AddChain(INET, "forward", closed))
    yield _case("and back", AddChain(INET, "forward", FORWARD))


def _flowtables() -> Iterator[Case]:
    yield _case("a flowtable", AddFlowtable(INET, FAST))
    yield _case("a device more", AddFlowtable(INET, Flowtable("fast", frozenset({"v0", "eth0.5"}))))
    yield _case("without its flag", AddFlowtable(INET, Flowtable("fast", frozenset({"v0", "eth0.5"}), counter=False)))
    yield _case("with it again, fewer devices named", AddFlowtable(INET, FAST))
    yield _case(
        "another priority",
        AddFlowtable(INET, Flowtable("fast", frozenset({"v0"}), priority=5)),
        fails=(errno.EOPNOTSUPP,),
    )
    yield _case(
        "a device in two flowtables",
        AddFlowtable(INET, Flowtable("second", frozenset({"v0"}))),
        fails=(errno.EEXIST,),
    )
    yield _case("a flowtable without devices", AddFlowtable(INET, Flowtable("empty", frozenset())))
    yield _case("remove it", DeleteFlowtable(INET, "empty"))
    yield _case("remove no flowtable", DeleteFlowtable(INET, "empty"), fails=(errno.ENOENT,))


RULES = (
    'iifname != { "v0", "eth0.5" } return',
    "rt ipsec exists ct direction original ct reply ip saddr . ct reply ip daddr @fast4 flow add @fast",
    "ip6 saddr . ip6 daddr @fast6 flow add @fast",
    "iifname @lan counter name in_a",
)


def _rules() -> Iterator[Case]:
    yield _case("rules", *(AddRule(INET, "fastpath", rule) for rule in RULES))
    counting = "rt ipsec exists counter name ip saddr . ip daddr map @out4"
    yield _case("rules", AddRule(INET, "forward", counting), AddRule(INET, "forward", "jump fastpath"))
    yield _case("the same rule twice", AddRule(INET, "forward", "jump fastpath"))
    for what, rule in (
        ("chain", "jump nowhere"),
        ("set", "ip saddr . ip daddr @nowhere accept"),
        ("flowtable", "meta l4proto tcp flow add @nowhere"),
        ("counter", "counter name nobody"),
    ):
        yield _case(f"a rule with a {what} that is not there", AddRule(INET, "forward", rule), fails=(errno.ENOENT,))
    yield _case("a rule of no chain", AddRule(INET, "nowhere", "accept"), fails=(errno.ENOENT,))


def _in_use() -> Iterator[Case]:
    yield _case("a set in use", DeleteSet(INET, "fast4"), fails=(errno.EBUSY,))
    yield _case("a map in use", DeleteSet(INET, "out4", "map"), fails=(errno.EBUSY,))
    yield _case("a flowtable in use", DeleteFlowtable(INET, "fast"), fails=(errno.EBUSY,))
    both = Flowtable("fast", frozenset({"v0", "eth0.5"}))
    yield _case("a device off a flowtable in use", DeleteDevices(INET, Flowtable("fast", frozenset({"eth0.5"}))))
    yield _case("a device that is not on it", DeleteDevices(INET, both), fails=(errno.ENOENT,))
    yield _case("the last one off it", DeleteDevices(INET, FAST))
    yield _case("both on it again", AddFlowtable(INET, both))
    yield _case("a counter in a map", DeleteCounter(INET, "out_a"), fails=(errno.EBUSY,))
    yield _case("a counter in a rule", DeleteCounter(INET, "in_a"), fails=(errno.EBUSY,))
    yield _case("a chain that is jumped to", DeleteChain(INET, "fastpath"), fails=(errno.EBUSY,))
    yield _case("no counter", DeleteCounter(INET, "nobody"), fails=(errno.ENOENT,))
    yield _case("all or nothing", AddCounter(INET, "more"), DeleteCounter(INET, "nobody"), fails=(errno.ENOENT,))
    yield _case(
        "the flowtable anew, in one transaction",
        FlushChain(INET, "fastpath"),
        DeleteFlowtable(INET, "fast"),
        AddFlowtable(INET, Flowtable("fast", frozenset({"v0", "v1"}))),
        *(AddRule(INET, "fastpath", rule) for rule in RULES),
    )
    yield _case("a chain with rules, no longer jumped to", FlushChain(INET, "forward"), DeleteChain(INET, "fastpath"))
    yield _case(
        "and what they used",
        DeleteSet(INET, "out4", "map"),
        DeleteSet(INET, "fast6"),
        DeleteCounter(INET, "out_a"),
        DeleteFlowtable(INET, "fast"),
    )
