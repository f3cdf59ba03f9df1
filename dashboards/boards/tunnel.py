"""One tunnel in depth: paths, SAs, CPUs, rekeys."""

from grafana_foundation_sdk.builders import dashboard

from dashboards.parts import GREEN, ORANGE, RED, TUNNEL, board, lines, number, row, rows
from dashboards.queries import SHARE_LIMITS, path_rate, rate, sa_rate, share


def build() -> dashboard.Dashboard:
    """The dashboard."""
    newest = f"flowfast_tunnel_expiry_timestamp_seconds{{{TUNNEL}}}"
    made = board("flowfast-tunnel", "flowfast: tunnel", "One tunnel in depth: its paths, SAs, CPUs and rekeys.")
    for panel in (
        number("Up", "none", f"min(flowfast_tunnel_up{{{TUNNEL}}})", limits={RED: None, GREEN: 1}),
        number("Out", "bps", f"{rate('flowfast_tunnel_bytes_total', direction='out')} * 8"),
        number("In", "bps", f"{rate('flowfast_tunnel_bytes_total', direction='in')} * 8"),
        number("On the flowtable", "percentunit", share(), limits=SHARE_LIMITS, empty="nothing carried"),
        number(
            "Sequence numbers used",
            "percentunit",
            f"max(flowfast_tunnel_sequence_ratio{{{TUNNEL}}})",
            limits={GREEN: None, ORANGE: 0.5, RED: 0.9},
        ),
        number(
            "Down without a rekey",
            "s",
            f"min({newest} - time())",
            limits={RED: None, ORANGE: 120, GREEN: 600},
            empty="no limit of time",
            about="Until the newest SA reaches its hard limit of time.",
        ),
    ):
        made = made.with_panel(panel)
    per_sa = "Only with exporter.per_sa: true."
    return (
        made.with_row(row("Paths"))
        .with_panel(
            lines(
                "Throughput by path",
                "bps",
                (path_rate("flowtable", "direction"), "{{direction}}, flowtable"),
                (path_rate("l3", "direction"), "{{direction}}, full L3 path"),
                stacked=True,
            )
        )
        .with_panel(
            lines(
                "Packets on the wire",
                "pps",
                (rate("flowfast_tunnel_packets_total", TUNNEL, "direction"), "{{direction}}"),
            )
        )
        .with_panel(
            lines("Connections", "short", (f"sum by (state) (flowfast_flows{{{TUNNEL}}})", "{{state}}"), stacked=True)
        )
        .with_panel(rows("What it is", (f"flowfast_tunnel_info{{{TUNNEL}}}", "known"), width=12, hide=("known",)))
        .with_row(row("SAs and rekeys"))
        .with_panel(
            lines(
                "SAs installed",
                "short",
                (f"sum by (tunnel, direction) (flowfast_tunnel_sas{{{TUNNEL}}})", "{{tunnel}} {{direction}}"),
                about="A step up and down again is a rekey.",
            )
        )
        .with_panel(
            lines(
                "Hard limit of the newest SA",
                "s",
                (f"{newest} - time()", "{{tunnel}} {{direction}}"),
                about="A saw: each tooth is a rekey.",
            )
        )
        .with_panel(
            lines(
                "Sequence numbers used",
                "percentunit",
                (f"flowfast_tunnel_sequence_ratio{{{TUNNEL}}}", "{{tunnel}} {{direction}}"),
            )
        )
        .with_panel(
            lines(
                "Bytes and packets used of the hard limit",
                "percentunit",
                (f"flowfast_tunnel_lifetime_ratio{{{TUNNEL}}}", "{{tunnel}} {{direction}} {{limit}}"),
                most=1,
            )
        )
        .with_row(row("Each SA and CPU"))
        .with_panel(
            lines(
                "Throughput of each SA",
                "bps",
                (
                    f"topk(20, {sa_rate('tunnel, direction, spi, cpu')})",
                    "{{direction}} {{spi}} cpu {{cpu}}",
                ),
                about=per_sa,
            )
        )
        .with_panel(
            lines(
                "Throughput by CPU of the SA",
                "bps",
                (sa_rate("cpu, direction"), "{{direction}} cpu {{cpu}}"),
                stacked=True,
                about=f"{per_sa} No CPU: an SA for any, or the fallback SA.",
            )
        )
        .with_panel(
            lines(
                "Dropped by SAs",
                "pps",
                (rate("flowfast_sa_replay_errors_total", TUNNEL), "replayed"),
                (rate("flowfast_sa_replay_window_errors_total", TUNNEL), "behind the replay window"),
                (rate("flowfast_sa_integrity_errors_total", TUNNEL), "integrity"),
                about=per_sa,
            )
        )
        .with_panel(
            lines(
                "Packets on the wrong CPU",
                "percentunit",
                (f"flowfast_steering_mismatch{{{TUNNEL}}}", "{{direction}} cpu {{cpu}}"),
            )
        )
    )
