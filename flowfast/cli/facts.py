"""What `flowfast show` lists: rows of plain values for --json, and how each column looks on a terminal."""

from collections.abc import Iterable, Iterator, Sequence

from flowfast.cli.columns import Column, Row
from flowfast.cli.output import path_json
from flowfast.model.sa import SA, Direction, Encap, Mode, Selector
from flowfast.model.state import Flow, TcpState
from flowfast.model.tunnel import Path
from flowfast.plan.case import Case, Sight
from flowfast.plan.flows import Forwarded, Owners, Packet, name, proto_text
from flowfast.plan.roles import roles
from flowfast.plan.ruleset import NETDEV
from flowfast.plan.verdict import verdicts


def number(value: object) -> str:
    """With commas between thousands."""
    return f"{value:,}"


def yes(value: object) -> str:
    """yes or no."""
    return "yes" if value else "no"


def listed(value: object) -> str:
    """The first few; JSON has all."""
    items = [str(item) for item in value] if isinstance(value, Iterable) else []
    more = [f"and {len(items) - 4} more"] if len(items) > 4 else []
    return ", ".join(items[:4] + more) or "-"


def hexed(value: object) -> str:
    """Eight hex digits."""
    return f"{value:#010x}"


def _percent(value: object) -> str:
    return f"{value:.0%}"


def _seconds(value: object) -> str:
    seconds = int(str(value))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


FLOWS = (
    Column("connection", "connection"),
    Column("tunnel", "tunnels", listed),
    Column("path", "path"),
    Column("state", "state"),
    Column("bytes", "bytes", number),
    Column("packets", "packets", number),
)


def flow_rows(sight: Sight, flows: Iterable[Flow]) -> Iterator[Row]:
    """Connections, those with the most bytes first."""
    owners = Owners(sight.state, sight.tunnels, sight.route)
    for flow in sorted(flows, key=lambda flow: (-sum(flow.bytes or (0,)), name(flow))):
        yield {
            "connection": name(flow),
            "proto": proto_text(flow.proto),
            "src": flow.src,
            "sport": flow.sport,
            "dst": flow.dst,
            "dport": flow.dport,
            "tunnels": [tunnel.name for tunnel in owners.of(flow)],
            "path": "hardware" if flow.hardware else "flowtable" if flow.offloaded else "l3",
            "state": _flow_state(flow),
            "bytes": None if flow.bytes is None else sum(flow.bytes),
            "packets": None if flow.packets is None else sum(flow.packets),
        }


def _flow_state(flow: Flow) -> str | None:
    if flow.tcp_state is not None and flow.tcp_state in set(TcpState):
        return TcpState(flow.tcp_state).name
    return None if flow.offloaded or flow.hardware else "answered" if flow.established else "unanswered"


SAS = (
    Column("tunnel", "tunnel"),
    Column("dir", "direction"),
    Column("SPI", "spi", hexed),
    Column("src", "src"),
    Column("dst", "dst"),
    Column("mode", "mode"),
    Column("algorithm", "algorithm"),
    Column("CPU", "pcpu"),
    Column("if_id", "if_id"),
    Column("encap", "encap"),
    Column("offload", "offload"),
    Column("bytes", "bytes", number),
    Column("packets", "packets", number),
    Column("sequence", "sequence", number),
    Column("window", "replay_window"),
    Column("age", "age_seconds", _seconds),
    Column("life", "lifetime_used", _percent),
)


def sa_rows(sight: Sight) -> Iterator[Row]:
    """The SAs of every tunnel, then those that are nobody's. No field of an SA holds a key."""
    seen = set()
    for tunnel in sight.tunnels:
        for direction, sas in ((Direction.OUT, tunnel.outbound), (Direction.IN, tunnel.inbound)):
            for sa in sas:
                seen.add((sa.key, tunnel.key.netns))
                yield _sa_row(sa, sight.state.taken_at, tunnel.name, direction, tunnel.key.netns)
    spds = {None: sight.state.sas} | {netns: spd.sas for netns, spd in sight.state.underlay.items()}
    for netns, sas in spds.items():
        for sa in sas:
            if (sa.key, netns) not in seen:
                yield _sa_row(sa, sight.state.taken_at, None, sa.direction, netns)


def _sa_row(sa: SA, now: float, tunnel: str | None, direction: Direction | None, netns: str | None) -> Row:
    offload = None if sa.offload is None else "packet" if sa.offload.packet else "crypto"
    algorithms = [each for each in (sa.algorithm, sa.auth_algorithm, sa.compression) if each]
    return {
        "tunnel": tunnel,
        "direction": direction,
        "netns": netns,
        "spi": sa.spi,
        "src": sa.src,
        "dst": sa.dst,
        "protocol": proto_text(sa.proto),
        "mode": Mode(sa.mode).name.lower() if sa.mode in set(Mode) else str(sa.mode),
        "algorithm": " ".join(algorithms) or "larval",
        "reqid": sa.reqid,
        "pcpu": sa.pcpu,
        "if_id": sa.if_id or None,
        "encap": None if sa.encap is None else _encap(sa.encap),
        "offload": offload,
        "bytes": sa.counters.bytes,
        "packets": sa.counters.packets,
        "sequence": sa.replay.seq if direction is Direction.IN else sa.replay.oseq,
        "esn": sa.replay.esn,
        "replay_window": sa.replay.window or None,
        "replay_errors": sa.replay_errors + sa.replay_window_errors,
        "integrity_errors": sa.integrity_errors,
        "age_seconds": int(now - sa.counters.add_time),
        "lifetime_used": lifetime_used(sa, now),
    }


def _encap(encap: Encap) -> str:
    return f"{'tcp' if encap.type == 7 else 'udp'} {encap.sport}-{encap.dport}"


def lifetime_used(sa: SA, now: float) -> float | None:
    """The part of its life that an SA has behind it, by the hard limit that is nearest. None: it has no limit."""
    life, used = sa.lifetime, sa.counters
    first_used = None if used.use_time is None else now - used.use_time
    pairs: Sequence[tuple[float | None, int | None]] = (
        (used.bytes, life.hard_bytes),
        (used.packets, life.hard_packets),
        (now - used.add_time, life.hard_add_seconds),
        (first_used, life.hard_use_seconds),
    )
    return max((have / limit for have, limit in pairs if have is not None and limit), default=None)


TUNNELS = (
    Column("tunnel", "tunnel"),
    Column("topology", "topology"),
    Column("local", "local"),
    Column("remote", "remote"),
    Column("reqid", "reqid"),
    Column("if_id", "if_id"),
    Column("interface", "interface"),
    Column("SAs in", "sas_in"),
    Column("SAs out", "sas_out"),
    Column("MTU", "mtu"),
    Column("tx", "tx_path"),
    Column("rx", "rx_path"),
    Column("selectors", "pairs", listed),
)


def tunnel_rows(sight: Sight) -> Iterator[Row]:
    """Tunnels, with the path that each direction is meant to take, where there is a config that says."""
    for tunnel in sight.tunnels:
        path = sight.paths.get(tunnel.key)
        known = path_json(path) if path else {}
        pairs = [f"{each.local} - {each.remote}" for each in tunnel.selectors]
        nowhere = Packet(2, 6, "0.0.0.0", "0.0.0.0")  # noqa: S104 - an address of nobody
        case = Case(sight, None, nowhere, Forwarded(nowhere, nowhere), None, tunnel, None)
        yield {
            **known,
            "tunnel": tunnel.name,
            "topology": tunnel.topology,
            "local": tunnel.key.local or None,
            "remote": tunnel.key.remote or None,
            "reqid": tunnel.key.reqid or None,
            "if_id": tunnel.key.if_id or None,
            "netns": tunnel.key.netns,
            "interface": tunnel.interface,
            "sas_in": len(tunnel.inbound),
            "sas_out": len(tunnel.outbound),
            "mtu": case.mtu,
            "tx_path": _planned(path.tx) if path else None,
            "rx_path": _planned(path.rx) if path else None,
            "pairs": pairs,
        }


def _planned(path: Path) -> str:
    return str(path) if path.reason is None else f"full path [{path.reason.code}]"


DEVICES = (
    Column("device", "device"),
    Column("kind", "kind"),
    Column("driver", "driver"),
    Column("role", "role"),
    Column("up", "up", yes),
    Column("MTU", "mtu"),
    Column("hooked", "hooked", yes),
    Column("guard", "guard", yes),
    Column("addresses", "addresses", listed),
)


def device_rows(sight: Sight) -> Iterator[Row]:
    """Devices, with the side they face, and whether flowtable and guard stand on them now."""
    facing, state = roles(sight.state, sight.config), sight.state
    table = state.ruleset.tables.get(NETDEV)
    chains = table.chains.values() if table else ()
    guarded = {chain.hook.device for chain in chains if chain.hook and chain.name.startswith("guard_")}
    for link in state.links:
        yield {
            "device": link.name,
            "ifindex": link.ifindex,
            "kind": link.kind,
            "driver": link.driver,
            "role": facing.get(link.name),
            "up": link.up,
            "mtu": link.mtu,
            "if_id": link.xfrm_if_id,
            "hooked": link.name in state.hooked,
            "guard": link.name in guarded,
            "addresses": list(link.addresses),
        }


POLICIES = (
    Column("dir", "direction"),
    Column("priority", "priority"),
    Column("selector", "selector"),
    Column("tunnel", "tunnel"),
    Column("if_id", "if_id"),
    Column("offload", "offload"),
    Column("flowfast", "verdict"),
    Column("why", "why"),
)


def policy_rows(sight: Sight) -> Iterator[Row]:
    """The SPD, in the kernel's order, and what the planner makes of each policy. `offload`: the NIC that it is in."""
    names = {link.ifindex: link.name for link in sight.state.links}
    for judged in verdicts(sight):
        policy = judged.policy
        yield {
            "direction": policy.direction,
            "priority": policy.priority,
            "index": policy.policy_index,
            "selector": _selector(policy.selector),
            "tunnel": judged.tunnel.name if judged.tunnel else None,
            "netns": judged.netns,
            "if_id": policy.if_id or None,
            "mark": f"{policy.mark.value:#x}/{policy.mark.mask:#x}" if policy.mark and policy.mark.mask else None,
            "action": "block" if policy.action else "protect" if policy.protects else "pass",
            "offload": names.get(policy.offload.ifindex) if policy.offload is not None else None,
            "verdict": judged.verdict,
            "why": judged.why,
        }


def _selector(selector: Selector) -> str:
    proto = f" {proto_text(selector.proto)}" if selector.proto else ""
    ports = "".join(
        f" {name} {port}" + (f"/{mask:#x}" if mask != 0xFFFF else "")
        for name, port, mask in (
            ("sport", selector.sport, selector.sport_mask),
            ("dport", selector.dport, selector.dport_mask),
        )
        if mask
    )
    return f"{selector.src} -> {selector.dst}{proto}{ports}"
