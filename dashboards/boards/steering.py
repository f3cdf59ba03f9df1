"""Each CPU on its own SA."""

from grafana_foundation_sdk.builders import dashboard

from dashboards.parts import GREEN, ORANGE, RED, ROUTER, TUNNEL, board, lines, number, rows
from dashboards.queries import sa_rate


def build() -> dashboard.Dashboard:
    """The dashboard."""
    made = board("flowfast-steering", "flowfast: steering", "Whether each SA's packets are processed on its own CPU.")
    wrong = f"flowfast_steering_mismatch{{{TUNNEL}}}"
    return (
        made.with_panel(
            number(
                "Worst SA, on the wrong CPU",
                "percentunit",
                f"max({wrong})",
                width=8,
                limits={GREEN: None, ORANGE: 0.01, RED: 0.05},
                empty="no SAs by CPU",
            )
        )
        .with_panel(
            number(
                "On the fallback SA",
                "percentunit",
                f"max(flowfast_steering_fallback_ratio{{{TUNNEL}}})",
                width=8,
                limits={GREEN: None, ORANGE: 0.01, RED: 0.05},
                empty="no SAs by CPU",
            )
        )
        .with_panel(number("SAs", "none", f"sum(flowfast_tunnel_sas{{{TUNNEL}}})", width=8))
        .with_panel(lines("On the wrong CPU", "percentunit", (wrong, "{{tunnel}} {{direction}} cpu {{cpu}}")))
        .with_panel(
            lines(
                "On the fallback SA",
                "percentunit",
                (f"flowfast_steering_fallback_ratio{{{TUNNEL}}}", "{{tunnel}} {{direction}}"),
            )
        )
        .with_panel(
            lines(
                "Throughput by CPU of the SA",
                "bps",
                (sa_rate("cpu, direction"), "{{direction}} cpu {{cpu}}"),
                stacked=True,
                about="Only with exporter.per_sa: true.",
            )
        )
        .with_panel(
            rows(
                "What stands in the way",
                (
                    f'flowfast_reason{{{ROUTER}, code=~"STEER.*|NOT_STEERED|FALLBACK_SA|NO_PCPU_SAS|NO_BACKEND|'
                    "NO_STEERED_DEVICE|BACKEND_REFUSED|PORT_UNKNOWN|FEW_QUEUES|RSS_BLIND|SPI_TWICE|IRQBALANCE|IRQ_FIXED|"
                    'CPU_OFFLINE|REPLAY_WINDOW|NO_ETHTOOL|NO_WITNESS"}',
                    "holds",
                ),
                hide=("holds",),
                width=12,
                empty="no reason holds",
            )
        )
    )
