"""What a factor depends on besides the traffic: two results are comparable where their fingerprints are equal. Pure."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from flowfast import __version__
from flowfast.config.schema import Config
from flowfast.kernel.hardware import Hardware
from flowfast.model.desired import Desired
from flowfast.model.link import Link
from flowfast.model.sa import SA
from flowfast.model.state import RouterState
from flowfast.plan.ruleset import FLOWTABLE, INET

SYSCTLS = (
    "net.core.dev_weight",
    "net.core.gro_normal_batch",
    "net.core.netdev_budget",
    "net.core.rps_sock_flow_entries",
    "net.netfilter.nf_conntrack_acct",
)
"""What decides how many packets travel together, and what conntrack does for each."""

_FEATURES = re.compile("gro|gso|tso|tcp.*segmentation|lro|esp-|checksum|rx-hashing|hw-tc-offload|scatter-gather")
_ELEMENTS = re.compile(r"elements = \{.*?\}", re.DOTALL)


def fingerprint(
    state: RouterState,
    desired: Desired,
    config: Config,
    *,
    release: str,
    hardware: Hardware,
    sysctls: Mapping[str, str | None],
    foreign: str,
) -> dict[str, Any]:
    """All of it, as JSON takes it. `foreign`: the text of everybody else's tables, of which only a hash is kept."""
    table = state.ruleset.tables.get(INET)
    flowtable = table.flowtables.get(FLOWTABLE) if table else None
    devices = sorted(flowtable.devices) if flowtable else []
    named = {*devices, *hardware.knobs}
    rules = _ELEMENTS.sub("", foreign)
    return {
        "flowfast": __version__,
        "kernel": release,
        "cpus": hardware.cpus,
        "cpu": hardware.model,
        "lacks": sorted(name for name, feature in state.features.items() if not feature.present),
        "devices": {
            link.name: _device(link) | hardware.knobs.get(link.name, {}) for link in state.links if link.name in named
        },
        "tunnels": _tunnels(desired),
        "hooks": {
            "flowtable": sorted(state.hooked),
            "other_tables": digest(rules),
            "other_rules": sum(1 for line in rules.splitlines() if _is_rule(line)),
        },
        "config": {
            "accounting": str(config.accounting),
            "mode": str(config.offload.mode),
            "notrack": config.notrack,
            "clamp_mss": config.offload.clamp_mss,
        },
        "sysctls": {name: value for name, value in sysctls.items() if value is not None},
    }


def digest(of: object) -> str:
    """A short hash of anything that JSON takes."""
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:12]


def _device(link: Link) -> dict[str, Any]:
    return {
        "driver": link.driver,
        "kind": link.kind,
        "mtu": link.mtu,
        "queues": f"{link.num_rx_queues}/{link.num_tx_queues}",
        "features": sorted(name for name in link.features if _FEATURES.search(name)),
    }


def _tunnels(desired: Desired) -> dict[str, Any]:
    sas = [sa for path in desired.paths for sa in (*path.tunnel.inbound, *path.tunnel.outbound)]
    return {
        "count": len(desired.paths),
        "topologies": sorted({str(path.tunnel.topology) for path in desired.paths}),
        "tx": sorted({"flowtable" if path.tx.fast else "l3" for path in desired.paths}),
        "rx": sorted({"flowtable" if path.rx.fast else "l3" for path in desired.paths}),
        "sas": sorted({_sa(sa) for sa in sas}),
    }


def _sa(sa: SA) -> str:
    offload = "no offload" if sa.offload is None else "packet offload" if sa.offload.packet else "crypto offload"
    parts = [sa.algorithm or sa.auth_algorithm or "?", f"{sa.key_bits} bits" if sa.key_bits else "", offload]
    parts += ["ESN" if sa.replay.esn else "", f"window {sa.replay.window}", "UDP" if sa.encap else ""]
    return ", ".join(part for part in parts if part)


def _is_rule(line: str) -> bool:
    """Of a listing: neither the frame of a table, chain or set, nor a chain's hook."""
    text = line.strip()
    return bool(text) and not text.endswith("{") and text != "}" and not re.match(r"type |flags |policy |#|size ", text)
