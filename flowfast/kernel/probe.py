"""What this kernel can do, found out by trying it in a network namespace of its own, that is gone with the attempt.

Never by version: distributions backport, and leave modules out. Trying has one side effect: the kernel loads the
modules that it is asked for (request_module), and they stay loaded, as they would once flowfast uses them.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

from flowfast.kernel.scratch import TRIALS
from flowfast.model.errors import FlowfastError, Unavailable
from flowfast.model.reason import Reason, Severity
from flowfast.model.state import Feature


class Known(NamedTuple):
    """A feature: what is missing without it, what would bring it, and the feature without which it cannot be tried."""

    without: str
    remedy: str
    severity: Severity = Severity.WARNING
    needs: str | None = None


FEATURES: Mapping[str, Known] = {
    "nftables": Known("nf_tables does not answer", "a kernel with CONFIG_NF_TABLES: module nf_tables", Severity.ERROR),
    "flowtable": Known(
        "no flowtable, so no fast path",
        "a kernel with CONFIG_NFT_FLOW_OFFLOAD and CONFIG_NF_FLOW_TABLE_INET (nft_flow_offload, nf_flow_table_inet)",
        Severity.ERROR,
        "nftables",
    ),
    "flowtable_counter": Known("the flowtable does not count into conntrack", "Linux 5.7 or newer", needs="flowtable"),
    "flowtable_name_binding": Known(
        "a flowtable's devices must exist before it",
        "Linux 6.16 or newer; until then flowfast adds devices as they come",
        Severity.INFO,
        "flowtable",
    ),
    "early_ingress": Known(
        "no packet bulking before the network stack (hook early_ingress)",
        "no released kernel has it",
        Severity.INFO,
        "flowtable",
    ),
    "hook_dump": Known(
        "whether the flowtable stands on a device is inferred from its list of devices",
        "Linux 5.14 or newer with CONFIG_NETFILTER_NETLINK_HOOK: module nfnetlink_hook",
        Severity.INFO,
    ),
    "rt_ipsec": Known(
        "rules cannot tell whether a route leads into IPsec (rt ipsec)",
        "a kernel with CONFIG_XFRM, 5.0 or newer",
        Severity.ERROR,
        "nftables",
    ),
    "meta_ipsec_netdev": Known(
        "no guard against plaintext can be written (meta ipsec in netdev ingress)",
        "a kernel with CONFIG_XFRM and CONFIG_NF_TABLES_NETDEV",
        needs="nftables",
    ),
    "fib_oif": Known(
        "plaintext of connections through xfrm interfaces is not told from others on the WAN (fib saddr oifname)",
        "a kernel with CONFIG_NFT_FIB_INET: modules nft_fib_inet, nft_fib_ipv4, nft_fib_ipv6",
        needs="nftables",
    ),
    "concat_interval_sets": Known(
        "no sets of pairs of prefixes", "Linux 5.6 and nft 0.9.4 or newer", Severity.ERROR, "nftables"
    ),
    "counter_map": Known(
        "no counters by map, so none by tunnel", "Linux 5.6 and nft 0.9.4 or newer", needs="concat_interval_sets"
    ),
    "conntrack": Known(
        "the connection tracking table cannot be read",
        "a kernel with CONFIG_NF_CT_NETLINK: module nf_conntrack_netlink",
    ),
    "conntrack_offload_filter": Known(
        "the kernel does not select offloaded connections by itself", "Linux 5.15 or newer", Severity.INFO, "conntrack"
    ),
    "ct_accounting": Known("conntrack cannot count bytes", "a kernel with CONFIG_NF_CONNTRACK: module nf_conntrack"),
    "xfrm": Known(
        "the kernel's IPsec does not answer", "a kernel with CONFIG_XFRM_USER: module xfrm_user", Severity.ERROR
    ),
    "esp4": Known("no ESP over IPv4", "a kernel with CONFIG_INET_ESP and AES-GCM: modules esp4, gcm", needs="xfrm"),
    "esp6": Known("no ESP over IPv6", "a kernel with CONFIG_INET6_ESP and AES-GCM: modules esp6, gcm", needs="xfrm"),
    "xfrm_interface": Known(
        "no xfrm interfaces", "a kernel with CONFIG_XFRM_INTERFACE: module xfrm_interface", Severity.INFO, "xfrm"
    ),
    "sa_dir": Known("SAs have no direction of their own", "Linux 6.10 or newer", Severity.INFO, "esp4"),
    "sa_pcpu": Known("no SA by CPU (RFC 9611)", "Linux 6.13 or newer", Severity.INFO, "sa_dir"),
    "crypto_offload": Known(
        "NICs are given no SAs (IPsec crypto offload)",
        "a kernel with CONFIG_XFRM_OFFLOAD (INET_ESP_OFFLOAD)",
        Severity.INFO,
        "esp4",
    ),
    "packet_offload": Known(
        "NICs are given no policies, so none does all of ESP (IPsec packet offload)",
        "Linux 6.2 or newer",
        Severity.INFO,
        "crypto_offload",
    ),
    "if_id_inbound_refused": Known(
        "inbound SAs with an if_id are offloaded, and NICs ignore the if_id",
        "Linux 6.16 or newer refuses them",
        Severity.INFO,
        "crypto_offload",
    ),
    "iptfs": Known(
        "no IP-TFS (RFC 9347)", "Linux 6.14 or newer with CONFIG_XFRM_IPTFS: module xfrm_iptfs", Severity.INFO, "sa_dir"
    ),
}

_NOT_PROBED = "NOT_PROBED"
_CLONE_NEWNET = 0x40000000


class RealProbe:
    """Asks the kernel that this runs on."""

    async def features(self) -> Mapping[str, Feature]:
        """Every feature of FEATURES, present or with the Reason why not.

        Takes 60 to 120 ms on a machine and 140 to 180 ms in an emulated guest; seconds there (2.7 to 4.7) where the
        kernel has all the modules still to load, most of it esp4 with the self-tests of its ciphers.
        """
        with ThreadPoolExecutor(1, "probe") as thread:  # its own, which ends: it never leaves the scratch namespace
            return await asyncio.get_running_loop().run_in_executor(thread, probe)


def probe() -> dict[str, Feature]:
    """Tries everything. Moves the calling *thread* into a network namespace of its own, for good."""
    if (refused := _unshare()) is not None:
        why = Unavailable(f"run as root: no network namespace to try in ({refused})")
        return {name: _missing(name, why) for name in FEATURES}
    found: dict[str, Feature] = {}
    for name, trial in TRIALS.items():
        found[name] = _tried(name, trial, found)
    return found


def _tried(name: str, trial: Callable[[], None], found: Mapping[str, Feature]) -> Feature:
    needs = FEATURES[name].needs
    if needs is not None and (because := found[needs].reason) is not None:
        return Feature(name, False, _follows(name, needs, because))
    try:
        trial()
    except (FlowfastError, OSError) as failed:
        return _missing(name, failed)
    return Feature(name, present=True)


def _follows(name: str, needs: str, because: Reason) -> Reason:
    """What is missing because another feature is."""
    code = because.code if because.code == _NOT_PROBED else f"NO_{name.upper()}"
    return replace(because, code=code, sentence=f"{FEATURES[name].without}: not without {needs}")


def _missing(name: str, failed: Exception) -> Feature:
    """A feature that is not there. Where a tool or a privilege is missing, that is the reason, and not the kernel."""
    known = FEATURES[name]
    if isinstance(failed, Unavailable):
        reason = Reason(_NOT_PROBED, "kernel", f"{known.without}, as far as can be seen", str(failed), known.severity)
    else:
        reason = Reason(f"NO_{name.upper()}", "kernel", f"{known.without}: {failed}", known.remedy, known.severity)
    return Feature(name, present=False, reason=reason)


def _unshare() -> str | None:
    """A new network namespace for this thread; why not, where the kernel refuses. (os.unshare is of Python 3.12.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    return None if libc.unshare(_CLONE_NEWNET) == 0 else os.strerror(ctypes.get_errno())


class FakeProbe:
    """A kernel that can everything but `missing`."""

    def __init__(self, missing: Iterable[str] = ()) -> None:
        self.missing = set(missing)

    async def features(self) -> Mapping[str, Feature]:
        """Every feature of FEATURES."""
        refused = OSError("as the test has it")
        return {name: _missing(name, refused) if name in self.missing else Feature(name, True) for name in FEATURES}
