"""Somebody else's tables, in every router of the lab from its first moment on: after each test they are as they were.

Byte for byte, handles included, so that nothing was made anew either; without counts (`nft -s`). A test that takes them
away on purpose has the marker `changes_foreign`.
"""

from contextlib import suppress

from flowfast.lab.netns import RUN, LabError, Netns

ROUTERS = ("gw1", "hub")
"""Namespaces that flowfast runs in."""

TABLES = """
table inet somebody {
  set hosts { type ipv4_addr; flags interval; elements = { 198.51.100.0/25, 203.0.113.7 } }
  set ends { type ipv6_addr . inet_service; elements = { 2001:db8:99::1 . 443, 2001:db8:99::2 . 80 } }
  set recent { type ipv4_addr; size 64; flags dynamic; }
  map marks { type inet_service : mark; elements = { 81 : 0x51, 82 : 0x52 } }
  map verdicts { type ifname : verdict; elements = { "nobody0" : jump other } }
  counter seen { }
  quota much { over 1000 mbytes }
  chain other { counter comment "from nobody0"; return; }
  chain forward { type filter hook forward priority filter; policy accept;
    ip saddr @hosts counter drop
    iifname vmap @verdicts
    tcp dport 81 counter name seen
  }
  chain late { type filter hook forward priority 2147483001; policy accept; ip6 saddr . tcp dport @ends counter; }
}
table ip somebody {
  chain input { type filter hook input priority 10; policy accept; ip saddr 198.51.100.9 counter drop comment "four"; }
}
table ip6 somebody {
  chain output { type route hook output priority mangle; policy accept; ip6 daddr 2001:db8:99::9 counter; }
}
table netdev somebody {
  set ports { type inet_service; elements = { 1, 2 } }
  chain ingress { type filter hook ingress device "lo" priority -20; policy accept; udp dport @ports counter; }
}
"""
NAMES = ("inet somebody", "ip somebody", "ip6 somebody", "netdev somebody")

_held: dict[str, str] = {}
"""What each router had when they were put in, by the namespace's name."""


def install(ns: Netns) -> None:
    """Puts the tables in, and remembers what nft says of them."""
    ns.run(["nft", "-f", "-"], stdin=TABLES)
    _held[ns.name] = listed(ns)


def listed(ns: Netns) -> str:
    """What nft says of them now; of one that is gone, that it is."""
    found = []
    for name in NAMES:
        done = ns.run(["nft", "-a", "-s", "list", "table", *name.split()], check=False)
        found.append(done.stdout if done.returncode == 0 else f"table {name} is gone\n")
    return "".join(found)


def check(ns: Netns) -> None:
    """AssertionError where the tables are not byte-identical to what was put in."""
    if ns.name in _held:
        assert listed(ns) == _held[ns.name], f"somebody's tables in {ns.name} have changed"


def forget(ns: Netns) -> None:
    """The namespace goes."""
    _held.pop(ns.name, None)


def routers() -> list[Netns]:
    """The routers that are there now, with the tables in them."""
    return [Netns(name) for name in _held if (RUN / name).exists()]


def repair() -> None:
    """Puts them in anew, where a test took them away on purpose."""
    for ns in routers():
        with suppress(LabError):
            ns.run(["nft", "-f", "-"], stdin="".join(f"table {name}\ndelete table {name}\n" for name in NAMES))
        install(ns)
