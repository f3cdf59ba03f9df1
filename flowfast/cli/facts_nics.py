"""What `flowfast show nics` and `show offload` list: devices that take IPsec off the CPU, and the SAs in them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from flowfast.cli.columns import Column, Row
from flowfast.cli.facts import hexed, listed, number, yes
from flowfast.cli.output import reason_json
from flowfast.model.nic import OffloadType
from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import Direction
from flowfast.plan.case import Sight
from flowfast.plan.fallback import cpu_sequence
from flowfast.plan.hardware import held_back, offload_type, placed
from flowfast.plan.nics import limits

NICS = (
    Column("device", "device"),
    Column("driver", "driver"),
    Column("role", "role"),
    Column("does", "types", listed),
    Column("enabled", "enabled", yes),
    Column("features", "on", listed),
    Column("could be on", "off", listed),
    Column("hardware", "handle"),
    Column("eswitch", "eswitch"),
    Column("encap-mode", "encap_mode"),
    Column("port crypto", "port_crypto", yes),
    Column("port packet", "port_packet", yes),
    Column("SAs crypto", "crypto_sas", number),
    Column("SAs packet", "packet_sas", number),
    Column("policies", "policies", number),
    Column("room", "capacity", number),
)


def nic_rows(sight: Sight) -> Iterator[Row]:
    """Devices with ESP features, what devlink says of their hardware, and how many SAs and policies are in each."""
    state = sight.state
    sas = Counter((sa.offload.ifindex, offload_type(sa)) for sa in state.sas if sa.offload is not None)
    policies = Counter(policy.offload.ifindex for policy in state.policies if policy.offload is not None)
    for nic in state.nics:
        known = limits(nic.driver)
        yield {
            "device": nic.name,
            "ifindex": nic.ifindex,
            "driver": nic.driver,
            "role": sight.roles.get(nic.name),
            "enabled": nic.enabled,
            "on": sorted(nic.on),
            "off": sorted(nic.off),
            "handle": nic.handle if nic.port is None else f"{nic.handle}/{nic.port}",
            "eswitch": nic.eswitch,
            "encap_mode": None if nic.encap is None else "basic" if nic.encap else "none",
            "port_crypto": nic.port_crypto,
            "port_packet": nic.port_packet,
            "types": sorted(known.types) if known.source else None,
            "crypto_sas": sas[nic.ifindex, OffloadType.CRYPTO],
            "packet_sas": sas[nic.ifindex, OffloadType.PACKET],
            "policies": policies[nic.ifindex],
            "capacity": known.capacity,
            "limits_from": known.source or None,
        }


OFFLOAD = (
    Column("tunnel", "tunnel"),
    Column("dir", "direction"),
    Column("SPI", "spi", hexed),
    Column("wanted", "wanted"),
    Column("offload", "offload"),
    Column("device", "device"),
    Column("packets", "packets", number),
    Column("CPU saw", "cpu_sequence", number),
    Column("why", "why", listed),
)


def offload_rows(sight: Sight) -> Iterator[Row]:
    """The SAs of every tunnel: what was wanted of a NIC, what it does, and all that is in the way of more.

    What keeps a tunnel from leaving through its NIC at all is said of its outbound SAs. `cpu_sequence`: of an SA in a
    NIC (packet offload) the last sequence number that the CPU saw. There should be none: what is not 0 says that the
    CPU did the NIC's work.
    """
    wanted = sight.config.nic_offload if sight.config else None
    held = held_back(sight.state, sight.tunnels)
    for each in placed(sight.state, sight.tunnels, wanted):
        found = list(each.reasons)
        if each.direction is Direction.OUT and each.tunnel.key in held:
            found.append(held[each.tunnel.key])
        reasons: Sequence[object] = [reason_json(reason) for reason in found]
        yield {
            "tunnel": each.tunnel.name,
            "direction": each.direction,
            "netns": each.tunnel.key.netns,
            "spi": each.sa.spi,
            "wanted": each.wanted,
            "offload": each.real,
            "device": each.device,
            "packets": each.sa.counters.packets,
            "bytes": each.sa.counters.bytes,
            "cpu_sequence": cpu_sequence(each.sa, each.direction),
            "why": [reason.code for reason in found],
            "reasons": reasons,
        }


def offload_reasons(rows: Iterable[Row]) -> set[Reason]:
    """What the rows of offload_rows() say is in the way, each once."""
    said = (each for row in rows for each in cast(list[dict[str, str]], row["reasons"]))
    return {
        Reason(each["code"], each["object"], each["sentence"], each["remedy"], Severity(each["severity"]))
        for each in said
    }
