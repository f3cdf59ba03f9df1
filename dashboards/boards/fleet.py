"""All routers side by side."""

from grafana_foundation_sdk.builders import dashboard

from dashboards.parts import ROUTER, board, lines, number, rows
from dashboards.queries import NONE_IS_GOOD, SHARE_LIMITS, rate, share


def build() -> dashboard.Dashboard:
    """The dashboard."""
    made = board("flowfast-fleet", "flowfast: fleet", "All routers side by side.", tunnels=False)
    by = "instance"
    return (
        made.with_panel(number("Routers", "none", f"count(flowfast_build_info{{{ROUTER}}})"))
        .with_panel(number("Throughput", "bps", f"{rate('flowfast_tunnel_bytes_total', ROUTER)} * 8"))
        .with_panel(
            number("On the flowtable", "percentunit", share("", ROUTER), limits=SHARE_LIMITS, empty="nothing carried")
        )
        .with_panel(
            number(
                "Tunnels down", "none", f"count(flowfast_tunnel_up{{{ROUTER}}} == 0) or vector(0)", limits=NONE_IS_GOOD
            )
        )
        .with_panel(
            number(
                "Routers with errors",
                "none",
                f'count(count by (instance) (flowfast_reason{{{ROUTER}, severity="error"}})) or vector(0)',
                limits=NONE_IS_GOOD,
            )
        )
        .with_panel(
            number(
                "Routers without a good round for 2 min",
                "none",
                f"count(time() - flowfast_reconcile_last_success_timestamp_seconds{{{ROUTER}}} > 120) or vector(0)",
                limits=NONE_IS_GOOD,
            )
        )
        .with_panel(
            lines(
                "Throughput",
                "bps",
                (f"{rate('flowfast_tunnel_bytes_total', ROUTER, by)} * 8", "{{instance}}"),
                stacked=True,
            )
        )
        .with_panel(lines("Share on the flowtable", "percentunit", (share(by, ROUTER), "{{instance}}"), most=1))
        .with_panel(
            rows(
                "Routers",
                (f"flowfast_build_info{{{ROUTER}}}", "known"),
                (f"count by (instance) (flowfast_tunnel_info{{{ROUTER}}})", "tunnels"),
                (f"count by (instance) (flowfast_tunnel_up{{{ROUTER}}} == 0)", "down"),
                (f"count by (instance) (flowfast_reason{{{ROUTER}}})", "reasons"),
                hide=("Value #A",),
            )
        )
        .with_panel(
            lines("Guard drops", "pps", (rate("flowfast_guard_dropped_packets_total", ROUTER, by), "{{instance}}"))
        )
        .with_panel(
            lines(
                "SAs without a policy",
                "short",
                (f'sum by (instance) (flowfast_xfrm_states{{{ROUTER}, kind="orphan"}})', "{{instance}}"),
                about="Those that stay are leaked by the IKE daemon.",
            )
        )
    )
