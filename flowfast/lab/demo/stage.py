"""Where a part is played: its network, and what is not the same on emulated NICs and on one that does ESP itself.

In "offload" the WAN is a pair of espsims: gw1's end does all of ESP for the tunnels that it is asked to, gw2's for
none. What gw1 hands to its end is no packet of the wire yet, so there the wire is seen from gw2; and the guest's only
CPU does what the device would, so that the device tells how long that took.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flowfast.lab.capture import Capture, capture
from flowfast.lab.demo.site import TUNNELS, PartName, Side
from flowfast.lab.espsim import EspSims, setting
from flowfast.lab.netns import Netns
from flowfast.lab.plaintext import plaintext, watch_plaintext
from flowfast.lab.topology import TwoGateways, two_gateways, wan_address
from flowfast.lab.wires import End

NOBODY = "02:00:00:00:00:99"
"""A MAC address that the NIC at the other end filters out: a sink that costs the guest nothing."""


BACKLOG = Path("/proc/sys/net/core/netdev_max_backlog")


@dataclass(slots=True)
class Watch:
    """What left through both ends of the WAN. `plain`: packets of tunnels that arrived unencrypted, where no capture
    can tell."""

    capture: Capture
    plain: int = 0


class Stage:
    """Emulated NICs everywhere."""

    peer: str | None = None
    """The namespace whose SAs count inner bytes, if gw1's do not."""

    def __init__(self, topo: TwoGateways) -> None:
        self.topo = topo

    def gateway(self, side: Side) -> Netns:
        """Gateway `side`."""
        return self.topo.gw1 if side == 1 else self.topo.gw2

    @property
    def wire(self) -> End:
        """A device on which ESP of both directions is seen as it is on the wire."""
        return self.topo.wan[0]

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        """Watches the WAN; what was seen is complete once the context is left."""
        with capture(*self.topo.wan) as seen:
            yield Watch(seen)

    def lost(self, side: Side) -> AbstractContextManager[None]:
        """While its context lasts, what gateway `side` sends on the WAN arrives nowhere."""
        return nobody(self.gateway(side), "wan0", wan_address(3 - side, 4))

    def busy(self) -> int:
        """Nanoseconds so far that were a device's work, and not the CPU's."""
        return 0


class Offloading(Stage):
    """Espsims as the WAN."""

    peer = "gw2"  # gw1's device counts the bytes of ESP packets, as mlx5 does

    def __init__(self, topo: TwoGateways) -> None:
        super().__init__(topo)
        watch_plaintext(topo.gw2, 1)

    @property
    def wire(self) -> End:
        return self.topo.wan[1]

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        statistics = "/sys/class/net/wan0/statistics/tx_packets"
        before, plain = int(self.topo.gw1.read(statistics)), plaintext(self.topo.gw2)
        with capture(self.wire) as seen:
            watch = Watch(seen)
            yield watch
        seen.total += int(self.topo.gw1.read(statistics)) - before
        watch.plain = plaintext(self.topo.gw2) - plain

    @contextmanager
    def lost(self, side: Side) -> Iterator[None]:
        setting("sink", 1)
        try:
            yield
        finally:
            setting("sink", 0)

    def busy(self) -> int:
        return setting("busy")


@contextmanager
def nobody(gateway: Netns, device: str, address: str) -> Iterator[None]:
    """Makes `address` a neighbour of that device that is not there."""
    gateway.run(["ip", "neigh", "replace", address, "lladdr", NOBODY, "dev", device, "nud", "permanent"])
    try:
        yield
    finally:
        gateway.run(["ip", "neigh", "del", address, "dev", device])


@contextmanager
def set_up(part: PartName) -> Iterator[Stage]:
    """The network of a part; taken down when the context is left. Raises LabError."""
    if part != "offload":
        with two_gateways("policy" if part == "policy" else "xfrmi", "nic") as topo:
            yield Stage(topo)
        return
    wires = EspSims()
    # What an espsim receives waits here, and not in a ring that its sender would find full.
    BACKLOG.write_text("10000")
    try:
        with two_gateways("policy", "nic", families=(4,), tunnels=len(TUNNELS[part]), wan=wires) as topo:
            yield Offloading(topo)
    finally:
        wires.close()
