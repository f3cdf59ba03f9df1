"""Devices that take IPsec off the CPU: what each can do, as the kernel says (ethtool, devlink)."""

from dataclasses import dataclass
from enum import StrEnum


class OffloadType(StrEnum):
    """How much of an SA's work a device does (XFRMA_OFFLOAD_DEV)."""

    CRYPTO = "crypto"  # encrypts and decrypts; all else is the stack's
    PACKET = "packet"  # the whole ESP path, policies too (XFRM_OFFLOAD_PACKET, since 6.2)


class Eswitch(StrEnum):
    """DEVLINK_ESWITCH_MODE_*: what a NIC's embedded switch does."""

    LEGACY = "legacy"
    SWITCHDEV = "switchdev"
    INACTIVE = "switchdev_inactive"


ESP = "esp-hw-offload"
"""The ethtool feature (NETIF_F_HW_ESP) of a device that can do the cryptography of ESP, whatever it does besides."""
ESP_FEATURES = (ESP, "esp-tx-csum-hw-offload", "tx-esp-segmentation")
"""All ethtool features that are about ESP."""


@dataclass(frozen=True, slots=True)
class Nic:
    """A device with any ESP feature, on or off. None is what the kernel did not say: no devlink, or no such attribute.

    `port_crypto`, `port_packet`: of the devlink port *function* that the device represents (a VF or SF), whether that
    may offload (`devlink port function set ... ipsec_packet`, since 6.7).
    """

    name: str
    ifindex: int
    driver: str | None = None
    on: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()
    """ESP features that could be switched on."""
    handle: str | None = None  # devlink's name of the hardware, "pci/0000:08:00.0"
    port: int | None = None  # devlink's number of the port
    eswitch: Eswitch | None = None
    encap: bool | None = None  # the eswitch's encap-mode: True is "basic", False "none"
    port_crypto: bool | None = None
    port_packet: bool | None = None

    @property
    def enabled(self) -> bool:
        """Whether SAs can be offloaded at all now."""
        return ESP in self.on
