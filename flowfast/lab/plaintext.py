"""Plaintext that arrives at the end of a WAN, counted by nftables.

For wires whose sending end cannot be tapped (capture.py), because the NIC encrypts what is handed to it: what has
arrived and was decrypted carries a secpath, and what was never encrypted does not.
"""

from flowfast.lab.netns import Netns
from flowfast.lab.topology import lan_prefix

TABLE = "witness"


def watch_plaintext(receiver: Netns, side: int, device: str = "wan0") -> None:
    """Has `receiver` count what arrives from behind gateway `side` unencrypted, until its namespace goes."""
    receiver.run(
        ["nft", "-f", "-"],
        stdin=f"""
table netdev {TABLE} {{
  counter plaintext {{ }}
  chain wan {{ type filter hook ingress device {device} priority -300;
    meta ipsec missing ip saddr {lan_prefix(side, 4)} counter name plaintext
    meta ipsec missing ip6 saddr {lan_prefix(side, 6)} counter name plaintext
  }}
}}
""",
    )


def plaintext(receiver: Netns) -> int:
    """Packets that it has counted."""
    listed = receiver.run(["nft", "list", "counter", "netdev", TABLE, "plaintext"]).stdout
    return int(listed.split("packets")[1].split()[0])
