"""The fast path against the full L3 path."""

from grafana_foundation_sdk.builders import dashboard

from dashboards.parts import ROUTER, TUNNEL, bars, board, lines, number, rows
from dashboards.queries import SHARE_LIMITS, path_rate, rate, share


def build() -> dashboard.Dashboard:
    """The dashboard."""
    made = board(
        "flowfast-paths",
        "flowfast: fast path against full L3 path",
        "How much takes which path, why not more, and what the difference was measured to be.",
    )
    factor = "flowfast_compare_factor_ratio"
    return (
        made.with_panel(
            number("On the flowtable", "percentunit", share(), limits=SHARE_LIMITS, empty="nothing carried", width=6)
        )
        .with_panel(number("On the full L3 path", "bps", path_rate("l3"), width=6))
        .with_panel(
            number(
                "Cost of the full path, as a factor",
                "none",
                f'max({factor}{{{ROUTER}, tunnel=""}})',
                width=6,
                empty="run flowfast compare",
                about="CPU time of a packet on the full L3 path, of that on the "
                "fast path, by the last flowfast compare that came to a verdict.",
            )
        )
        .with_panel(
            number(
                "Measured",
                "dateTimeFromNow",
                f"max(flowfast_compare_timestamp_seconds{{{ROUTER}}}) * 1000",
                width=6,
                empty="never",
            )
        )
        .with_panel(
            lines(
                "Throughput by path",
                "bps",
                (path_rate("flowtable"), "flowtable"),
                (path_rate("l3"), "full L3 path"),
                stacked=True,
            )
        )
        .with_panel(
            lines(
                "Share on the flowtable, the lowest ten",
                "percentunit",
                (f"bottomk(10, {share('tunnel, direction')})", "{{tunnel}} {{direction}}"),
                most=1,
            )
        )
        .with_panel(
            bars("Factor by tunnel", "none", (f"{factor}{{{TUNNEL}}}", "{{tunnel}}"), about="By flowfast compare.")
        )
        .with_panel(
            lines(
                "Factor with its 95 % interval",
                "none",
                (f'max({factor}{{{ROUTER}, tunnel=""}})', "factor"),
                (f'max(flowfast_compare_factor_bound_ratio{{{ROUTER}, tunnel="", bound="lower"}})', "lower"),
                (f'max(flowfast_compare_factor_bound_ratio{{{ROUTER}, tunnel="", bound="upper"}})', "upper"),
            )
        )
        .with_panel(
            lines(
                "Connections on the full path",
                "short",
                (f'topk(10, flowfast_flows{{{ROUTER}, state="full"}})', "{{tunnel}}"),
            )
        )
        .with_panel(
            lines(
                "Kept off the flowtable by the config",
                "pps",
                (rate("flowfast_excluded_packets_total", ROUTER, "by"), "{{by}}"),
            )
        )
        .with_panel(
            rows(
                "Tunnels that are meant to be slow",
                (f'flowfast_tunnel_info{{{TUNNEL}, tx="l3"}} or flowfast_tunnel_info{{{TUNNEL}, rx="l3"}}', "known"),
                hide=("known",),
                empty="none",
            )
        )
    )
