"""plan(): what this router should hold, the path of every tunnel and direction, and every reason that says no."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from typing import Literal

from flowfast.config.schema import Config
from flowfast.model.desired import Desired
from flowfast.model.garbage import collector_paused
from flowfast.model.knob import KnobKind
from flowfast.model.nftables import Ruleset
from flowfast.model.reason import Reason, Severity
from flowfast.model.state import RouterState
from flowfast.model.steering import Side
from flowfast.model.tunnel import Path, Topology, Tunnel, TunnelKey, TunnelPath
from flowfast.plan.bulk import plan_bulk
from flowfast.plan.clamp import several_sizes
from flowfast.plan.hardware import hardware_flowtable, held_back, placed, stray_secpath
from flowfast.plan.mtu import rooms
from flowfast.plan.pause import PAUSED_NOW, paused
from flowfast.plan.peers import peer_marks
from flowfast.plan.roles import Role, roles, there
from flowfast.plan.ruleset import Wanted, build
from flowfast.plan.spd import SpdRegions, cut
from flowfast.plan.steering import steer
from flowfast.plan.tunnels import find_tunnels

NEEDED = ("flowtable", "rt_ipsec", "concat_interval_sets")
"""Without these features there is no fast path at all."""
GUARD_NEEDS = ("meta_ipsec_netdev", "concat_interval_sets")
"""Without these there is no guard, and so no fast path for what arrives on the WAN."""
WATCH_NEEDS = "fib_oif"
"""Without it plaintext of connections through xfrm interfaces is let in as the kernel lets it in without flowfast."""

_FAST = {
    Topology.POLICY: (Path(True, "bundle cached"), Path(True, "behind guard")),
    Topology.INTERFACE: (Path(True, "lookup and bundle per packet"), Path(True, "held by the interface")),
    Topology.CROSS_NETNS: (Path(True, "lookup in the underlay's netns"), Path(True, "policy enforced by the kernel")),
}
"""The paths of a fast tunnel, tx and rx."""


@dataclass(slots=True)
class _Devices:
    lan: frozenset[str]
    wan: frozenset[str]
    reasons: list[Reason] = field(default_factory=list)


@collector_paused()
def plan(state: RouterState, config: Config) -> Desired:
    """Pure: the same state and config give the same answer. Raises nothing; what cannot be is a Reason."""
    found = tuple(find_tunnels(state, config))
    held = held_back(state, found)
    tunnels = tuple(
        replace(tunnel, offload=False) if config.exclude.tunnel(tunnel.name) or tunnel.key in held else tunnel
        for tunnel in found
    )
    desired = _fast_path(state, config, tunnels, held)
    facing = _devices(state, config)
    steered = steer(state, config.steering, tunnels, {Side.LAN: facing.lan, Side.WAN: facing.wan})
    busy = frozenset(knob.object for knob, value in steered.knobs.items() if knob.kind is KnobKind.XDP)
    bulk = plan_bulk(state, config, tunnels, facing.lan, facing.wan, busy=busy)
    return replace(
        desired,
        reasons=tuple(sorted({*desired.reasons, *steered.reasons, *bulk.reasons})),
        knobs={**steered.knobs, **bulk.knobs},
        steering=steered.steering,
        stages=bulk.stages,
        bulked=tuple(bulk.devices),
    )


def _fast_path(
    state: RouterState, config: Config, tunnels: tuple[Tunnel, ...], held: Mapping[TunnelKey, Reason]
) -> Desired:
    """The ruleset, and the path of every tunnel; those in `held` are not fast."""
    missing = _missing(tunnels, config)
    reasons = [
        feature.reason for name in NEEDED if (feature := state.features.get(name)) and feature.reason is not None
    ]
    if config.offload.mode == "off" or not all(state.has(name) for name in NEEDED):
        why = reasons[0] if reasons else _switched_off(state)
        paths = tuple(TunnelPath(tunnel, _full(why), _full(why)) for tunnel in tunnels)
        return Desired(Ruleset(), paths, (*(reasons or (why,)), *missing))

    devices = _devices(state, config)
    marks = None if config.offload.trust_peers else peer_marks(tunnels)
    sizes = rooms(state, tunnels)
    counting = config.accounting != "off" or bool(marks) or several_sizes(tunnels, sizes)
    regions = cut(state, tunnels, counting=counting, plain=config.offload.plain)
    guarded, no_guard = _guarded(state, config, devices, tunnels, regions)
    if isinstance(marks, Reason) and guarded:
        guarded, no_guard, marks = frozenset(), (marks,), None
    stray = stray_secpath(state, devices.lan, tunnels)
    if stray is not None and guarded:
        guarded, no_guard = frozenset(), (stray,)
    up = {link.name for link in state.links if link.up}
    interfaces = {t.interface: t for t in tunnels if t.interface is not None and t.interface in up and t.offload}
    wanted = Wanted(
        lan=devices.lan,
        guarded=guarded,
        interfaces=interfaces,
        regions=regions,
        tunnels=tunnels,
        wan=devices.wan,
        offload=config.offload,
        exclude=config.exclude,
        notrack=config.notrack,
        counting=config.accounting != "off",
        counting_precisely=config.accounting == "precise" and state.has("counter_map"),
        marks=marks if isinstance(marks, dict) else {},
        endpoints=_outer(tunnels, "local"),
        peers=_outer(tunnels, "remote"),
        rooms=sizes,
        watched=devices.wan if interfaces and state.has(WATCH_NEEDS) else frozenset(),
        packet_offload=_packet_offload(state),
        unguarded=_own_addresses(state, devices.lan),
    )
    hardware, why_software = hardware_flowtable(state, config, wanted.devices)
    wanted = replace(wanted, hardware=hardware)
    devices.reasons += [
        *_uncounted(state, config),
        *missing,
        *why_software,
        *_not_in_nics(state, config, tunnels),
    ]
    if interfaces and devices.wan and (unwatched := state.features.get(WATCH_NEEDS)) and unwatched.reason:
        devices.reasons.append(unwatched.reason)
    if paused(state.ruleset):
        devices.reasons.append(PAUSED_NOW)
    paths = tuple(_paths(tunnel, wanted, held, no_guard) for tunnel in tunnels)
    said = {path.reason: None for pair in paths for path in (pair.tx, pair.rx) if path.reason is not None}
    return Desired(
        build(wanted) if devices.lan else Ruleset(), paths, tuple(sorted({*devices.reasons, *said, *no_guard}))
    )


def _missing(tunnels: tuple[Tunnel, ...], config: Config) -> list[Reason]:
    """Tunnels that the config names, and that no policy asks for."""
    there = [tunnel.name for tunnel in tunnels if tunnel.configured]
    sentence = "the config names this tunnel, and no policy or xfrm interface here is it"
    remedy = "is the IKE daemon running and the connection loaded? `flowfast show` lists the tunnels that are there"
    return [
        Reason("TUNNEL_MISSING", name, sentence, remedy)
        for name in config.tunnels
        if not any(each == name or each.startswith(f"{name}-") for each in there)
    ]


def _not_in_nics(state: RouterState, config: Config, tunnels: Iterable[Tunnel]) -> set[Reason]:
    """What keeps SAs out of NICs that should be in one; of others `flowfast show offload` tells."""
    if config.nic_offload is None and not state.nics and all(sa.offload is None for sa in state.sas):
        return set()
    every = (reason for each in placed(state, tunnels, config.nic_offload) for reason in each.reasons)
    return {reason for reason in every if reason.severity is not Severity.INFO}


def _uncounted(state: RouterState, config: Config) -> list[Reason]:
    acct = "net.netfilter.nf_conntrack_acct"
    if not config.offload.after_packets or state.sysctls.get(acct) != "0":
        return []
    sentence = "packets of connections are not counted, so none ever reaches offload.after_packets"
    return [Reason("NO_ACCOUNTING", "conntrack", sentence, f"sysctl -w {acct}=1", Severity.ERROR)]


def _switched_off(state: RouterState) -> Reason:
    if state.features:
        return Reason("OFF", "offload", "the fast path is switched off (offload.mode: off)", severity=Severity.INFO)
    return Reason("NOT_PROBED", "kernel", "its features were not probed", "report this as a bug", Severity.ERROR)


def _packet_offload(state: RouterState) -> frozenset[str]:
    """Devices that do all of ESP for an SA that comes in."""
    indexes = {sa.offload.ifindex for sa in state.sas if sa.offload is not None and sa.offload.packet}
    return frozenset(link.name for link in state.links if link.ifindex in indexes)


def _devices(state: RouterState, config: Config) -> _Devices:
    faces = roles(state, config)
    lan, wan = (frozenset(name for name, role in faces.items() if role is side) for side in (Role.LAN, Role.WAN))
    reasons = [
        Reason("DEVICE_MISSING", str(pattern), "no device of that name is there now", "it joins when it appears")
        for patterns in (config.devices.lan, config.devices.wan)
        for pattern in patterns
        if not there(state, [pattern])
    ]
    for name in sorted(lan & _packet_offload(state)):
        sentence = (
            "decrypts packets for the kernel (packet offload), which have lost their secpath where they are forwarded: "
            "a connection must not become fast by one of them, so it cannot be a LAN device"
        )
        reasons.append(Reason("PACKET_OFFLOAD_LAN", name, sentence, "name it under devices.wan", Severity.ERROR))
        lan -= {name}
    return _Devices(lan, wan, reasons)


def _guarded(
    state: RouterState, config: Config, devices: _Devices, tunnels: tuple[Tunnel, ...], regions: SpdRegions
) -> tuple[frozenset[str], tuple[Reason, ...]]:
    """The WAN devices that may be in the flowtable; or the reason why none may."""
    if not config.offload.plain and not any(tunnel.topology is Topology.POLICY for tunnel in tunnels):
        return frozenset(), ()  # interfaces bring their own traffic in: the WAN has nothing to win
    if config.offload.mode == "outbound-only":
        sentence = "inbound keeps to the full path: WAN not in devices, mode outbound-only"
        return frozenset(), (Reason("OUTBOUND_ONLY", "offload", sentence, severity=Severity.INFO),)
    for name in GUARD_NEEDS:
        if not state.has(name):
            feature = state.features.get(name)
            remedy = feature.reason.remedy if feature and feature.reason else ""
            sentence = f"without {name} no guard can be written, so the WAN stays out of the flowtable"
            return frozenset(), (Reason("NO_GUARD", "kernel", sentence, remedy),)
    if not regions.complete:
        sentence = "the policies overlap too much for a guard, so the WAN stays out of the flowtable"
        return frozenset(), (Reason("NO_GUARD", "policies", sentence, "use selectors that do not overlap"),)
    if not devices.wan:
        sentence = "no WAN device, so inbound keeps to the full path"
        return frozenset(), (Reason("NO_WAN", "devices.wan", sentence, "name the device that ESP arrives on"),)
    return devices.wan, ()


def _outer(tunnels: tuple[Tunnel, ...], which: Literal["local", "remote"]) -> dict[int, frozenset[str]]:
    """Outer addresses of the tunnels whose SAs are here, by family."""
    found: set[str] = {getattr(tunnel.key, which) for tunnel in tunnels if tunnel.key.netns is None}
    ends = found - {"", "0.0.0.0", "::"}  # noqa: S104 - a trap policy's "any peer"
    return {2: frozenset(end for end in ends if ":" not in end), 10: frozenset(end for end in ends if ":" in end)}


def _own_addresses(state: RouterState, devices: frozenset[str]) -> dict[str, str]:
    found = ((address, link.name) for link in state.links if link.name in devices for address in link.addresses)
    return {str(ip_interface(address).ip): name for address, name in found}


def _full(reason: Reason) -> Path:
    return Path(False, reason.sentence, reason)


def _paths(
    tunnel: Tunnel,
    wanted: Wanted,
    held: Mapping[TunnelKey, Reason],
    no_guard: tuple[Reason, ...],
) -> TunnelPath:
    why = held.get(tunnel.key) or _why_not(tunnel, wanted)
    if why is not None:
        return TunnelPath(tunnel, _full(why), _full(why))
    tx, rx = _FAST[tunnel.topology]
    if tunnel.topology is Topology.POLICY and no_guard:
        rx = _full(no_guard[0])
    return TunnelPath(tunnel, tx, rx)


def _why_not(tunnel: Tunnel, wanted: Wanted) -> Reason | None:
    if not tunnel.offload:
        return Reason("EXCLUDED", tunnel.name, "kept on the full path by the config", severity=Severity.INFO)
    if not wanted.lan:
        return Reason("NO_LAN", tunnel.name, "no LAN device is there", "name it under devices.lan", Severity.ERROR)
    if refused := wanted.regions.refused.get(tunnel.key):
        return refused
    if tunnel.topology is Topology.POLICY and (device := wanted.unguarded.get(tunnel.key.local)):
        sentence = f"its ESP leaves by {device}, a LAN device, and comes back where no guard stands"
        return Reason("WAN_IS_LAN", tunnel.name, sentence, f"name {device} under devices.wan, not under lan")
    if tunnel.topology is Topology.POLICY or tunnel.interface in wanted.interfaces:
        return None
    if tunnel.interface is None:
        sentence = f"no xfrm interface here has if_id {tunnel.key.if_id}"
        remedy = f"ip link add ipsec0 type xfrm if_id {tunnel.key.if_id}"
        return Reason("NO_INTERFACE", tunnel.name, sentence, remedy)
    return Reason("INTERFACE_DOWN", tunnel.name, f"{tunnel.interface} is down", f"ip link set {tunnel.interface} up")
