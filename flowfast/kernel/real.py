"""The machine's own kernel."""

from flowfast.kernel import Kernel
from flowfast.kernel.arrivals import RealArrivals
from flowfast.kernel.conntrack import RealConntrack
from flowfast.kernel.features import RealBulk
from flowfast.kernel.knobs import RealKnobs
from flowfast.kernel.links import RealLinks
from flowfast.kernel.machine import RealMachine
from flowfast.kernel.nft import RealNft
from flowfast.kernel.nics import RealNics
from flowfast.kernel.probe import RealProbe
from flowfast.kernel.system import RealSystem
from flowfast.kernel.witness import witness
from flowfast.kernel.xdp import RealXdp
from flowfast.kernel.xfrm import AsyncXfrmSocket


def real_kernel() -> Kernel:
    """The kernel, as seen from this network namespace, for one event loop. Asks nothing yet, and so never fails.

    What is missing here (libnftables, the XFRM family, a privilege) is said by the first call that needs it: as
    Unavailable or KernelError of one line, with the remedy.
    """
    return Kernel(
        xfrm=AsyncXfrmSocket(),
        nft=RealNft(),
        links=RealLinks(),
        nics=RealNics(),
        conntrack=RealConntrack(),
        system=RealSystem(),
        probe=RealProbe(),
        knobs=RealKnobs(),
        bulk=RealBulk(),
        arrivals=RealArrivals(),
        machine=RealMachine(),
        xdp=RealXdp(),
        witness=witness,
        xfrm_in=AsyncXfrmSocket,
    )
