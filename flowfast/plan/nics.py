"""What is known of devices by their drivers: which SAs each takes. From the drivers' own checks, Linux 7.2.

A driver that is not here is judged as mlx5 is. docs/offload.md has the same as a table, with what was published.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flowfast.model.nic import OffloadType
from flowfast.model.sa import Mode

BOTH = frozenset(OffloadType)
CRYPTO = frozenset({OffloadType.CRYPTO})
PACKET = frozenset({OffloadType.PACKET})
_TUNNELS = frozenset({Mode.TRANSPORT, Mode.TUNNEL})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a driver takes. `esn` False: the kernel refuses crypto offload of an SA with extended sequence numbers,
    because the driver does not follow them (xfrm_dev_state_add). `capacity`: SAs of one direction; None: not known.
    """

    types: frozenset[OffloadType] = BOTH
    esn: bool = True
    icv_bits: frozenset[int] = frozenset({128})
    key_bits: frozenset[int] = frozenset({160, 288})  # AES-128 and AES-256, each with four bytes of salt
    modes: frozenset[int] = _TUNNELS
    inbound: bool = True
    capacity: int | None = None
    source: str = ""


DRIVERS: Mapping[str, Limits] = {
    "mlx5_core": Limits(source="drivers/net/ethernet/mellanox/mlx5/core/en_accel/ipsec.c: mlx5e_xfrm_validate_state"),
    "ixgbe": Limits(
        CRYPTO,
        esn=False,
        key_bits=frozenset({128, 160}),
        modes=frozenset({Mode.TRANSPORT}),
        capacity=1024,
        source="drivers/net/ethernet/intel/ixgbe/ixgbe_ipsec.c: ixgbe_ipsec_add_sa",
    ),
    "ixgbevf": Limits(
        CRYPTO,
        esn=False,
        key_bits=frozenset({128, 160}),
        modes=frozenset({Mode.TRANSPORT}),
        capacity=1024,
        source="drivers/net/ethernet/intel/ixgbevf/ipsec.c: ixgbevf_ipsec_add_sa",
    ),
    "cxgb4": Limits(
        CRYPTO,
        icv_bits=frozenset({96, 128}),
        source="drivers/net/ethernet/chelsio/inline_crypto/ch_ipsec/chcr_ipsec.c: ch_ipsec_xfrm_add_state",
    ),
    "nfp": Limits(
        CRYPTO,
        esn=False,
        capacity=16384,  # of both directions together
        source="drivers/net/ethernet/netronome/nfp/crypto/ipsec.c: nfp_net_xfrm_add_state",
    ),
    "rvu-nicpf": Limits(
        CRYPTO,
        esn=False,
        key_bits=frozenset({160, 224, 288}),
        inbound=False,
        source="drivers/net/ethernet/marvell/octeontx2/nic/cn10k_ipsec.c: cn10k_ipsec_validate_state",
    ),
    "netdevsim": Limits(
        CRYPTO,
        esn=False,
        key_bits=frozenset({128, 160, 224, 288}),
        capacity=33,  # of both directions together
        source="drivers/net/netdevsim/ipsec.c: nsim_ipsec_add_sa",
    ),
    "espsim": Limits(PACKET, modes=frozenset({Mode.TUNNEL}), source="flowfast/lab/module/espsim.c"),
}
UNKNOWN = Limits()


def limits(driver: str | None) -> Limits:
    """What the driver takes, as far as it is known."""
    return DRIVERS.get(driver or "", UNKNOWN)
