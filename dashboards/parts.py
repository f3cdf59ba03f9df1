"""The few kinds of panel that the dashboards are made of, and the variables that all of them have."""

from collections.abc import Sequence
from typing import Any, Literal

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Query = tuple[str, str]
"""An expression of PromQL, and the legend of its series."""
Unit = Literal["bps", "pps", "percentunit", "short", "s", "dateTimeFromNow", "none", "bytes"]

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
NOTHING = "no data: is flowfast running on this router, and scraped?"
ROUTER = 'instance=~"$instance"'
"""Keeps a query to the routers that were chosen."""
TUNNEL = f'{ROUTER}, tunnel=~"$tunnel"'
"""Keeps a query to the tunnels that were chosen."""

GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"
COLOURS = {"flowtable": GREEN, "full L3 path": ORANGE}


def board(uid: str, title: str, about: str, *, tunnels: bool = True, repeat: bool = False) -> dashboard.Dashboard:
    """An empty dashboard with its variables: data source, routers, tunnels. `repeat`: several of them at once."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["flowfast", "ipsec"])
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("flowfast")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["flowfast"])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("instance", "Router", "label_values(flowfast_build_info, instance)"))
    )
    if tunnels:
        query = f"label_values(flowfast_tunnel_info{{{ROUTER}}}, tunnel)"
        made = made.with_variable(_variable("tunnel", "Tunnel", query))
    return made


def _variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def _targets(queries: Sequence[Query], *, instant: bool = False) -> list[prometheus.Dataquery]:
    made = []
    for number, (expression, legend) in enumerate(queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
        query = query.datasource(SOURCE)
        made.append(query.instant().format(PromQueryFormat.TABLE) if instant else query.range())
    return made


def _steps(limits: dict[str, float | None]) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=value, color=colour) for colour, value in limits.items()]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _width(panel: Any, width: int, height: int) -> Any:
    return panel.span(width).height(height)


def lines(
    title: str,
    unit: Unit,
    *queries: Query,
    about: str = "",
    width: int = 12,
    stacked: bool = False,
    most: float | None = None,
) -> Any:
    """Series over time. `stacked`: areas on top of each other. `most`: the top of the axis."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .no_value(NOTHING)
        .targets(_targets(queries))
        .fill_opacity(60 if stacked else 8)
        .line_width(1)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if most is not None:
        panel = panel.max(most)
    for name, colour in COLOURS.items():
        fixed = models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})
        panel = panel.override_by_regexp(f".*{name}.*", [fixed])
    return _width(panel, width, 9)


def number(
    title: str,
    unit: Unit,
    query: str,
    *,
    about: str = "",
    width: int = 4,
    limits: dict[str, float | None] | None = None,
    empty: str = "-",
) -> Any:
    """One number, with a colour from `limits`: colour -> from which value on (None: from the bottom)."""
    panel = (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .no_value(empty)
        .targets(_targets([(query, title)]))
        .thresholds(_steps(limits or {BLUE: None}))
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.AREA)
    )
    return _width(panel, width, 4)


def bars(title: str, unit: Unit, query: Query, *, about: str = "", width: int = 12) -> Any:
    """The values of now, side by side."""
    panel = bargauge.Panel().title(title).description(about).datasource(SOURCE).unit(unit).min(0).no_value(NOTHING)
    panel = panel.targets(_targets([query])).orientation(common_models.VizOrientation.HORIZONTAL)
    return _width(panel, width, 9)


def rows(
    title: str, *queries: Query, about: str = "", width: int = 24, empty: str = NOTHING, hide: Sequence[str] = ()
) -> Any:
    """A table of the series of now: a column for each label, and one for each query, by its legend."""
    unwanted = dict.fromkeys(("Time", "__name__", "job", *hide), True)
    names = (
        {"Value": queries[0][1]}
        if len(queries) == 1
        else {f"Value #{chr(ord('A') + at)}": legend for at, (_, legend) in enumerate(queries)}
    )
    options = {"excludeByName": unwanted, "renameByName": names}
    panel = table.Panel().title(title).description(about).datasource(SOURCE).no_value(empty)
    panel = panel.targets(_targets(queries, instant=True))
    if len(queries) > 1:
        panel = panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel = panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=options))
    return _width(panel, width, 9)


def row(title: str) -> dashboard.Row:
    """A heading between panels."""
    return dashboard.Row(title)


def text(made: dashboard.Dashboard) -> str:
    """The dashboard's JSON, as it is committed."""
    built = made.build()
    for number, panel in enumerate(built.panels or (), 1):
        panel.id_val = number  # the builders give every row the same
    return JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"
