"""CPUs, queues, interrupts and what they are set to, from sysfs and procfs; and a fake of it."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from flowfast.kernel import ethtool, xdp
from flowfast.model.cpu import Cpu, cpu_list, cpus_of, cpus_of_mask
from flowfast.model.errors import FlowfastError
from flowfast.model.knob import Denial, Knob, KnobKind
from flowfast.model.machine import Machine, Nic, Queue

_IRQ = re.compile(r"^\s*(?P<irq>\d+):.*\s(?P<action>\S+)$")
_RECEIVES = re.compile(r"[-_.@](?:tx-?rx|rx|input|comp|q|tr)?[-_.]?(?P<queue>\d+)(?:@\S*)?$", re.IGNORECASE)
_SENDS_ONLY = re.compile(r"[-_.](?:tx|output)[-_.]?\d+$", re.IGNORECASE)

NATIVE = frozenset(
    # Drivers whose XDP_REDIRECT into a cpumap is known to work; mlx5 is not among them: it was seen to oops there
    # with 6.17-rc2 (xdp-tools' redirect-cpu on ConnectX-7).
    ("veth", "virtio_net", "ice", "i40e", "ixgbe", "igb", "igc", "ena", "bnxt_en", "nfp", "mvneta", "mvpp2", "tun")
)
VIRTUAL = frozenset(("veth", "tun"))
"""Drivers that hand over what local senders left unfinished. virtio_net does where it negotiated to (GUEST_CSUM)."""


class Machines(Protocol):
    """What steering needs to know of the machine."""

    wanted: bool
    """Whether anybody does: a config that steers nothing costs nothing."""

    def look(self, devices: Mapping[str, str | None], modules: frozenset[str]) -> Machine:
        """CPUs, and the named devices (with their drivers) that have queues here."""

    def refuse(self, cpus: frozenset[int]) -> None:
        """Has all later looks, of other processes too, say that these CPUs get no SA. Raises OSError."""

    def deny(self, denied: Mapping[Knob, Denial]) -> None:
        """Has all later looks say that the kernel would not turn these knobs so. Raises OSError."""


class RealMachine:
    """This machine; devices are those of the network namespace that /sys shows."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.wanted = False
        self._root = root

    def look(self, devices: Mapping[str, str | None], modules: frozenset[str]) -> Machine:
        """Some files for each CPU and each queue, and two calls of ethtool for each device with several queues."""
        irqs = self._irqs()
        nics = {name: self._nic(name, driver, irqs) for name, driver in devices.items()}
        return Machine(
            cpus=tuple(self._cpus()),
            nics={name: nic for name, nic in nics.items() if nic is not None},
            balancer=self._balancer(),
            esp_gro=bool({"esp4_offload", "esp6_offload"} & modules),
            xdp=xdp.available(),
            asked=ethtool.available(),
            refused=cpus_of(_text(self._memory("refused")) or ""),
            denied=self._denied(),
        )

    def _memory(self, what: str) -> Path:
        """A file for each network namespace, beside the journal: a reboot forgets it."""
        return self._root / f"run/flowfast/{what}-{Path('/proc/thread-self/ns/net').stat().st_ino}"

    def refuse(self, cpus: frozenset[int]) -> None:
        """Writes it; none is no file."""
        _keep(self._memory("refused"), cpu_list(cpus))

    def deny(self, denied: Mapping[Knob, Denial]) -> None:
        """Writes it, each with its device's number: a device that was made anew (its driver loaded) may take it."""
        rows = [[*knob, *denial, self._number(knob)] for knob, denial in denied.items()]
        _keep(self._memory("denied"), json.dumps(rows) if rows else "")

    def _denied(self) -> dict[Knob, Denial]:
        try:
            rows = json.loads(_text(self._memory("denied")) or "[]")
            found = {Knob(KnobKind(k), thing, name): (Denial(v, words), n) for k, thing, name, v, words, n in rows}
        except (ValueError, TypeError):
            return {}  # of another flowfast: what it says is found out again
        return {knob: denial for knob, (denial, number) in found.items() if self._number(knob) == number}

    def _number(self, knob: Knob) -> str | None:
        """What tells a device from another of its name: its index; of an interrupt, whose it is."""
        if knob.kind is KnobKind.IRQ:
            return self._irqs().get(int(knob.object))
        return _text(self._root / "sys/class/net" / knob.object / "ifindex")

    def _cpus(self) -> Iterable[Cpu]:
        base = self._root / "sys/devices/system"
        online = cpus_of(_text(base / "cpu/online") or "0")
        isolated = cpus_of(_text(base / "cpu/isolated") or "")
        partitions = cpus_of(_text(self._root / "sys/fs/cgroup/cpuset.cpus.isolated") or "")
        nodes = {
            cpu: int(folder.name.removeprefix("node"))
            for folder in (base / "node").glob("node[0-9]*")
            for cpu in cpus_of(_text(folder / "cpulist") or "")
        }
        for number in sorted(cpus_of(_text(base / "cpu/present") or "0")):
            topology = base / f"cpu/cpu{number}/topology"
            core = _text(topology / "core_id")  # not there while the CPU is offline
            yield Cpu(
                number,
                online=number in online,
                node=nodes.get(number, 0),
                package=int(_text(topology / "physical_package_id") or 0),
                core=None if core is None else int(core),
                isolated=number in isolated | partitions,
            )

    def _nic(self, name: str, driver: str | None, irqs: Mapping[int, str]) -> Nic | None:
        folder = self._root / "sys/class/net" / name
        queues = sorted(int(each.name[3:]) for each in (folder / "queues").glob("rx-*"))
        if not queues:
            return None
        by_queue = self._queue_irqs(name, folder, irqs)
        rx = []
        for number in queues:
            irq = by_queue.get(number)
            affinity = _text(self._root / f"proc/irq/{irq}/smp_affinity_list") if irq is not None else None
            rps = _text(folder / f"queues/rx-{number}/rps_cpus")
            rx.append(Queue(number, irq, cpus_of(affinity or ""), cpus_of_mask(rps or "0")))
        sending = sorted(int(each.name[3:]) for each in (folder / "queues").glob("tx-*"))
        xps = [_text(folder / f"queues/tx-{number}/xps_cpus") for number in sending]
        node = _text(folder / "device/numa_node")
        several = len(rx) > 1
        program, spread = xdp.on_device(name)
        return Nic(
            name,
            driver,
            node=max(int(node or 0), 0),
            rx=tuple(rx),
            xps=tuple(cpus_of_mask(mask) for mask in xps if mask is not None),
            rss=ethtool.rss(name) if several else None,
            rules=ethtool.rules(name) if several else None,
            program=program,
            native_xdp=driver in NATIVE,
            unfinished=driver in VIRTUAL or (driver == "virtio_net" and _guest_csum(folder)),
            spread=spread,
            lower=tuple(sorted(each.name.removeprefix("lower_") for each in folder.glob("lower_*"))),
        )

    def _irqs(self) -> dict[int, str]:
        """The last action of each interrupt: its name in /proc/interrupts."""
        lines = (_text(self._root / "proc/interrupts") or "").splitlines()
        return {int(found["irq"]): found["action"] for line in lines if (found := _IRQ.match(line))}

    def _queue_irqs(self, name: str, folder: Path, irqs: Mapping[int, str]) -> dict[int, int]:
        """Receive queue -> interrupt, by the names that drivers give them."""
        device = folder / "device"
        try:
            owner = device.resolve().name  # "virtio3": whose interrupts are named after it, not after the device
        except OSError:
            owner = name
        own = {int(each.name) for each in (device / "msi_irqs").glob("[0-9]*")}
        return queue_irqs(irqs, own, {name, owner})

    def _balancer(self) -> bool:
        return any(_text(comm) == "irqbalance" for comm in self._root.glob("proc/[0-9]*/comm"))


def queue_irqs(irqs: Mapping[int, str], own: set[int], names: set[str]) -> dict[int, int]:
    """Receive queue -> interrupt, of the interrupts `own`, or those that are named after one of `names`."""
    found: dict[int, int] = {}
    for irq, action in irqs.items():
        named = any(action.startswith(name) and not action[len(name) :][:1].isalnum() for name in names)
        if (irq not in own and not named) or _SENDS_ONLY.search(action):
            continue
        if queue := _RECEIVES.search(action):
            found.setdefault(int(queue["queue"]), irq)
    return found


def _guest_csum(folder: Path) -> bool:
    """Whether a virtio-net device may hand over unfinished checksums: it negotiated GUEST_CSUM (virtio 1.2, 5.1.3).

    Where nobody can tell it may. The feature rx-checksum does not say: it is on without it, too (seen with 7.2).
    """
    features = _text(folder / "device/features")
    return features is None or features[1:2] == "1"


def _keep(path: Path, text: str) -> None:
    """A small file, whole or not at all; no text is no file."""
    if not text:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, FlowfastError):
        return None


class FakeMachine:
    """A machine that a test makes up."""

    def __init__(self, machine: Machine | None = None) -> None:
        self.wanted = False
        self.machine = machine or Machine()

    def look(self, devices: Mapping[str, str | None], modules: frozenset[str]) -> Machine:
        """As it was made, with the devices that were asked for."""
        return replace(self.machine, nics={n: nic for n, nic in self.machine.nics.items() if n in devices})

    def refuse(self, cpus: frozenset[int]) -> None:
        """Keeps them."""
        self.machine = replace(self.machine, refused=cpus)

    def deny(self, denied: Mapping[Knob, Denial]) -> None:
        """Keeps them."""
        self.machine = replace(self.machine, denied=dict(denied))
