"""SAs and policies in NICs: what is offloaded, what is not although it should be, and what the fast path makes of it.

An SA in a NIC by *crypto* offload is the stack's in all but the cipher: nothing about the fast path changes. One by
*packet* offload is not: the stack forwards plain packets, and those that come in lose what tells that they were
encrypted in the policy check (secpath_reset() in __xfrm_policy_check2(), include/net/xfrm.h). So a flow is added by
packets from the LAN alone (plan/ruleset.py), and what the kernel would not send through the NIC is not fast.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from flowfast.config.schema import Config
from flowfast.model.nic import ESP, Nic, OffloadType
from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import SA, Direction, Policy, Selector
from flowfast.model.state import RouterState
from flowfast.model.tunnel import Tunnel, TunnelKey
from flowfast.plan.eligible import Refusal, asked_for, feature_off, lines, refusals
from flowfast.plan.nics import limits
from flowfast.plan.regions import parse
from flowfast.plan.tunnels import policy_key


@dataclass(frozen=True, slots=True)
class Placed:
    """An SA of a tunnel, and where its work is done. `real` None: by the CPU. `device`: that it is on, or could be."""

    tunnel: Tunnel
    sa: SA
    direction: Direction
    wanted: OffloadType | None
    real: OffloadType | None
    device: str | None
    reasons: tuple[Reason, ...] = ()


def offload_type(sa: SA | Policy) -> OffloadType | None:
    """What a device does for the SA or policy now, as the kernel says."""
    if sa.offload is None:
        return None
    return OffloadType.PACKET if sa.offload.packet else OffloadType.CRYPTO


def placed(state: RouterState, tunnels: Iterable[Tunnel], wanted: OffloadType | None = None) -> Iterator[Placed]:
    """Every SA of the tunnels, with why it is not offloaded. `wanted`: what the config says of all of them.

    Without a word of the config an SA is taken to be wanted in a NIC where another one of its tunnel is in one. Of SAs
    in another network namespace only what is real is known.
    """
    names = {link.ifindex: link.name for link in state.links}
    homes = _Homes(state)
    for tunnel in tunnels:
        sas = [(sa, Direction.OUT) for sa in tunnel.outbound] + [(sa, Direction.IN) for sa in tunnel.inbound]
        asked = wanted or max((kind for sa, _ in sas if (kind := offload_type(sa)) is not None), default=None)
        for sa, direction in sas:
            real = offload_type(sa)
            if tunnel.key.netns is not None:  # its devices are out of sight, and their numbers mean others here
                yield Placed(tunnel, sa, direction, asked, real, None)
            elif sa.offload is not None:
                device = names.get(sa.offload.ifindex)
                off = homes.switched_off(device) if real is OffloadType.CRYPTO else None
                yield Placed(tunnel, sa, direction, asked, real, device, _cpu_encrypts(tunnel, off))
            else:
                nic = homes.of(sa.src if direction is Direction.OUT else sa.dst)
                alone = Placed(tunnel, sa, direction, asked, None, nic.name if nic else None)
                yield replace(alone, reasons=tuple(_why(state, alone, nic)))


class _Homes:
    """The NIC that an SA would be in: the one with our end's address, else the only one that there is."""

    def __init__(self, state: RouterState) -> None:
        self._by_name = {nic.name: nic for nic in state.nics}
        self._by_address: dict[str, Nic | None] = {}
        for link in state.links:
            for address in link.addresses:
                self._by_address[address.partition("/")[0]] = self._by_name.get(link.name)
        self._only = state.nics[0] if len(state.nics) == 1 else None

    def of(self, ours: str) -> Nic | None:
        """By the SA's own outer address. On a device that is no NIC its packets need not pass one at all."""
        return self._by_address.get(ours, self._only)

    def switched_off(self, device: str | None) -> Nic | None:
        """The NIC of that name, if its ESP feature is off."""
        nic = self._by_name.get(device or "")
        return nic if nic is not None and not nic.enabled else None


def _why(state: RouterState, placed: Placed, nic: Nic | None) -> Iterator[Reason]:
    """Why an SA that the CPU does is not in the NIC."""
    name, way = placed.tunnel.name, placed.direction
    severity = Severity.WARNING if placed.wanted else Severity.INFO
    if nic is None:
        if placed.wanted:
            sentence = f"its {way} SA should be in a NIC, and no device that it passes offloads IPsec"
            yield Reason("NO_ESP_DEVICE", name, sentence, "flowfast show nics lists those that do", severity)
        return
    kind = placed.wanted or max(limits(nic.driver).types)
    for refusal in refusals(state, placed.sa, way, nic, kind) or [_nothing_against(nic, kind)]:
        sentence = f"its {way} SA is not offloaded: {refusal.sentence}"
        yield Reason(refusal.code, name, sentence, refusal.remedy, severity)


def _nothing_against(nic: Nic, kind: OffloadType) -> Refusal:
    return Refusal("NOT_OFFLOADED", f"{nic.name} could do {kind} offload, as far as is known", asked_for(kind))


def _cpu_encrypts(tunnel: Tunnel, nic: Nic | None) -> tuple[Reason, ...]:
    """Of a crypto-offloaded SA whose device has the feature off (esp_xmit(), net/ipv4/esp4_offload.c)."""
    if nic is None:
        return ()
    off = feature_off(nic)
    sentence = f"its SAs are offloaded, but {off.sentence}: the CPU encrypts"
    return (Reason(off.code, tunnel.name, sentence, off.remedy),)


# --- what the fast path makes of it ----------------------------------------------------------------------------------


def held_back(state: RouterState, tunnels: Iterable[Tunnel]) -> Mapping[TunnelKey, Reason]:
    """Tunnels that are not to be fast, because the kernel would not send all of their packets through the NIC.

    With packet offload a policy takes only SAs of its own device, and a policy that is not offloaded only SAs that are
    not (xfrm_state_find, net/xfrm/xfrm_state.c): both are on one device, or nothing leaves.
    """
    spds = {None: state.policies} | {netns: spd.policies for netns, spd in state.underlay.items()}
    in_nics = {netns for netns, policies in spds.items() if any(policy.offload for policy in policies)}
    names = {link.ifindex: link.name for link in state.links}
    outbound: dict[TunnelKey, list[Policy]] = {}
    concerned = {tunnel.key: homes for tunnel in tunnels if (homes := _homes(tunnel)) or tunnel.key.netns in in_nics}
    for netns in {key.netns for key in concerned}:
        for policy in spds.get(netns, ()):
            if policy.direction is Direction.OUT and (demand := policy.demand) is not None:
                outbound.setdefault(policy_key(policy, demand, netns), []).append(policy)
    of_cpu = {netns: _of_cpu(spds.get(netns, ())) for netns in {key.netns for key in concerned}}
    found: dict[TunnelKey, Reason] = {}
    for tunnel in tunnels:
        if tunnel.key in concerned:
            policies, homes = outbound.get(tunnel.key, []), concerned[tunnel.key]
            reason = (
                _policy_missing(tunnel, policies, homes, names)
                or _families_differ(tunnel, policies)
                or _sa_missing(tunnel, policies, homes, names)
                or _policy_not_first(tunnel, policies, of_cpu[tunnel.key.netns])
            )
            if reason is not None:
                found[tunnel.key] = reason
    return found


def _homes(tunnel: Tunnel) -> frozenset[int]:
    """Devices that the tunnel's outbound SAs are in by packet offload."""
    return frozenset(sa.offload.ifindex for sa in tunnel.outbound if sa.offload is not None and sa.offload.packet)


def _of_cpu(policies: Iterable[Policy]) -> list[Policy]:
    """Outbound policies that are in no NIC, in the order of their priorities."""
    found = [each for each in policies if each.direction is Direction.OUT and each.offload is None and not each.socket]
    return sorted(found, key=lambda policy: policy.priority)


def _device(names: Mapping[int, str], ifindex: int) -> str:
    return names.get(ifindex, f"device number {ifindex}")


def _policy_missing(
    tunnel: Tunnel, policies: Iterable[Policy], homes: frozenset[int], names: Mapping[int, str]
) -> Reason | None:
    where = " and ".join(sorted(_device(names, home) for home in homes))
    for policy in policies:
        if homes and (policy.offload is None or policy.offload.ifindex not in homes):
            at = "is not offloaded" if policy.offload is None else f"is in {_device(names, policy.offload.ifindex)}"
            pair = f"{policy.selector.src} -> {policy.selector.dst}"
            sentence = f"its SA is in {where} (packet offload), its policy {pair} {at}: nothing leaves by that policy"
            remedy = lines("hw_offload = packet, and not policies = no", "nic-offload=packet")
            return Reason("POLICY_MISSING", tunnel.name, sentence, remedy, Severity.ERROR)
    return None


def _families_differ(tunnel: Tunnel, policies: Iterable[Policy]) -> Reason | None:
    """The kernel looks for the way to the peer's address in the family of the inner packets, if a NIC does the SA
    (xfrm_bundle_create(), net/xfrm/xfrm_policy.c): there is none."""
    for policy in policies:
        for sa in tunnel.outbound:
            if sa.offload is not None and sa.offload.packet and sa.family != policy.selector.family:
                inner, outer = (6, 4) if sa.family == 2 else (4, 6)
                pair = f"{policy.selector.src} -> {policy.selector.dst}"
                sentence = f"IPv{inner} in IPv{outer} does not leave by packet offload: nothing of {pair} does"
                remedy = lines("hw_offload = crypto, or a connection over the other family", "nic-offload=crypto")
                return Reason("FAMILIES_DIFFER", tunnel.name, sentence, remedy, Severity.ERROR)
    return None


def _sa_missing(
    tunnel: Tunnel, policies: Iterable[Policy], homes: frozenset[int], names: Mapping[int, str]
) -> Reason | None:
    """Offloaded policies, and SAs that the CPU does: only where there are SAs at all, for traps have none yet."""
    for policy in policies:
        if policy.offload is not None and tunnel.outbound and not homes:
            where = _device(names, policy.offload.ifindex)
            sentence = f"its policies are in {where} (packet offload) and no outbound SA is: nothing leaves"
            return Reason("SA_MISSING", tunnel.name, sentence, asked_for(OffloadType.PACKET), Severity.ERROR)
    return None


def _policy_not_first(tunnel: Tunnel, policies: Iterable[Policy], of_cpu: list[Policy]) -> Reason | None:
    """A policy of the CPU's that should come first, and does not: those in NICs are at the head of the kernel's lists
    whatever their priority (xfrm_policy_insert_list(), net/xfrm/xfrm_policy.c), and the NIC knows of no others."""
    for policy in policies:
        if policy.offload is None:
            continue
        for other in of_cpu:
            if other.priority >= policy.priority:
                break
            if other.if_id == policy.if_id and _overlap(policy.selector, other.selector):
                sentence = (
                    f"its policy {policy.selector.src} -> {policy.selector.dst} (priority {policy.priority}) is in a "
                    f"NIC, and {other.selector.src} -> {other.selector.dst} (priority {other.priority}), which should "
                    "come first, is not: the NIC does not know it"
                )
                remedy = lines(f"priority = {max(other.priority - 1, 1)}", "priority=, less than the other's")
                return Reason("POLICY_NOT_FIRST", tunnel.name, sentence, remedy, Severity.ERROR)
    return None


def _overlap(ours: Selector, theirs: Selector) -> bool:
    """Whether a packet can match both, by its addresses and protocol."""
    if ours.family != theirs.family or (ours.proto and theirs.proto and ours.proto != theirs.proto):
        return False
    bits = 128 if ours.family == 10 else 32
    return _meet(ours.src, theirs.src, bits) and _meet(ours.dst, theirs.dst, bits)


def _meet(one: str, other: str, bits: int) -> bool:
    (first, size), (second, length) = parse(one), parse(other)
    shift = bits - min(size, length)
    return first >> shift == second >> shift


def packet_inbound(tunnels: Iterable[Tunnel]) -> bool:
    """Whether any tunnel's packets come in through a NIC's packet offload."""
    return any(sa.offload is not None and sa.offload.packet for tunnel in tunnels for sa in tunnel.inbound)


def stray_secpath(state: RouterState, lan: Iterable[str], tunnels: Iterable[Tunnel]) -> Reason | None:
    """Why inbound may not be fast: what a NIC decrypted keeps its secpath on the flowtable, which skips the policy
    check that takes it off; and a LAN device that offloads IPsec takes it for a packet to encrypt
    (mlx5e_accel_tx_begin(), en_accel/en_accel.h), and destroys it."""
    able = sorted({nic.name for nic in state.nics if nic.enabled}.intersection(lan))
    if not able or not packet_inbound(tunnels):
        return None
    sentence = (
        f"{able[0]} offloads IPsec itself, and would take what the other NIC decrypted for packets to encrypt, so "
        "inbound keeps to the full path"
    )
    remedy = f"ethtool -K {able[0]} {ESP} off, where its driver can; or a LAN device without it"
    return Reason("SECPATH_TO_NIC", able[0], sentence, remedy)


def hardware_flowtable(state: RouterState, config: Config, devices: Iterable[str]) -> tuple[bool, tuple[Reason, ...]]:
    """Whether the flowtable may have `flags offload`; where it is wanted and may not, why."""
    if not config.offload.hardware:
        return False, ()
    hooked = sorted(devices)
    names = {link.ifindex: link.name for link in state.links}
    offloads = (*(sa.offload for sa in state.sas), *(policy.offload for policy in state.policies))
    in_nics = {names.get(each.ifindex, "") for each in offloads if each is not None and each.packet}
    if both := sorted(in_nics.intersection(hooked)):
        sentence = "flows stay in software: hardware flows and IPsec packet offload exclude each other"
        return False, (Reason("HARDWARE_AND_PACKET", both[0], sentence, "leave out offload.hardware"),)
    if not config.offload.plain:
        sentence = "no NIC takes flows through tunnels, so offload.hardware has nothing to do"
        return False, (Reason("HARDWARE_NEEDS_PLAIN", "offload", sentence, "offload.plain: true", Severity.INFO),)
    refused = [name for name in hooked if name not in state.hardware]
    sentence = "flows stay in software: its driver takes none (`flags offload` was refused)"
    remedy = "leave out offload.hardware, or the device"
    return not refused, tuple(Reason("HARDWARE_REFUSED", name, sentence, remedy, Severity.INFO) for name in refused)
