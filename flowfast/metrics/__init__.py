"""Counters that survive rekeys and rebuilt tables, and the Prometheus exporter: from snapshots, without the kernel."""
