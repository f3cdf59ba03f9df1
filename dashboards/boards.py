"""The six dashboards. Every query keeps to what was chosen above; rates are over $__rate_interval."""

from grafana_foundation_sdk.builders import dashboard

from dashboards.parts import GREEN, ORANGE, RED, ROUTER, TUNNEL, bars, board, lines, number, row, rows

RATE = "[$__rate_interval]"
NONE_IS_GOOD: dict[str, float | None] = {GREEN: None, RED: 1}
SHARE_LIMITS: dict[str, float | None] = {RED: None, ORANGE: 0.5, GREEN: 0.9}


def rate(metric: str, where: str = TUNNEL, by: str = "", **labels: str) -> str:
    """Sum of a counter's rates; `labels`: what series must have, beyond `where`."""
    chosen = ", ".join([where, *(f'{name}="{value}"' for name, value in labels.items())])
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{chosen}}}{RATE}))"


def path_rate(path: str, by: str = "", where: str = TUNNEL) -> str:
    """Bits a second on a path."""
    return rate("flowfast_tunnel_bytes_total", where, by, path=path) + " * 8"


def share(by: str = "", where: str = TUNNEL) -> str:
    """The flowtable's share of the bytes; nothing where nothing went."""
    fast = rate("flowfast_tunnel_bytes_total", where, by, path="flowtable")
    return f"{fast} / ({rate('flowfast_tunnel_bytes_total', where, by)} > 0)"


def boards() -> dict[str, dashboard.Dashboard]:
    """By the name of its file."""
    return {
        "router": router(),
        "tunnel": tunnel(),
        "paths": paths(),
        "bulking": bulking(),
        "steering": steering(),
        "fleet": fleet(),
    }


def router() -> dashboard.Dashboard:
    """One router: is it well, what does it carry, what is missing."""
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


def tunnel() -> dashboard.Dashboard:
    """One tunnel in depth: paths, SAs, CPUs, rekeys."""
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
                    f"topk(20, {rate('flowfast_sa_bytes_total', TUNNEL, 'tunnel, direction, spi, cpu')} * 8)",
                    "{{direction}} {{spi}} cpu {{cpu}}",
                ),
                about=per_sa,
            )
        )
        .with_panel(
            lines(
                "Throughput by CPU of the SA",
                "bps",
                (f"{rate('flowfast_sa_bytes_total', TUNNEL, 'cpu, direction')} * 8", "{{direction}} cpu {{cpu}}"),
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


def paths() -> dashboard.Dashboard:
    """The fast path against the full L3 path."""
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


def bulking() -> dashboard.Dashboard:
    """How many packets travel together."""
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
                "What keeps packets apart, or is not safe",
                (f'flowfast_reason{{{ROUTER}, code=~"BULK.*|ESP_GRO"}}', "holds"),
                hide=("holds",),
                width=12,
                empty="no reason holds",
            )
        )
        .with_panel(rows("Features", (f"flowfast_feature{{{ROUTER}}}", "present"), width=12))
    )


def steering() -> dashboard.Dashboard:
    """Each CPU on its own SA."""
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
                (f"{rate('flowfast_sa_bytes_total', TUNNEL, 'cpu, direction')} * 8", "{{direction}} cpu {{cpu}}"),
                stacked=True,
                about="Only with exporter.per_sa: true.",
            )
        )
        .with_panel(
            rows(
                "What stands in the way",
                (
                    f'flowfast_reason{{{ROUTER}, code=~"STEER.*|NOT_STEERED|FALLBACK_SA|'
                    'NO_PCPU_SAS|RSS_BLIND|SPI_TWICE|IRQBALANCE|CPU_OFFLINE|REPLAY_WINDOW|NO_WITNESS"}',
                    "holds",
                ),
                hide=("holds",),
                width=12,
                empty="no reason holds",
            )
        )
    )


def fleet() -> dashboard.Dashboard:
    """All routers side by side."""
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
