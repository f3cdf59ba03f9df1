"""What an operator has written on the two gateways: the firewall, strongSwan's connections, flowfast's config. Text."""

from dataclasses import dataclass
from typing import Literal

from flowfast.lab.swanctl import Child, Connection
from flowfast.lab.topology import IF_ID, Family, lan_prefix, wan_address
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

PartName = Literal["policy", "interface"]
TITLES: dict[PartName, str] = {"policy": "policy-based", "interface": "xfrm interface"}


@dataclass(frozen=True, slots=True)
class TunnelSite:
    """A tunnel by its name, with the families that it carries."""

    name: str
    families: tuple[Family, ...]


TUNNELS: dict[PartName, tuple[TunnelSite, ...]] = {
    "policy": (TunnelSite("berlin", (4,)), TunnelSite("berlin-v6", (6,))),
    "interface": (TunnelSite("paris", (4, 6)),),
}


def connection(part: PartName, side: Literal[1, 2]) -> Connection:
    """strongSwan's connection of gateway `side`: a child for each tunnel."""
    other: Literal[1, 2] = 2 if side == 1 else 1
    if_id = IF_ID if part == "interface" else None
    children = tuple(
        Child(
            tunnel.name,
            tuple(lan_prefix(side, family) for family in tunnel.families),
            tuple(lan_prefix(other, family) for family in tunnel.families),
            if_id=if_id,
        )
        for tunnel in TUNNELS[part]
    )
    return Connection("gw", wan_address(side, 4), wan_address(other, 4), children)


def config(part: PartName, side: Literal[1, 2]) -> str:
    """flowfast's config of gateway `side`."""
    lines = ["devices: {lan: [lan0], wan: [wan0]}", "tunnels:"]
    for tunnel in TUNNELS[part]:
        if part == "interface":
            lines.append(f"  {tunnel.name}: {{interface: ipsec0}}")
            continue
        ours, theirs = (
            ", ".join(f'"{lan_prefix(end, family)}"' for family in tunnel.families) for end in (side, 3 - side)
        )
        lines.append(f"  {tunnel.name}: {{local: [{ours}], remote: [{theirs}]}}")
    return "\n".join([*lines, "exporter: {per_sa: true}", ""])
