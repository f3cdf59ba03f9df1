"""What the dashboards ask, in PromQL: every query keeps to what was chosen above; rates are over $__rate_interval."""

from dashboards.parts import GREEN, ORANGE, RED, TUNNEL

RATE = "[$__rate_interval]"
NONE_IS_GOOD: dict[str, float | None] = {GREEN: None, RED: 1}
SHARE_LIMITS: dict[str, float | None] = {RED: None, ORANGE: 0.5, GREEN: 0.9}


def rate(metric: str, where: str = TUNNEL, by: str = "", **labels: str) -> str:
    """Sum of a counter's rates; `labels`: what series must have, beyond `where`."""
    chosen = ", ".join([where, *(f'{name}="{value}"' for name, value in labels.items())])
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{chosen}}}{RATE}))"


def sa_rate(by: str) -> str:
    """Bits a second of SAs, `by` their CPU among others; SAs of no CPU, which have no such label, are of CPU "any"."""
    return f"""label_replace({rate("flowfast_sa_bytes_total", TUNNEL, by)} * 8, "cpu", "any", "cpu", "")"""


def path_rate(path: str, by: str = "", where: str = TUNNEL) -> str:
    """Bits a second on a path."""
    return rate("flowfast_tunnel_bytes_total", where, by, path=path) + " * 8"


def share(by: str = "", where: str = TUNNEL) -> str:
    """The flowtable's share of the bytes; nothing where nothing went."""
    fast = rate("flowfast_tunnel_bytes_total", where, by, path="flowtable")
    return f"{fast} / ({rate('flowfast_tunnel_bytes_total', where, by)} > 0)"
