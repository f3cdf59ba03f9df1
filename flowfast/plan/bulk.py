"""Packet bulking: the best stage of each device that the lab qualified for this router, and why it is no better one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from typing import Literal

from flowfast.config.bulk import Profile, Risk
from flowfast.config.schema import Config
from flowfast.model.bulk import HELD, Bulked, BulkState, Case, DeviceKnobs, Side, Stage, Verdict, kernel_id
from flowfast.model.knob import Knob, KnobKind, Settings
from flowfast.model.reason import Reason, Severity
from flowfast.model.state import RouterState
from flowfast.model.tunnel import Tunnel
from flowfast.plan.bulk_knobs import by_name, esp_modules, for_stage, uncontested

BEST = (Stage.LIST, Stage.UDP, Stage.GRO)
"""Stages, the one that saves most first (measured: docs/bulking.md)."""
MERGES_UDP = frozenset({Stage.UDP, Stage.LIST})
PROVES = 1.2
"""UDP packets that must have travelled as one, on average over all kinds, for a cell to prove anything."""
MAY_BE_UNFINISHED = frozenset({"veth", "tun", "tap", "bridge", "virtio_net"})
"""Drivers that hand over packets of a sender on the same machine, whose checksum nobody has finished."""

RISKS = {Verdict.LOST: Risk.LOSS, Verdict.CORRUPT: Risk.CORRUPTION, Verdict.UNKNOWN: Risk.UNQUALIFIED}
DAMAGE = frozenset({Verdict.PANIC, Verdict.CORRUPT, Verdict.LOST})


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a stage may not be on. `risk` None: nobody may accept it."""

    risk: Risk | None
    sentence: str
    verdict: Verdict = Verdict.UNKNOWN


@dataclass(frozen=True, slots=True)
class Site:
    """A device as far as bulking goes: its side, and the tunnels that its packets may go into."""

    device: str
    side: Side
    driver: str | None
    tunnels: tuple[Tunnel, ...]
    knobs: DeviceKnobs

    @property
    def shielded(self) -> bool:
        """Whether the shield is on it now."""
        return self.knobs.values.get("shield") == "on"

    @property
    def held(self) -> bool:
        """Whether nobody can take it off by a slip."""
        return self.shielded and self.knobs.values.get(HELD) == "on"

    def cases(self, stage: Stage, finished: bool, esp_offload: bool, shield: bool) -> Iterator[Case]:
        """All that must be qualified. What comes out of one of several tunnels may go into another."""
        sides = {self.side, Side.LAN} if len(self.tunnels) > 1 else {self.side}
        ways = sorted({(str(t.topology), _outer(t)) for t in self.tunnels})
        for topology, outer in ways:
            for side in sorted(sides):
                on = shield and side is Side.LAN and esp_offload
                yield Case(self.driver or "?", finished, topology, outer, side, stage, esp_offload, on)


def _outer(tunnel: Tunnel) -> Literal[4, 6]:
    return 6 if ":" in tunnel.key.remote else 4


def sites(state: RouterState, tunnels: tuple[Tunnel, ...], lan: Iterable[str], wan: Iterable[str]) -> Iterator[Site]:
    """The devices on which stages matter: the LAN's, the WAN's, xfrm interfaces."""
    links = {link.name: link for link in state.links}
    wan = sorted(wan)
    drivers = {links[name].driver for name in wan if name in links}
    for name, knobs in sorted(state.bulk.knobs.items()):
        link = links.get(name)
        if link is None or not tunnels:
            continue
        if name in lan or name in wan:
            side = Side.LAN if name in lan else Side.WAN
            yield Site(name, side, link.driver, tunnels, knobs)
        elif link.is_xfrm:
            # Its packets were received by the WAN's driver, which decides how they lie in memory.
            driver = drivers.copy().pop() if len(drivers) == 1 else None
            yield Site(name, Side.WAN, driver, tunnels, knobs)


def problems(site: Site, stage: Stage, bulk: BulkState, shield: bool = False) -> list[Problem]:
    """Everything that speaks against a stage on a device, the worst first; nothing where all packets stay whole.

    What the lab saw lost with every stage off is not the stage's doing.
    """
    if stage is Stage.OFF:
        return []
    arrived = bulk.arrivals.get(site.device)
    unfinished = arrived is not None and arrived.unfinished > 0
    table = {cell.case: cell for cell in bulk.table}
    found = []
    for esp_offload in (True, False) if bulk.esp_offload is None else (bulk.esp_offload,):
        for case in site.cases(stage, not unfinished, esp_offload, shield):
            cell = table.get(case)
            if cell is None:
                kernel = kernel_id(bulk.release)
                known = "" if bulk.table else f"; the table knows {', '.join(bulk.tested) or 'no kernel'}"
                found.append(Problem(Risk.UNQUALIFIED, f"nobody tried {case} on kernel {kernel}{known}"))
                continue
            if stage in MERGES_UDP and (cell.merged or 0) < PROVES and Verdict.PANIC not in cell.verdicts.values():
                sentence = f"nothing was put together when {case} was tried ({cell.date}), which proves nothing"
                found.append(Problem(Risk.UNQUALIFIED, sentence))
            bare = table.get(replace(case, shield=False))
            if case.shield and not site.held and bare is not None and Verdict.PANIC in bare.verdicts.values():
                sentence = f"{stage} kills the kernel as soon as anybody takes the shield's XDP program off the device"
                found.append(Problem(Risk.UNSHIELDED, f"{sentence} (bulk: {{accept: [{Risk.UNSHIELDED}]}})"))
            control = table.get(replace(case, stage=Stage.OFF, shield=False))
            already = control.failing() if control else {}
            failing = {kind: verdict for kind, verdict in cell.failing().items() if kind not in already}
            if failing:
                kind, verdict = next(iter(failing.items()))
                more = f" and {len(failing) - 1} kinds more" if len(failing) > 1 else ""
                told = {
                    Verdict.PANIC: "kills the kernel",
                    Verdict.CORRUPT: "arrives corrupt",
                    Verdict.LOST: "is lost",
                }.get(verdict, "was not tried")
                sentence = f"{kind}{more} {told}: {case}, tried {cell.date}"
                found.append(Problem(RISKS.get(verdict), sentence, verdict))
    if arrived is None and _may_be_unfinished(site):
        sentence = f"packets of {site.driver} may have unfinished checksums, and nobody has looked how they arrive"
        found.append(Problem(Risk.UNFINISHED, sentence))
    worst = [Verdict.PANIC, Verdict.CORRUPT, Verdict.LOST, Verdict.UNKNOWN]
    return sorted(found, key=lambda problem: worst.index(problem.verdict))


def _may_be_unfinished(site: Site) -> bool:
    return site.driver in MAY_BE_UNFINISHED and site.knobs.values.get("rx-checksum", "on") == "on"


@dataclass(frozen=True, slots=True)
class BulkPlan:
    """What is wanted of bulking: all knobs; of devices that are governed those of each stage that may be on, the best
    first; the reasons: what is on and breaks packets, what is not on and why; and each device in a few words."""

    knobs: dict[Knob, str] = field(default_factory=dict)
    stages: dict[str, dict[Stage, Settings]] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
    devices: list[Bulked] = field(default_factory=list)


def plan_bulk(
    state: RouterState,
    config: Config,
    tunnels: tuple[Tunnel, ...],
    lan: Iterable[str],
    wan: Iterable[str],
    *,
    busy: frozenset[str] = frozenset(),
) -> BulkPlan:
    """The plan. `busy`: devices whose XDP program is for something else."""
    plan = BulkPlan()
    modules, bulk, told = esp_modules(state, config.bulk.esp_offload)
    named, absent = by_name(state, config.bulk)
    plan.knobs.update(modules)
    plan.reasons.extend((*told, *absent))
    for site in sites(state, tunnels, frozenset(lan), frozenset(wan)):
        _plan_site(plan, site, bulk, config, busy=busy, named=named)
    settings, contested = uncontested({**plan.knobs, **named}, bulk)
    plan.knobs.clear()
    plan.knobs.update(settings)
    plan.reasons.extend(contested)
    return plan


def _plan_site(
    plan: BulkPlan, site: Site, bulk: BulkState, config: Config, *, busy: frozenset[str], named: Settings
) -> None:
    """One device's part."""
    device, profile, accepted = site.device, config.bulk.of(site.device), config.bulk.accepted(site.device)
    plan.reasons.extend(condemned(site, bulk, accepted))
    able = [*_able(site, bulk, accepted, site.shielded), Stage.OFF]
    plan.devices.append(Bulked(device, site.side, site.driver, str(profile), site.knobs.stage, able[0], site.shielded))
    if profile is Profile.KEEP:
        return
    shield = _may_shield(site, config, busy)
    stage, needs_shield, why = _choose(site, bulk, profile, accepted, shield)
    plan.reasons.extend(why)
    if needs_shield:
        plan.knobs[Knob(KnobKind.SHIELD, device, "shield")] = "on"
        if not site.shielded:
            # Only once it is there: a device that refuses it must not be left with a stage that needs it.
            stage, _, _ = _choose(site, bulk, profile, accepted, False)
    if profile is Profile.AUTO:
        able = [*_able(site, bulk, accepted, shield and site.shielded), Stage.OFF]
        own = {knob: value for knob, value in named.items() if knob.object == device}
        each = {one: {**for_stage(device, site.knobs, one, profile)[0], **own} for one in able}
        plan.stages[device] = {one: uncontested(settings, bulk)[0] for one, settings in each.items()}
        chosen = bulk.chosen.get(device)
        if chosen is not None and chosen.stage in able:
            stage = chosen.stage
            if chosen.why:
                plan.reasons.append(Reason("BULK_CHOSEN", device, chosen.why, "none", Severity.INFO))
    wanted, fixed = for_stage(device, site.knobs, stage, profile)
    plan.knobs.update(wanted)
    plan.reasons.extend(fixed)


def condemned(site: Site, bulk: BulkState, accepted: frozenset[Risk] = frozenset()) -> list[Reason]:
    """What the table says against the stage that is on now."""
    stage = site.knobs.stage
    found = [problem for problem in problems(site, stage, bulk, site.shielded) if problem.verdict in DAMAGE]
    if not found:
        return []
    worst = found[0]
    sentence = f"{stage} is on and breaks packets: {worst.sentence}"
    if worst.risk in accepted:
        return [Reason("BULK_ACCEPTED", site.device, f"{sentence} (accepted in the config)", severity=Severity.WARNING)]
    off = {Stage.LIST: "rx-gro-list off", Stage.UDP: "rx-udp-gro-forwarding off"}.get(stage, "gro off")
    remedy = f"ethtool -K {site.device} {off}, or bulk: {{profile: off}} in the config"
    return [Reason("BULK_CONDEMNED", site.device, sentence, remedy, Severity.ERROR)]


def suspects(state: RouterState, tunnels: tuple[Tunnel, ...]) -> list[Reason]:
    """What the table condemns on a router of which no config says which device faces where.

    A device with the address of a tunnel's end is a WAN, any other one may be a LAN.
    """
    ends = {tunnel.key.local for tunnel in tunnels}
    wan = {link.name for link in state.links if ends & {str(ip_interface(each).ip) for each in link.addresses}}
    lan = {link.name for link in state.links if not link.is_xfrm and link.name not in (*wan, "lo")}
    return [reason for site in sites(state, tunnels, lan, wan) for reason in condemned(site, state.bulk)]


def _may_shield(site: Site, config: Config, busy: frozenset[str]) -> bool:
    asked = config.bulk.shield
    wanted = config.bulk.of(site.device) is Profile.AUTO if asked is None else asked
    return wanted and site.side is Side.LAN and site.device not in busy and "shield" in site.knobs.values


def _choose(
    site: Site, bulk: BulkState, profile: Profile, accepted: frozenset[Risk], may_shield: bool
) -> tuple[Stage, bool, list[Reason]]:
    """The best stage, whether it needs the shield, and why it is no better one."""
    if profile is Profile.OFF:
        return Stage.OFF, False, []
    reasons: list[Reason] = []
    for stage in BEST:
        for shield in (False, True) if may_shield else (False,):
            found = [problem for problem in problems(site, stage, bulk, shield) if problem.risk not in accepted]
            if not found:
                return stage, shield, [] if stage is BEST[0] else reasons
            if not reasons:
                remedy = "`flowfast lab qualify` tries it; docs/bulking.md says what is known"
                sentence = f"{stage} stays off: {found[0].sentence}"
                reasons.append(Reason("BULK_NOT_QUALIFIED", site.device, sentence, remedy))
    return Stage.OFF, False, reasons


def _able(site: Site, bulk: BulkState, accepted: frozenset[Risk], shielded: bool) -> Iterator[Stage]:
    """The stages that may be on now, the best first."""
    for stage in BEST:
        for shield in {False, shielded}:
            if all(problem.risk in accepted for problem in problems(site, stage, bulk, shield)):
                yield stage
                break
