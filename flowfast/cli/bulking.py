"""What `flowfast show bulking` lists: each device's stage, the best there is, how packets arrive and travel."""

from collections.abc import Iterable, Iterator

from flowfast.apply.decisions import Decisions
from flowfast.apply.knobs import KnobJournal
from flowfast.cli.columns import Column, Row
from flowfast.model.bulk import MODULES, knob_of
from flowfast.model.knob import Knob, KnobKind
from flowfast.plan.bulk import BEST, problems, sites
from flowfast.plan.case import Sight
from flowfast.plan.roles import roles


def _factor(value: object) -> str:
    return f"{value:.1f}"


BULKING = (
    Column("device", "device"),
    Column("side", "side"),
    Column("driver", "driver"),
    Column("profile", "profile"),
    Column("stage", "stage"),
    Column("shield", "shield"),
    Column("best", "best"),
    Column("waits ns", "flush_timeout"),
    Column("as one", "factor", _factor),
    Column("checksums", "checksums"),
    Column("decided", "decided"),
    Column("why no more", "why"),
)
KNOBS = (
    Column("device", "device"),
    Column("knob", "knob"),
    Column("is", "held"),
    Column("planned", "planned"),
    Column("before flowfast", "before"),
)


def bulking_rows(sight: Sight) -> Iterator[Row]:
    """The devices on which a stage matters to IPsec. `best`: the best stage that leaves all packets whole here;
    `decided`: what profile auto said last, in a controller that ran or runs.
    """
    decisions = Decisions().read()
    state, bulk, config = sight.state, sight.state.bulk, sight.config
    facing = roles(state, config)
    by_side: dict[str, list[str]] = {"lan": [], "wan": []}
    for device, side in facing.items():
        by_side.setdefault(str(side), []).append(device)
    lan = by_side["lan"] if config else [link.name for link in state.links if not link.is_xfrm and link.name != "lo"]
    for site in sites(state, sight.tunnels, lan, by_side["wan"]):
        arrived = bulk.arrivals.get(site.device)
        judged = [(stage, problems(site, stage, bulk, site.shielded)) for stage in BEST]
        best = next((str(stage) for stage, found in judged if not found), "off")
        why = next((found[0].sentence for _, found in judged if found), None)
        wanted = Knob(KnobKind.FEATURE, site.device, "rx-gro")
        yield {
            "device": site.device,
            "side": str(site.side),
            "driver": site.driver,
            "profile": str(config.bulk.of(site.device)) if config else None,
            "planned": None if sight.desired is None else wanted in sight.desired.knobs,
            "stage": str(site.knobs.stage),
            "shield": "held" if site.held else site.knobs.values.get("shield"),
            "best": best,
            "flush_timeout": _either(site.knobs.values[name] for name in site.knobs.napi("gro_flush_timeout")),
            "factor": arrived.factor if arrived else None,
            "checksums": None if arrived is None else "unfinished" if arrived.unfinished else "finished",
            "esp_offload": bulk.esp_offload,
            "decided": decided.why if (decided := decisions.get(site.device)) else None,
            "decided_at": decided.at if decided else None,
            "why": why,
        }


def _either(values: Iterable[str]) -> str | None:
    """What NAPIs of a device have; several values where they differ."""
    return "/".join(sorted(set(values), key=int)) or None


def knob_rows(sight: Sight, *, every: bool) -> Iterator[Row]:
    """The knobs of bulking, as they are, as the config wants them, and as they were before flowfast turned them.

    `every`: those, too, of which nothing is wanted, of devices that bulking or the config has to do with.
    """
    bulk, planned = sight.state.bulk, sight.desired.knobs if sight.desired else {}
    before = {knob: was.before for knob, was in KnobJournal().read().items()}
    held = {Knob(KnobKind.SYSCTL, "", name): value for name, value in bulk.sysctls.items()}
    held |= {Knob(KnobKind.MODULE, "", name): "loaded" if bulk.modules.get(name) else "absent" for name in MODULES}
    ours = {str(row["device"]) for row in bulking_rows(sight)} | {knob.object for knob in (*planned, *before)}
    for device in sorted(ours & bulk.knobs.keys()):
        held |= {knob_of(device, name): value for name, value in sorted(bulk.knobs[device].values.items())}
    for knob, value in held.items():
        if every or knob in planned or knob in before:
            yield {
                "device": knob.object or None,
                "knob": knob.name,
                "held": value,
                "planned": planned.get(knob),
                "before": before.get(knob),
            }
