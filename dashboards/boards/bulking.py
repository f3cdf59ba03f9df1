"""How many packets travel together."""

from grafana_foundation_sdk.builders import dashboard

from dashboards.parts import ROUTER, TUNNEL, board, lines, number, rows
from dashboards.queries import rate


def build() -> dashboard.Dashboard:
    """The dashboard."""
    packets, bulks = (
        rate(f"flowfast_tunnel_{what}_total", TUNNEL, "tunnel, direction") for what in ("packets", "buffers")
    )
    made = board(
        "flowfast-bulking", "flowfast: bulking", "How many packets travel together, and what keeps them apart."
    )
    precise = "Only with accounting: precise, which counts before the flowtable."
    return (
        made.with_panel(
            number(
                "Packets in a bulk",
                "none",
                f"{rate('flowfast_tunnel_packets_total')} / {rate('flowfast_tunnel_buffers_total')}",
                width=6,
                about=precise,
                empty="not counted",
            )
        )
        .with_panel(number("Packets on the wire", "pps", rate("flowfast_tunnel_packets_total"), width=6))
        .with_panel(
            number("Bulks", "pps", rate("flowfast_tunnel_buffers_total"), width=6, about=precise, empty="not counted")
        )
        .with_panel(
            number(
                "Reasons", "none", f'count(flowfast_reason{{{ROUTER}, code=~"BULK.*|ESP_GRO"}}) or vector(0)', width=6
            )
        )
        .with_panel(
            lines("Packets in a bulk", "none", (f"{packets} / {bulks}", "{{tunnel}} {{direction}}"), about=precise)
        )
        .with_panel(
            lines("Packets in a bulk, by device", "none", (f"flowfast_bulk_packets_ratio{{{ROUTER}}}", "{{device}}"))
        )
        .with_panel(
            lines(
                "Packets on the wire, and bulks",
                "pps",
                (rate("flowfast_tunnel_packets_total", TUNNEL, "direction"), "packets {{direction}}"),
                (rate("flowfast_tunnel_buffers_total", TUNNEL, "direction"), "bulks {{direction}}"),
            )
        )
        .with_panel(
            rows(
                "Devices: profile, stage, and the best stage that leaves packets whole",
                (f"flowfast_bulk_info{{{ROUTER}}}", "there"),
                hide=("there",),
                width=12,
                empty="no device that bulking matters on",
            )
        )
        .with_panel(
            rows(
                "What auto went by when it last decided",
                (f"flowfast_bulk_tried_packets_ratio{{{ROUTER}}}", "packets as one"),
                (f"flowfast_bulk_tried_softirq_seconds{{{ROUTER}}}", "seconds of softirq a packet"),
                width=12,
                empty="no device of profile auto has decided",
            )
        )
        .with_panel(
            rows(
                "What keeps packets apart, or is not safe",
                (f'flowfast_reason{{{ROUTER}, code=~"BULK.*|ESP_GRO"}}', "holds"),
                hide=("holds",),
                width=12,
                empty="no reason holds",
            )
        )
        .with_panel(rows("Features", (f"flowfast_feature{{{ROUTER}}}", "present"), width=12))
    )
