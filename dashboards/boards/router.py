"""One router: is it well, what does it carry, what is missing."""

from grafana_foundation_sdk.builders import dashboard

from dashboards.parts import ROUTER, TUNNEL, board, lines, number, row, rows
from dashboards.queries import NONE_IS_GOOD, RATE, SHARE_LIMITS, path_rate, rate, share


def build() -> dashboard.Dashboard:
    """The dashboard."""
    made = board("flowfast-router", "flowfast: router", "One router at a glance: health, throughput by path, reasons.")
    for panel in (
        number("Throughput", "bps", f"{rate('flowfast_tunnel_bytes_total')} * 8", about="Inner bytes of all tunnels."),
        number("On the flowtable", "percentunit", share(), limits=SHARE_LIMITS, empty="nothing carried"),
        number("Tunnels", "none", f"count(flowfast_tunnel_info{{{TUNNEL}}})"),
        number("Tunnels down", "none", f"count(flowfast_tunnel_up{{{TUNNEL}}} == 0) or vector(0)", limits=NONE_IS_GOOD),
        number(
            "Errors",
            "none",
            f'count(flowfast_reason{{{ROUTER}, severity="error"}}) or vector(0)',
            limits=NONE_IS_GOOD,
            about="Reasons of severity error: something does not work, or is not safe.",
        ),
        number(
            "Last good round",
            "dateTimeFromNow",
            f"max(flowfast_reconcile_last_success_timestamp_seconds{{{ROUTER}}}) * 1000",
        ),
    ):
        made = made.with_panel(panel)
    return (
        made.with_row(row("Traffic"))
        .with_panel(
            lines(
                "Throughput by path",
                "bps",
                (path_rate("flowtable"), "flowtable"),
                (path_rate("l3"), "full L3 path"),
                stacked=True,
            )
        )
        .with_panel(lines("Share on the flowtable", "percentunit", (share("direction"), "{{direction}}"), most=1))
        .with_panel(
            lines(
                "Busiest tunnels",
                "bps",
                (f"topk(10, {rate('flowfast_tunnel_bytes_total', TUNNEL, 'tunnel')} * 8)", "{{tunnel}}"),
            )
        )
        .with_panel(
            lines(
                "Connections",
                "short",
                (f"sum by (state) (flowfast_flows{{{ROUTER}}})", "{{state}}"),
                stacked=True,
                about="By where their packets go; full: established, on the full L3 path.",
            )
        )
        .with_row(row("What is missing, and what went wrong"))
        .with_panel(
            rows(
                "Reasons",
                (f"flowfast_reason{{{ROUTER}}}", "holds"),
                hide=("holds",),
                width=12,
                empty="nothing stands in the way of the fast path",
                about="`flowfast explain` prints the sentence and the remedy of each.",
            )
        )
        .with_panel(
            lines(
                "Dropped by the guards",
                "pps",
                (rate("flowfast_guard_dropped_packets_total", ROUTER, "device"), "{{device}}"),
                about="Came in without IPsec although a policy demands it.",
            )
        )
        .with_panel(
            lines(
                "Dropped by XFRM",
                "pps",
                (f"{rate('flowfast_xfrm_errors_total', ROUTER, 'netns, counter')} > 0", "{{counter}} {{netns}}"),
            )
        )
        .with_panel(
            lines(
                "Kept off the flowtable by the config",
                "pps",
                (rate("flowfast_excluded_packets_total", ROUTER, "by"), "{{by}}"),
            )
        )
        .with_row(row("Devices that take IPsec off the CPU"))
        .with_panel(
            lines(
                "SAs in devices",
                "none",
                (f"flowfast_nic_sas{{{ROUTER}}}", "{{device}} {{type}}"),
                width=8,
                about="crypto: the device encrypts. packet: it does all of ESP.",
            )
        )
        .with_panel(
            lines(
                "SAs that fell back to the CPU",
                "none",
                (f"flowfast_nic_fallback_sas{{{ROUTER}}}", "{{device}} {{direction}}"),
                width=8,
                about="The CPU did packets of SAs that are in the device. `flowfast show offload` says of which.",
            )
        )
        .with_panel(rows("Devices", (f"flowfast_nic_enabled{{{ROUTER}}}", "enabled"), width=8))
        .with_row(row("The controller"))
        .with_panel(
            lines(
                "Rounds",
                "short",
                (f"sum(increase(flowfast_reconcile_total{{{ROUTER}}}{RATE}))", "rounds"),
                (f"sum(increase(flowfast_reconcile_failures_total{{{ROUTER}}}{RATE}))", "failed"),
                (f"sum(increase(flowfast_reconcile_flushes_total{{{ROUTER}}}{RATE}))", "flows flushed"),
                (f"sum(increase(flowfast_events_lost_total{{{ROUTER}}}{RATE}))", "events lost"),
                width=8,
            )
        )
        .with_panel(
            lines(
                "Seconds of a round", "s", (f"flowfast_reconcile_duration_seconds{{{ROUTER}}}", "{{instance}}"), width=8
            )
        )
        .with_panel(
            lines(
                "Seconds of a collector",
                "s",
                (f"max by (collector) (flowfast_collector_duration_seconds{{{ROUTER}}})", "{{collector}}"),
                width=8,
            )
        )
    )
