"""Packet bulking: the best stage of each device that the lab qualified for this router, and why it is no better one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from typing import Literal

from flowfast.config.bulk import Profile, Risk
from flowfast.config.schema import Config
from flowfast.model.bulk import NAPI, BulkState, Case, DeviceKnobs, Side, Stage, Verdict, kernel_id
from flowfast.model.knob import Knob, KnobKind, Settings
from flowfast.model.reason import Reason, Severity
from flowfast.model.state import RouterState
from flowfast.model.tunnel import Tunnel

BEST = (Stage.LIST, Stage.UDP, Stage.GRO)
"""Stages, the one that saves most first (measured: docs/bulking.md)."""
WAITS = {Profile.LATENCY: 0, Profile.BALANCED: 20_000, Profile.THROUGHPUT: 200_000, Profile.AUTO: 20_000}
"""gro_flush_timeout in nanoseconds: how long a packet may wait for others."""
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
            if case.shield and bare is not None and Verdict.PANIC in bare.verdicts.values():
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


def plan_bulk(
    state: RouterState,
    config: Config,
    tunnels: tuple[Tunnel, ...],
    lan: Iterable[str],
    wan: Iterable[str],
    *,
    busy: frozenset[str] = frozenset(),
) -> tuple[Settings, dict[str, dict[Stage, Settings]], list[Reason]]:
    """The knobs that are wanted, those of each stage that `auto` may choose, and the reasons: what is on and breaks
    packets, what is not on and why.

    `busy`: devices whose XDP program is for something else.
    """
    settings: dict[Knob, str] = {}
    choices: dict[str, dict[Stage, Settings]] = {}
    reasons: list[Reason] = []
    for site in sites(state, tunnels, frozenset(lan), frozenset(wan)):
        accepted = config.bulk.accepted(site.device)
        reasons += condemned(site, state.bulk, accepted)
        profile = config.bulk.of(site.device)
        if profile is Profile.KEEP:
            continue
        shield = _may_shield(site, config, busy)
        stage, needs_shield, why = _choose(site, state.bulk, profile, accepted, shield)
        reasons += why
        if needs_shield:
            settings[Knob(KnobKind.SHIELD, site.device, "shield")] = "on"
            if not site.shielded:
                # Only once it is there: a device that refuses it must not be left with a stage that needs it.
                stage, _, _ = _choose(site, state.bulk, profile, accepted, False)
        wait = WAITS.get(profile, 0)
        if profile is Profile.AUTO:
            able = [*_able(site, state.bulk, accepted, shield and site.shielded), Stage.OFF]
            choices[site.device] = {each: _settings(site, each, wait, state.bulk)[0] for each in able}
            chosen = state.bulk.chosen.get(site.device)
            if chosen is not None and chosen.stage in able:
                stage = chosen.stage
                if chosen.why:
                    reasons.append(Reason("BULK_CHOSEN", site.device, chosen.why, "none", Severity.INFO))
        wanted, told = _settings(site, stage, wait, state.bulk)
        settings |= wanted
        reasons += told
    return settings, choices, reasons


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


def _settings(site: Site, stage: Stage, wait: int, bulk: BulkState) -> tuple[dict[Knob, str], list[Reason]]:
    """The knobs of a stage that can be turned, and the reasons for those that cannot."""
    wanted = _wanted(site, stage, wait)
    settings, reasons = {}, list(_fixed(site, wanted))
    for name, value in wanted.items():
        if name in site.knobs.fixed:
            continue
        if (site.device, name) in bulk.contested:
            sentence = f"something else turned {name} back again and again: it is left as it is"
            remedy = "find what sets it, then restart flowfast"
            reasons.append(Reason("BULK_CONTESTED", site.device, sentence, remedy))
        else:
            kind = KnobKind.DEVICE if name in NAPI else KnobKind.FEATURE
            settings[Knob(kind, site.device, name)] = value
    return settings, reasons


def _wanted(site: Site, stage: Stage, wait: int) -> dict[str, str]:
    """All knobs for a stage. LRO, in hardware or not, makes packets that cannot be forwarded (ip_forward)."""
    waits = wait if stage is not Stage.OFF else 0
    wanted = {
        "rx-lro": "off",
        "rx-gro-hw": "off",
        "rx-gro-list": "on" if stage is Stage.LIST else "off",
        "rx-udp-gro-forwarding": "on" if stage is Stage.UDP else "off",
        "rx-gro": "off" if stage is Stage.OFF else "on",
    }
    if site.driver is not None:  # gro_cells of an xfrm interface has a NAPI that cannot be reached
        wanted |= {"gro_flush_timeout": str(waits), "napi_defer_hard_irqs": "1" if waits else "0"}
    return {name: value for name, value in wanted.items() if name in site.knobs.values}


def _fixed(site: Site, wanted: Mapping[str, str]) -> Iterator[Reason]:
    for name, value in wanted.items():
        if name in site.knobs.fixed and site.knobs.values[name] != value:
            sentence = f"{name} is {site.knobs.values[name]} and its driver lets nobody turn it {value}"
            yield Reason("BULK_FIXED", site.device, sentence, "none: the rest of the profile holds", Severity.INFO)
