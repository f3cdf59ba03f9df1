"""What an operator has written on the two gateways: the firewall, strongSwan's connections, flowfast's config. Text."""

from dataclasses import dataclass
from typing import Literal

from flowfast.lab.swanctl import Child, Connection
from flowfast.lab.topology import IF_ID, Family, lan_address, lan_prefix, part_prefix, wan_address
from flowfast.model.nftables import Table

SITE = Table("inet", "site")

FIREWALL = """\
table inet site {
    counter tx { }
    counter rx { }
    chain forward {
        type filter hook forward priority filter; policy drop;
        # Every packet that takes the full path is counted here.
        counter name iifname map { "lan0" : "tx", "wan0" : "rx", "ipsec0" : "rx" }
        ct state established,related accept
        iifname "lan0" accept
        meta ipsec exists accept
        iifname "ipsec0" accept
    }
}
"""
"""A small one: the full path costs 250 instructions a packet more with every rule (measured.md, "+50 rules")."""

REMEMBER = """\
table inet site {
    chain prerouting {
        type filter hook prerouting priority filter;
        ct state new meta ipsec exists ct mark set 0x1
    }
    chain forward {
        ct mark 0x1 accept
    }
}
"""
"""More of it for a NIC that does ESP: what came in by it was encrypted, and no longer looks so in the forward chain."""

Side = Literal[1, 2]
PartName = Literal["policy", "interface", "offload"]
TITLES: dict[PartName, str] = {
    "policy": "policy-based",
    "interface": "xfrm interface",
    "offload": "offloading NIC",
}


@dataclass(frozen=True, slots=True)
class TunnelSite:
    """A tunnel by its name, with the families that it carries.

    `number`: which of several that share the networks behind the gateways. `offload`: gw1's NIC is to do its ESP.
    """

    name: str
    families: tuple[Family, ...]
    number: int | None = None
    offload: bool = False

    def network(self, side: int, family: Family) -> str:
        """What it protects behind gateway `side`."""
        return lan_prefix(side, family) if self.number is None else part_prefix(side, family, self.number)

    def host(self, side: int, family: Family) -> str:
        """The host's address behind gateway `side`, as the tunnel carries it."""
        return lan_address(side, family, tunnel=self.number or 0)


TUNNELS: dict[PartName, tuple[TunnelSite, ...]] = {
    "policy": (TunnelSite("berlin", (4,)), TunnelSite("berlin-v6", (6,))),
    "interface": (TunnelSite("paris", (4, 6)),),
    "offload": (TunnelSite("oslo", (4,), 0, offload=True), TunnelSite("rome", (4,), 1)),
}


DRIVEN: dict[PartName, tuple[Side, ...]] = {"policy": (1, 2), "interface": (1, 2), "offload": (1,)}
"""The gateways that flowfast is to run on."""


def firewall(part: PartName) -> str:
    """What both gateways have."""
    return FIREWALL + REMEMBER if part == "offload" else FIREWALL


def costed(part: PartName) -> list[tuple[str, TunnelSite]]:
    """The tunnels for which it is measured what a packet costs, each in words: one, unless they differ."""
    tunnels = TUNNELS[part]
    if not any(tunnel.offload for tunnel in tunnels):
        return [(TITLES[part], tunnels[0])]
    return [(f"{tunnel.name}, ESP by the {'NIC' if tunnel.offload else 'CPU'}", tunnel) for tunnel in tunnels]


def connection(part: PartName, side: Side) -> Connection:
    """strongSwan's connection of gateway `side`: a child for each tunnel."""
    other: Side = 2 if side == 1 else 1
    children = tuple(
        Child(
            tunnel.name,
            tuple(tunnel.network(side, family) for family in tunnel.families),
            tuple(tunnel.network(other, family) for family in tunnel.families),
            if_id=IF_ID if part == "interface" else None,
            hw_offload="packet" if tunnel.offload and side == 1 else "no",
        )
        for tunnel in TUNNELS[part]
    )
    return Connection("gw", wan_address(side, 4), wan_address(other, 4), children)


def config(part: PartName, side: Side) -> str:
    """flowfast's config of gateway `side`."""
    lines = ["devices: {lan: [lan0], wan: [wan0]}", "tunnels:"]
    for tunnel in TUNNELS[part]:
        if part == "interface":
            lines.append(f"  {tunnel.name}: {{interface: ipsec0}}")
            continue
        ours, theirs = (
            ", ".join(f'"{tunnel.network(end, family)}"' for family in tunnel.families) for end in (side, 3 - side)
        )
        lines.append(f"  {tunnel.name}: {{local: [{ours}], remote: [{theirs}]}}")
    return "\n".join([*lines, "exporter: {per_sa: true}", ""])
