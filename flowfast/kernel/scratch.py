"""The trials of probe.py: each does one thing as flowfast would do it, and raises if the kernel will not.

They run in a network namespace without a past, in the order of TRIALS, and build on each other: nothing is cleaned up.
"""

import errno
import socket
from collections.abc import Callable, Mapping
from struct import Struct

from flowfast.kernel import conntrack
from flowfast.kernel.libnftables import run
from flowfast.kernel.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    attribute,
    attributes,
    nested,
)
from flowfast.kernel.nft import wire
from flowfast.kernel.system import RealSystem
from flowfast.kernel.xfrm import encode, uapi
from flowfast.kernel.xfrm.config import Aead, Auth, SAConfig
from flowfast.model.errors import KernelError, Unavailable
from flowfast.model.nftables import Table
from flowfast.model.sa import Direction, Mode, Offload, Policy, Selector
from flowfast.model.state import Flow

_INET, _NETDEV = Table("inet", "probe"), Table("netdev", "probe")
_NETLINK_XFRM = 6
_NOWHERE = "ffprobe-none"  # no device is named so
_U32 = Struct("=I")


def _nftables() -> None:
    run(f"add table {_INET}\nadd table {_NETDEV}\nadd chain {_INET} c {{ type filter hook forward priority 0; }}")


def _flowtable() -> None:
    run(
        f'add flowtable {_INET} plain {{ hook ingress priority 0; devices = {{ "lo" }}; }}\n'
        f"add rule {_INET} c meta l4proto {{ tcp, udp }} flow add @plain"
    )


def _flowtable_counter() -> None:
    run(f"add flowtable {_INET} counting {{ hook ingress priority 0; counter; }}")
    if not wire.flowtables(_INET)["counting"].counter:
        raise KernelError("the flag is accepted and not kept", errno.EOPNOTSUPP)


def _name_binding() -> None:
    run(f'add flowtable {_INET} nowhere {{ hook ingress priority 0; devices = {{ "{_NOWHERE}" }}; }}')


def _early_ingress() -> None:
    run(f'add flowtable {_INET} early {{ hook early_ingress priority 0; devices = {{ "lo" }}; }}')


def _hook_dump() -> None:
    try:
        wire.on_ingress("lo")
    except Unavailable as missing:  # here it is the kernel that is asked about
        raise KernelError(str(missing), errno.EOPNOTSUPP) from missing


def _rt_ipsec() -> None:
    run(f"add rule {_INET} c rt ipsec exists accept")


def _meta_ipsec_netdev() -> None:
    run(
        f'add chain {_NETDEV} g {{ type filter hook ingress device "lo" priority -10; }}\n'
        f"add rule {_NETDEV} g meta ipsec missing drop"
    )


def _fib_oif() -> None:
    run(f'add rule {_INET} c fib saddr oifname {{ "lo" }} accept')


def _concat_interval_sets() -> None:
    pairs = "type ipv4_addr . ipv4_addr; flags interval; elements = { 10.0.0.0/8 . 10.0.0.1-10.0.0.9 }"
    run(
        f"add set {_INET} pairs {{ {pairs}; }}\nadd rule {_INET} c ip saddr . ip daddr @pairs accept\n"
        f"add set {_NETDEV} pairs {{ {pairs}; }}\n"
        f'add chain {_NETDEV} s {{ type filter hook ingress device "lo" priority -9; }}\n'
        f"add rule {_NETDEV} s ip saddr . ip daddr @pairs drop"
    )


def _counter_map() -> None:
    run(
        f"add counter {_INET} n\n"
        f"add map {_INET} m {{ type ipv4_addr . ipv4_addr : counter; flags interval; "
        'elements = { 10.0.0.0/8 . 10.0.0.1 : "n" }; }\n'
        f"add rule {_INET} c counter name ip saddr . ip daddr map @m"
    )


# conntrack

_UNUSED = Flow(
    socket.AF_INET,
    socket.IPPROTO_UDP,
    "192.0.2.1",
    "192.0.2.2",
    9,
    9,
    "192.0.2.2",
    "192.0.2.1",
    9,
    9,
    False,
    False,
    True,
)


def _conntrack() -> None:
    conntrack.create(_UNUSED, seconds=60)
    if len(conntrack.dump()) != 1:
        raise KernelError("an entry that was made is not listed", errno.ENOENT)


def _conntrack_offload_filter() -> None:
    if conntrack.dump(conntrack.OFFLOAD, trust=True):
        raise KernelError("entries that are not offloaded are listed all the same", errno.EOPNOTSUPP)


def _ct_accounting() -> None:
    if RealSystem().sysctl("net.netfilter.nf_conntrack_acct") is None:
        raise KernelError("no net.netfilter.nf_conntrack_acct", errno.ENOENT)


# IPsec


def _xfrm() -> None:
    with Netlink(_NETLINK_XFRM) as netlink:
        netlink.request(uapi.Msg.GETSADINFO, _U32.pack(0), what="xfrm")


def _add_sa(config: SAConfig) -> set[int]:
    """Adds the SA; the types of the attributes with which the kernel gives it back."""
    with Netlink(_NETLINK_XFRM) as netlink:
        netlink.request(uapi.Msg.NEWSA, bytes(encode.sa(config)), flags=NLM_F_CREATE | NLM_F_EXCL, what="xfrm")
        answer = netlink.request(uapi.Msg.GETSA, encode.sa_id(config.dst, config.spi, config.proto), what="xfrm")
    return {kind for kind, _ in attributes(memoryview(answer[0])[uapi.USERSA_INFO.size :])}


def _sa(spi: int, *, direction: Direction | None = None, pcpu: int | None = None, mode: Mode = Mode.TUNNEL) -> SAConfig:
    aead = Aead("rfc4106(gcm(aes))", bytes(20))
    return SAConfig(src="192.0.2.1", dst="192.0.2.2", spi=spi, mode=mode, aead=aead, direction=direction, pcpu=pcpu)


def _esp4() -> None:
    _add_sa(_sa(1000))


def _esp6() -> None:
    _add_sa(SAConfig(src="2001:db8::1", dst="2001:db8::2", spi=1001, aead=Aead("rfc4106(gcm(aes))", bytes(20))))


def _sa_dir() -> None:
    if uapi.Attr.SA_DIR not in _add_sa(_sa(1002, direction=Direction.OUT)):
        raise KernelError("the direction is accepted and not kept", errno.EOPNOTSUPP)


def _sa_pcpu() -> None:
    if uapi.Attr.SA_PCPU not in _add_sa(_sa(1003, direction=Direction.OUT, pcpu=0)):
        raise KernelError("the CPU is accepted and not kept", errno.EOPNOTSUPP)


_LOOPBACK = 1  # ifindex of lo in every network namespace: it offloads nothing, so that the kernel's own checks decide
_UNKNOWN, _INBOUND, _PACKET = 0x80, 2, 4  # XFRM_OFFLOAD_*, and a bit that no kernel has


def _refuses(trial: Callable[[], object], without: str) -> None:
    """Passes where the kernel refuses what is tried (EINVAL); else it did not look at it."""
    try:
        trial()
    except KernelError as refused:
        if refused.code == errno.EINVAL:
            return
        raise
    raise KernelError(without, errno.EOPNOTSUPP)


def _add_offloaded(spi: int, flags: int, if_id: int = 0) -> None:
    """Adds an SA that asks a device for offload. AH, because one of ESP would load esp4_offload for the whole machine,
    with which the kernel treats software IPsec otherwise, too."""
    auth = Auth("hmac(sha256)", bytes(32))
    _add_sa(
        SAConfig(
            src="192.0.2.1",
            dst="192.0.2.2",
            spi=spi,
            proto=socket.IPPROTO_AH,
            auth=auth,
            if_id=if_id,
            offload=Offload(_LOOPBACK, flags),
        )
    )


def _crypto_offload() -> None:
    _refuses(lambda: _add_offloaded(1005, _UNKNOWN), "what is asked of devices is not looked at")


def _packet_offload() -> None:
    selector = Selector(socket.AF_INET, "192.0.2.1/32", "192.0.2.2/32")
    policy = Policy(selector, Direction.OUT, 0, 0, 0, offload=Offload(_LOOPBACK, _PACKET))

    def add() -> None:
        with Netlink(_NETLINK_XFRM) as netlink:
            netlink.request(uapi.Msg.NEWPOLICY, bytes(encode.policy(policy)), flags=NLM_F_CREATE, what="xfrm")

    _refuses(add, "policies are not given to devices")


def _if_id_inbound() -> None:
    try:
        _add_offloaded(1006, _INBOUND)
    except KernelError as refused:
        if refused.code == errno.EINVAL:  # kernels that ask for the type of offload first are older than the refusal
            raise KernelError("such an SA is accepted", errno.EOPNOTSUPP) from refused
        raise
    _refuses(lambda: _add_offloaded(1007, _INBOUND, if_id=1), "such an SA is accepted")


def _iptfs() -> None:
    _add_sa(_sa(1004, direction=Direction.OUT, mode=Mode.IPTFS))


_IFLA_IFNAME, _IFLA_LINKINFO, _INFO_KIND, _INFO_DATA, _XFRM_LINK, _XFRM_IF_ID = 3, 18, 1, 2, 1, 2
_RTM_NEWLINK = 16


def _xfrm_interface() -> None:
    data = nested(_INFO_DATA, attribute(_XFRM_LINK, _U32.pack(1)), attribute(_XFRM_IF_ID, _U32.pack(1)))
    body = bytes(16) + attribute(_IFLA_IFNAME, b"ffprobe0\0")
    body += nested(_IFLA_LINKINFO, attribute(_INFO_KIND, b"xfrm"), data)
    with Netlink(NETLINK_ROUTE) as netlink:
        netlink.request(_RTM_NEWLINK, body, flags=NLM_F_CREATE | NLM_F_EXCL, what="rtnetlink: kind xfrm")


TRIALS: Mapping[str, Callable[[], None]] = {
    "nftables": _nftables,
    "flowtable": _flowtable,
    "flowtable_counter": _flowtable_counter,
    "flowtable_name_binding": _name_binding,
    "early_ingress": _early_ingress,
    "hook_dump": _hook_dump,
    "rt_ipsec": _rt_ipsec,
    "meta_ipsec_netdev": _meta_ipsec_netdev,
    "fib_oif": _fib_oif,
    "concat_interval_sets": _concat_interval_sets,
    "counter_map": _counter_map,
    "conntrack": _conntrack,
    "conntrack_offload_filter": _conntrack_offload_filter,
    "ct_accounting": _ct_accounting,
    "xfrm": _xfrm,
    "esp4": _esp4,
    "esp6": _esp6,
    "xfrm_interface": _xfrm_interface,
    "sa_dir": _sa_dir,
    "sa_pcpu": _sa_pcpu,
    "crypto_offload": _crypto_offload,
    "packet_offload": _packet_offload,
    "if_id_inbound_refused": _if_id_inbound,
    "iptfs": _iptfs,
}
"""By feature, in the order in which they must run."""
