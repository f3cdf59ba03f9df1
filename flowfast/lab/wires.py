"""What joins two namespaces: veth pairs, or pairs of emulated NICs that QEMU's hub joins outside the guest.

veth hands over packet metadata that no wire carries (measured.md, "veth is not a wire"): what is measured runs on NICs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pyroute2 import IPRoute

from flowfast.lab.netns import LabError, Netns

WireKind = Literal["veth", "nic"]

MAC_PREFIX = "52:54:00:00:"
"""Of the emulated NICs: the pair's number and the end (01 or 02) follow (flowfast.lab.qemu.mac)."""

SYSFS = Path("/sys/class/net")


@dataclass(frozen=True, slots=True)
class End:
    """One end of a wire: device `name` in `ns`."""

    ns: Netns
    name: str


class Wires(Protocol):
    """A supply of wires."""

    def join(self, one: End, other: End) -> None:
        """Makes the two devices, down and without addresses, joined with each other."""

    def close(self) -> None:
        """Takes all wires back."""


class Veth:
    """Wires of veth pairs, as many as are wanted.

    With `finish_checksums` the ends hand over finished checksums and single segments (tx and tso off), as a wire does;
    without it, what a stock veth does: CHECKSUM_PARTIAL and TSO super-packets.
    """

    def __init__(self, finish_checksums: bool = False) -> None:
        self._finish = finish_checksums

    def join(self, one: End, other: End) -> None:
        """Adds a veth pair; it goes with its namespaces."""
        peer = {"ifname": other.name, "net_ns_fd": other.ns.name}
        with IPRoute() as ipr:
            ipr.link("add", ifname=one.name, kind="veth", net_ns_fd=one.ns.name, peer=peer)
        if self._finish:
            for end in (one, other):
                end.ns.run(["ethtool", "-K", end.name, "tx", "off", "tso", "off", "gso", "off"])

    def close(self) -> None:
        """Nothing to do: a veth pair is deleted with the namespace of either end."""


def nic_pairs() -> dict[int, dict[int, str]]:
    """The emulated NICs that are in this namespace, as pair -> end -> name of the device."""
    pairs: dict[int, dict[int, str]] = {}
    for device in SYSFS.iterdir():
        mac = (device / "address").read_text().strip()
        if mac.startswith(MAC_PREFIX) and (device / "device").exists():
            pair, end = mac.removeprefix(MAC_PREFIX).split(":")
            pairs.setdefault(int(pair, 16), {})[int(end, 16)] = device.name
    return {pair: ends for pair, ends in pairs.items() if len(ends) == 2}


class Nics:
    """Wires of the machine's emulated NICs, each pair used once. Closing gives them back as new: settings forgotten."""

    def __init__(self) -> None:
        self._free = sorted(nic_pairs().items(), reverse=True)
        self._taken: list[tuple[Path, str]] = []

    def join(self, one: End, other: End) -> None:
        """Moves a pair of NICs to where it is wanted; LabError if none is left."""
        if not self._free:
            raise LabError(
                f"no pair of NICs is left to join {one.ns.name} and {other.ns.name} (give the guest more --nics)"
            )
        _, pair = self._free.pop()
        with IPRoute() as ipr:
            for number, end in ((1, one), (2, other)):
                device = SYSFS / pair[number] / "device"
                self._taken.append(((device / "driver").resolve(), device.resolve().name))
                index = ipr.link_lookup(ifname=pair[number])[0]
                ipr.link("set", index=index, net_ns_fd=end.ns.name, ifname=end.name)

    def close(self) -> None:
        """Binds each NIC's driver anew, which makes a fresh device in the first namespace."""
        while self._taken:
            driver, device = self._taken.pop()
            (driver / "unbind").write_text(device)
            (driver / "bind").write_text(device)


def wires(kind: WireKind, finish_checksums: bool = False) -> Wires:
    """A supply of wires of `kind`."""
    return Nics() if kind == "nic" else Veth(finish_checksums)
