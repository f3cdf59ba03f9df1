"""Grafana's dashboards for flowfast, made with Grafana's own builders. `python -m dashboards` writes the JSON anew."""
