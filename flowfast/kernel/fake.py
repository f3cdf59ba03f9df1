"""A kernel in memory, for tests without root: the fakes of all subsystems, bundled."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from flowfast.kernel import Kernel
from flowfast.kernel.arrivals import FakeArrivals
from flowfast.kernel.conntrack import FakeConntrack
from flowfast.kernel.features import FakeBulk
from flowfast.kernel.knobs import FakeKnobs
from flowfast.kernel.links import FakeLinks
from flowfast.kernel.machine import FakeMachine
from flowfast.kernel.nft import FakeNft
from flowfast.kernel.nics import FakeNics
from flowfast.kernel.probe import FakeProbe
from flowfast.kernel.system import FakeSystem
from flowfast.kernel.witness import FakeWitness
from flowfast.kernel.xdp import FakeXdp
from flowfast.kernel.xfrm import Xfrm
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.model.errors import Unavailable


class FakeKernel(Kernel):
    """A Kernel whose parts are the fakes, and typed as such: `kernel.nft.foreign_change()`.

    `netns`: the XFRM databases of other network namespaces, by name. The parts do not know of each other: a device that
    FakeLinks loses is lost to FakeNft by `device_gone`.
    """

    xfrm: FakeXfrm
    nft: FakeNft
    links: FakeLinks
    nics: FakeNics
    conntrack: FakeConntrack
    system: FakeSystem
    probe: FakeProbe
    knobs: FakeKnobs
    bulk: FakeBulk
    arrivals: FakeArrivals
    machine: FakeMachine
    xdp: FakeXdp
    witness: FakeWitness

    def __init__(
        self,
        *,
        xfrm: FakeXfrm | None = None,
        nft: FakeNft | None = None,
        links: FakeLinks | None = None,
        nics: FakeNics | None = None,
        conntrack: FakeConntrack | None = None,
        system: FakeSystem | None = None,
        probe: FakeProbe | None = None,
        knobs: FakeKnobs | None = None,
        bulk: FakeBulk | None = None,
        arrivals: FakeArrivals | None = None,
        machine: FakeMachine | None = None,
        xdp: FakeXdp | None = None,
        witness: FakeWitness | None = None,
        netns: Mapping[str, FakeXfrm] | None = None,
    ) -> None:
        super().__init__(
            xfrm=xfrm or FakeXfrm(),
            nft=nft or FakeNft(),
            links=links or FakeLinks(),
            nics=nics or FakeNics(),
            conntrack=conntrack or FakeConntrack(),
            system=system or FakeSystem(),
            probe=probe or FakeProbe(),
            knobs=knobs or FakeKnobs(),
            bulk=bulk or FakeBulk(),
            arrivals=arrivals or FakeArrivals(),
            machine=machine or FakeMachine(),
            xdp=xdp or FakeXdp(),
            witness=witness or FakeWitness(),
            xfrm_in=self._xfrm_in,
        )
        self.netns = dict(netns or {})
        self.bulk.held = self.knobs.values

    @asynccontextmanager
    async def _xfrm_in(self, netns: str) -> AsyncIterator[Xfrm]:
        if netns not in self.netns:
            raise Unavailable(f"xfrm: network namespace {netns!r}: No such file or directory")
        yield self.netns[netns]
