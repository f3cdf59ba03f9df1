"""Windows that never were: traffic and costs as a test wants them."""

from collections.abc import Sequence
from random import Random

from flowfast.compare.result import Arm, Carried, Slice, Window
from flowfast.compare.schedule import arms

FULL, FAST = 20e-6, 10e-6
"""CPU seconds of a packet."""


def draws(seed: int | str) -> Random:
    """A lot of one's own: the same seed, the same draws."""
    return Random(seed)  # noqa: S311 - no secret


def window(
    arm: Arm,
    *,
    packets: int = 100_000,
    size: int = 500,
    cost: float | None = None,
    busiest: float = 0.3,
    tunnel: str = "berlin",
    share: float = 0.98,
    **more: object,
) -> Window:
    """Ten seconds of one tunnel, half of the packets each way."""
    softirq = packets * (cost if cost is not None else FULL if arm == "full" else FAST)
    carried = tuple(
        Carried(tunnel, way, 0x1000 + number, packets // 2 * size, packets // 2)
        for number, way in enumerate(("out", "in"))
    )
    slow = packets // 2 * 2 * size if arm == "full" else round(packets // 2 * 2 * size * (1 - share))
    slices = (Slice(softirq / 2, {tunnel: packets // 2}),) * 2
    return Window(
        arm,
        0.0,
        10.0,
        softirq,
        0.1,
        busiest,
        carried,
        slices,
        **{"slow_bytes": slow} | more,  # type: ignore[arg-type]
    )


def experiment(count: int = 12, seed: int = 1, **more: float) -> list[Window]:
    """ABBA windows whose cost varies by some per cent."""
    lot = draws(seed)
    return [noisy(arm, lot, **more) for arm in arms(count, lot)]


def noisy(arm: Arm, lot: Random, spread: float = 0.03, **more: float) -> Window:
    """A window whose cost is off by a few per cent."""
    cost = (FULL if arm == "full" else FAST) * lot.lognormvariate(0, spread)
    return window(arm, cost=cost, **more)  # type: ignore[arg-type]


def several(costs: dict[str, tuple[float, float]], packets: Sequence[dict[str, int]], lot: Random) -> list[Window]:
    """Windows of several tunnels: `costs` (full, fast) of a packet of each; `packets` of each in every window."""
    found = []
    for arm, each in zip(arms(len(packets), lot), packets, strict=True):
        slices = []
        for _ in range(8):
            now = {name: round(count / 8 * lot.uniform(0.5, 1.5)) for name, count in each.items()}
            cost = sum(count * costs[name][arm == "fast"] for name, count in now.items())
            slices.append(Slice(cost * lot.lognormvariate(0, 0.02), now))
        totals = {name: sum(each.packets[name] for each in slices) for name in each}
        carried = tuple(Carried(name, "out", 1, 500 * count, count) for name, count in totals.items())
        softirq = sum(each.softirq for each in slices)
        found.append(Window(arm, 0.0, 10.0, softirq, 0.1, 0.3, carried, tuple(slices)))
    return found
