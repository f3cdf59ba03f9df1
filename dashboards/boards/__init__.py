"""The six dashboards, one a file."""

from grafana_foundation_sdk.builders import dashboard

from dashboards.boards import bulking, fleet, paths, router, steering, tunnel

MODULES = (router, tunnel, paths, bulking, steering, fleet)


def boards() -> dict[str, dashboard.Dashboard]:
    """By the name of its file."""
    return {module.__name__.rpartition(".")[2]: module.build() for module in MODULES}
