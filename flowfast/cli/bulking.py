"""What `flowfast show bulking` lists: each device's stage, the best there is, how packets arrive and travel."""

from collections.abc import Iterator

from flowfast.cli.columns import Column, Row
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
    Column("why no more", "why"),
)


def bulking_rows(sight: Sight) -> Iterator[Row]:
    """The devices on which a stage matters to IPsec. `best`: the best stage that leaves all packets whole here."""
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
            "shield": site.knobs.values.get("shield"),
            "best": best,
            "flush_timeout": site.knobs.values.get("gro_flush_timeout"),
            "factor": arrived.factor if arrived else None,
            "checksums": None if arrived is None else "unfinished" if arrived.unfinished else "finished",
            "esp_offload": bulk.esp_offload,
            "why": why,
        }
