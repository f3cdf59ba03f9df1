"""Devices that take IPsec off the CPU: what is in them, and what the CPU did of it all the same."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from flowfast.model.sa import Direction
from flowfast.model.snapshot import Snapshot
from flowfast.plan.fallback import Key, cpu_sequence, in_nics, key
from flowfast.plan.hardware import offload_type
from flowfast.plan.nics import limits


class Nics:
    """Remembers the last snapshot's sequence numbers, to tell what fell back to the CPU since then."""

    def __init__(self) -> None:
        self._seen: dict[Key, int] = {}
        self._fallen: Counter[tuple[str, Direction]] = Counter()
        self._at: float | None = None

    def collect(self, snapshot: Snapshot) -> Iterable[Metric]:
        """A few series for each device with IPsec offload, whatever the number of SAs."""
        state = snapshot.state
        names = {link.ifindex: link.name for link in state.links}
        yield _info(snapshot)
        enabled = GaugeMetricFamily(
            "flowfast_nic_enabled",
            "1 where the device's ethtool feature esp-hw-offload is on, 0 where it is off and no SA can be offloaded.",
            labels=("device",),
        )
        room = GaugeMetricFamily(
            "flowfast_nic_sa_limit",
            "SAs that the device has room for, where its driver says.",
            labels=("device",),
        )
        for nic in state.nics:
            enabled.add_metric((nic.name,), int(nic.enabled))
            if (capacity := limits(nic.driver).capacity) is not None:
                room.add_metric((nic.name,), capacity)
        yield enabled
        yield room
        yield _sas(snapshot, names)
        yield self._fell_back(snapshot, names)

    def _fell_back(self, snapshot: Snapshot, names: dict[int, str]) -> Metric:
        family = GaugeMetricFamily(
            "flowfast_nic_fallback_sas",
            "SAs in the device (packet offload) of which the CPU encrypted or decrypted packets between the last two "
            "looks: the device does not do what it took over.",
            labels=("device", "direction"),
        )
        if snapshot.state.taken_at != self._at:
            self._look(snapshot, names)
        for (device, direction), count in sorted(self._fallen.items()):
            family.add_metric((device, direction.value), count)
        return family

    def _look(self, snapshot: Snapshot, names: dict[int, str]) -> None:
        seen: dict[Key, int] = {}
        self._fallen = Counter()
        for _, sa, direction in in_nics(path.tunnel for path in snapshot.desired.paths):
            device = names.get(sa.offload.ifindex) if sa.offload is not None else None
            if device is not None:
                seen[key(sa)] = last = cpu_sequence(sa, direction) or 0
                self._fallen[device, direction] += last > self._seen.get(key(sa), last)
        self._seen, self._at = seen, snapshot.state.taken_at


def _info(snapshot: Snapshot) -> Metric:
    family = GaugeMetricFamily(
        "flowfast_nic_info",
        "1 for each device that can take IPsec off the CPU: its driver, and devlink's word on the hardware behind it.",
        labels=("device", "driver", "hardware", "eswitch"),
    )
    for nic in snapshot.state.nics:
        family.add_metric((nic.name, nic.driver or "", nic.handle or "", nic.eswitch or ""), 1)
    return family


def _sas(snapshot: Snapshot, names: dict[int, str]) -> Metric:
    family = GaugeMetricFamily(
        "flowfast_nic_sas",
        "SAs in the device now, by what it does for them: crypto, or packet (all of ESP).",
        labels=("device", "type"),
    )
    found = Counter((sa.offload.ifindex, offload_type(sa)) for sa in snapshot.state.sas if sa.offload is not None)
    for nic in snapshot.state.nics:
        for kind in sorted(limits(nic.driver).types):
            found.setdefault((nic.ifindex, kind), 0)
    for (ifindex, of), count in sorted(found.items()):
        family.add_metric((names.get(ifindex, str(ifindex)), str(of)), count)
    return family
