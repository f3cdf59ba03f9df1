"""Network devices and what they can do."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Link:
    """A network device in the router's network namespace. `mtu` in bytes; `addresses` as "10.1.0.1/24"."""

    ifindex: int
    name: str
    kind: str | None  # rtnetlink's kind: "veth", "xfrm", "bridge", ...; None for a physical device
    up: bool
    mtu: int
    addresses: tuple[str, ...] = ()
    mac: str | None = None
    driver: str | None = None
    master: int | None = None
    xfrm_if_id: int | None = None
    underlay_ifindex: int | None = None  # IFLA_LINK; of an xfrm interface the underlay device, if it was bound to one
    underlay_netns: int | None = None  # IFLA_LINK_NETNSID: set where the underlay is in another network namespace
    num_rx_queues: int | None = None
    num_tx_queues: int | None = None
    rx_bytes: int | None = field(default=None, compare=False)
    """Bytes that came in, as the driver counts them; not what makes a device another one."""
    tx_bytes: int | None = field(default=None, compare=False)
    features: frozenset[str] = frozenset()
    """ethtool features that are on, where they were asked for."""

    @property
    def is_xfrm(self) -> bool:
        """True for an xfrm interface."""
        return self.kind == "xfrm"
