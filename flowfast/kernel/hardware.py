"""What this machine is made of, as far as it matters for forwarding: CPUs, and how devices hand packets to them."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_CLASS_NET = Path("/sys/class/net")
_KNOBS = ("gro_flush_timeout", "napi_defer_hard_irqs", "threaded")


@dataclass(frozen=True, slots=True)
class Hardware:
    """CPUs that are online, their model, and by device what sysfs says of GRO, NAPI and RPS (one mask a queue)."""

    cpus: int
    model: str | None
    knobs: dict[str, dict[str, str]]


def hardware(devices: Iterable[str]) -> Hardware:
    """Asks /proc and /sys, as this network namespace sees them; what is not there is absent."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        None,
    )
    knobs = {}
    for device in sorted(devices):
        folder = _CLASS_NET / device
        found = {knob: text for knob in _KNOBS if (text := "".join(_lines(folder / knob)))}
        masks = ["".join(_lines(path)) for path in sorted(folder.glob("queues/rx-*/rps_cpus"))]
        knobs[device] = found | ({"rps": " ".join(masks)} if masks else {})
    return Hardware(os.cpu_count() or 1, model, knobs)


def _lines(path: Path) -> list[str]:
    """The file's lines; none where it is not there or says nothing (a knob that this device does not have)."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
