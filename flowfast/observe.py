"""observe(): asks the kernel everything once and returns one RouterState."""

import asyncio
import time
from collections.abc import Iterable, Mapping

from flowfast.kernel import Kernel
from flowfast.model.bulk import MODULES, BulkState
from flowfast.model.bulk import SYSCTLS as BULK_SYSCTLS
from flowfast.model.link import Link
from flowfast.model.machine import Machine
from flowfast.model.nftables import Ruleset
from flowfast.model.state import Feature, RouterState, Spd
from flowfast.plan.pause import paused
from flowfast.plan.ruleset import FLOWTABLE, INET, NETDEV
from flowfast.qualified import cells, kernels

SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.netfilter.nf_conntrack_acct",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_flowtable_udp_timeout",
    "net.netfilter.nf_flowtable_tcp_timeout",
)


async def observe(
    kernel: Kernel,
    features: Mapping[str, Feature],
    underlay_netns: Iterable[str] = (),
    *,
    known: RouterState | None = None,
    sas_of: RouterState | None = None,
) -> RouterState:
    """One snapshot. `features` were probed before: they do not change while the kernel runs.

    `known`: an earlier snapshot, since which no device has come or gone (one that goes takes itself off flowtables
    without a transaction). Its ruleset is taken where nobody has committed a transaction since: to list it takes as
    long as all else together. `sas_of`: one of a moment ago, whose SAs and policies are taken, because something else
    is asked about: another dump of 100 000 SAs takes a second and 60 MB. What blocks works in threads, so that the
    event loop stays free to react.

    Raises KernelError or Unavailable where a subsystem that is there does not answer; what is not there (a feature
    without which its dump makes no sense) is simply empty.
    """

    def has(name: str) -> bool:
        return name in features and features[name].present

    here, underlay = (Spd(sas_of.sas, sas_of.policies), sas_of.underlay) if sas_of else (Spd(), {})
    if sas_of is None:
        if has("xfrm"):
            here = Spd(tuple(await kernel.xfrm.sas()), tuple(await kernel.xfrm.policies()))
        underlay = await _underlay(kernel, underlay_netns)
    links = await kernel.links.links()
    generation = kernel.nft.generation() if has("nftables") else None
    if known is not None and known.generation == generation and not paused(known.ruleset):  # a pause ends by itself
        ruleset = known.ruleset
    else:
        ruleset = await asyncio.to_thread(kernel.nft.read, (INET, NETDEV)) if has("nftables") else Ruleset()
    table = ruleset.tables.get(INET)
    flowtable = table.flowtables.get(FLOWTABLE) if table else None
    return RouterState(
        taken_at=time.time(),
        links=links,
        nics=await kernel.nics.nics(links),
        hardware=kernel.nft.takes_flows(links) if has("flowtable") and kernel.nft.with_hardware else frozenset(),
        sas=here.sas,
        policies=here.policies,
        underlay=underlay,
        ruleset=ruleset,
        generation=generation,
        hooked=kernel.nft.hooked(INET, flowtable) if flowtable else frozenset(),
        features=features,
        sysctls={name: kernel.system.sysctl(name) for name in SYSCTLS},
        bulk=_bulk(kernel, links),
        machine=_machine(kernel, links) if kernel.machine.wanted else None,
    )


async def _underlay(kernel: Kernel, namespaces: Iterable[str]) -> Mapping[str, Spd]:
    found = {}
    for netns in namespaces:
        async with kernel.xfrm_in(netns) as there:
            found[netns] = Spd(tuple(await there.sas()), tuple(await there.policies()))
    return found


def _machine(kernel: Kernel, links: Iterable[Link]) -> Machine:
    return kernel.machine.look({link.name: link.driver for link in links if not link.is_xfrm}, kernel.system.modules())


def _bulk(kernel: Kernel, links: Iterable[Link]) -> BulkState:
    release = kernel.system.release()
    loaded = kernel.system.modules()
    sysctls = {name: kernel.system.sysctl(name) for name in BULK_SYSCTLS}
    return BulkState(
        release=release,
        esp_offload=not loaded.isdisjoint(MODULES),
        modules={name: name in loaded for name in MODULES},
        sysctls={name: value for name, value in sysctls.items() if value is not None},
        knobs=kernel.bulk.look(links),
        table=cells(release),
        tested=kernels(),
    )
