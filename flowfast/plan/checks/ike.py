"""Options of the IKE daemon that matter to a router's fast path, and what follows from how they are set."""

from collections.abc import Callable, Iterator

from flowfast.model.ike import IkeChild, IkeDaemon
from flowfast.model.reason import Reason, Severity
from flowfast.plan.checks.base import Check, Examination, some

_AREA = "ike"
_NETLINK = "charon.plugins.kernel-netlink"
MANY = 100
"""Tunnels from which on what a daemon does one after the other is felt."""

Judge = Callable[[Examination, IkeDaemon, str], Reason | None]
ChildJudge = Callable[[Examination, IkeDaemon, IkeChild], Reason | None]


def ike(seen: Examination) -> Iterator[Check]:
    """Each daemon, its options, and those of its children that are not the default or not as they should be."""
    if not seen.daemons:
        yield Check(_AREA, "daemon", "neither strongSwan nor libreswan runs in this network namespace")
    for daemon in seen.daemons:
        version = f" {daemon.version}" if daemon.version else ""
        yield Check(_AREA, f"{daemon.name}{version}", daemon.source, _unread(daemon))
        for option, value in daemon.options.items():
            judge = _DAEMON.get(option)
            yield Check(_AREA, option.removeprefix("charon."), value, judge(seen, daemon, value) if judge else None)
        for child in daemon.children:
            for option, judge_child in _CHILD:
                if (reason := judge_child(seen, daemon, child)) is not None:
                    yield Check(_AREA, f"{child}: {option}", child.options.get(option, "-"), reason)


def _unread(daemon: IkeDaemon) -> Reason | None:
    if not daemon.unread:
        return None
    sentence = f"its settings are not known in full: {some(list(daemon.unread))}"
    return Reason("IKE_UNREAD", daemon.name, sentence, "", Severity.INFO)


def _set(daemon: IkeDaemon, option: str, value: str) -> str:
    """How to set it. What children have is set in another file than what the daemon has."""
    if daemon.name == "libreswan":
        return f"ipsec.conf: {option}={value}"
    where = daemon.source if option.startswith("charon.") else "swanctl.conf"
    return f"{where}: {option} = {value}"


def _on(value: str) -> bool:
    return value.lower() in ("yes", "true", "enabled", "1")


# of the daemon


def _virtual_ip(_: Examination, daemon: IkeDaemon, value: str) -> Reason | None:
    asking = [str(child) for child in daemon.children if child.options.get("vips")]
    if not asking or not _on(value):
        return None
    sentence = (
        f"{some(asking)} asks for a virtual IP, which this router gives itself: hosts behind it get into the tunnel by "
        "source NAT alone, and such connections keep to the full path"
    )
    return Reason("VIRTUAL_IP", daemon.name, sentence, "have the peer's selectors hold the LAN", Severity.INFO)


def _route_size(seen: Examination, daemon: IkeDaemon, value: str) -> Reason | None:
    if value == "0":
        return None
    sentence = (
        f"the daemon's routes (table 220) have an MTU or MSS of {value} of their own, whatever the SAs have room for"
    )
    return Reason(
        "ROUTE_MTU",
        daemon.name,
        sentence,
        "leave it at 0: offload.clamp_mss knows the tunnel's real MTU",
        Severity.INFO,
    )


def _one_by_one(seen: Examination, daemon: IkeDaemon, value: str) -> Reason | None:
    if _on(value) or len(seen.tunnels) < MANY:
        return None
    sentence = f"SAs and policies of {len(seen.tunnels)} tunnels are installed one after the other"
    return Reason("SLOW_REKEY", daemon.name, sentence, _set(daemon, f"{_NETLINK}.parallel_xfrm", "yes"), Severity.INFO)


def _roaming(seen: Examination, daemon: IkeDaemon, value: str) -> Reason | None:
    if not _on(value) or len(seen.tunnels) < MANY:
        return None
    sentence = f"each change of a route or address makes it look at all of {len(seen.tunnels)} tunnels again"
    remedy = _set(daemon, f"{_NETLINK}.roam_events", "no") + ", where the addresses of the WAN do not change"
    return Reason("ROAM_EVENTS", daemon.name, sentence, remedy, Severity.INFO)


def _optional(_: Examination, daemon: IkeDaemon, value: str) -> Reason | None:
    if not _on(value):
        return None
    sentence = (
        'its policies are optional ("level use"): without an SA packets leave in the clear, and plaintext is let in; '
        "flowfast leaves them alone"
    )
    remedy = _set(daemon, f"{_NETLINK}.policy_optional", "no")
    return Reason("POLICY_OPTIONAL", daemon.name, sentence, remedy, Severity.ERROR)


def _acquire(_: Examination, daemon: IkeDaemon, value: str) -> Reason | None:
    trapping = [str(child) for child in daemon.children if "trap" in child.options.get("start_action", "")]
    if not trapping or not value.isdecimal() or int(value) <= 30:  # the kernel's own default
        return None
    sentence = (
        f"where {some(trapping)} does not come up, its packets are dropped for {value} s before it is tried again"
    )
    remedy = _set(daemon, f"{_NETLINK}.xfrm_acq_expires", "30")
    return Reason("ACQUIRE_EXPIRES", daemon.name, sentence, f"{remedy}, if retransmissions end as soon", Severity.INFO)


def _old_sa(_: Examination, daemon: IkeDaemon, value: str) -> Reason | None:
    if value.rstrip("s") != "0":
        return None
    sentence = "the old inbound SA goes at once when a tunnel is rekeyed, and what is under way on it is lost"
    return Reason("REKEY_LOSS", daemon.name, sentence, _set(daemon, "charon.delete_rekeyed_delay", "5"))


_DAEMON: dict[str, Judge] = {
    "charon.install_virtual_ip": _virtual_ip,
    "charon.delete_rekeyed_delay": _old_sa,
    f"{_NETLINK}.mss": _route_size,
    f"{_NETLINK}.mtu": _route_size,
    f"{_NETLINK}.parallel_xfrm": _one_by_one,
    f"{_NETLINK}.policy_optional": _optional,
    f"{_NETLINK}.roam_events": _roaming,
    f"{_NETLINK}.xfrm_acq_expires": _acquire,
}


# of each child


def _not_loaded(_: Examination, daemon: IkeDaemon, child: IkeChild) -> Reason | None:
    if daemon.loaded is None or child.connection in daemon.loaded:
        return None
    sentence = "is in the file, but the daemon has not loaded it"
    return Reason("NOT_LOADED", child.connection, sentence, "swanctl --load-conns")


def _mode(_: Examination, daemon: IkeDaemon, child: IkeChild) -> Reason | None:
    mode = child.options.get("mode", "tunnel")
    if mode == "tunnel":
        return None
    sentence = f"mode {mode} keeps to the full path; only tunnel mode is fast"
    return Reason("MODE_NOT_ELIGIBLE", str(child), sentence, _set(daemon, "mode", "tunnel"), Severity.INFO)


def _hardware(seen: Examination, daemon: IkeDaemon, child: IkeChild) -> Reason | None:
    wanted = child.options.get("hw_offload", "no")
    if wanted == "no" or any("esp-hw-offload" in link.features for link in seen.state.links):
        return None
    if wanted == "auto":
        sentence = "asks for offload to a device, and none here does ESP: its SAs are the kernel's own"
        return Reason("NO_ESP_DEVICE", str(child), sentence, _set(daemon, "hw_offload", "no"), Severity.INFO)
    sentence = f"asks for {wanted} offload, and no device here does ESP: its SAs cannot be installed"
    return Reason("NO_ESP_DEVICE", str(child), sentence, _set(daemon, "hw_offload", "auto"))


def _policies(_: Examination, daemon: IkeDaemon, child: IkeChild) -> Reason | None:
    if _on(child.options.get("policies", "yes")):
        return None
    sentence = "installs no policies: without others who do, nothing goes into the tunnel, and flowfast finds none"
    return Reason("NO_POLICIES", str(child), sentence, _set(daemon, "policies", "yes"))


def _interface(seen: Examination, daemon: IkeDaemon, child: IkeChild) -> Reason | None:
    inward, outward = child.options.get("if_id_in", "0"), child.options.get("if_id_out", "0")
    if inward != outward or inward == "%unique-dir":
        sentence = f"if_id_in ({inward}) and if_id_out ({outward}) differ: its two directions are two interfaces"
        return Reason("IF_ID_DIFFERS", str(child), sentence, "swanctl.conf: the same number for both")
    try:
        number = int(inward, 0)
    except ValueError:
        return None  # %unique: the daemon's choice, told to a script
    if not number or any(link.xfrm_if_id == number for link in seen.state.links):
        return None
    sentence = f"no xfrm interface here has if_id {number}"
    return Reason("NO_INTERFACE", str(child), sentence, f"ip link add ipsec0 type xfrm if_id {number}")


def _per_cpu(seen: Examination, daemon: IkeDaemon, child: IkeChild) -> Reason | None:
    if child.options.get("per_cpu_sas", "no") in ("no", "0", "1"):
        return None
    feature = seen.state.features.get("sa_pcpu")
    if feature is not None and not feature.present:
        sentence = "asks for an SA for each CPU, which this kernel does not have"
        remedy = feature.reason.remedy if feature.reason else ""
        return Reason("NO_SA_PCPU", str(child), sentence, remedy)
    if daemon.name == "strongSwan" and "trap" not in child.options.get("start_action", ""):
        sentence = "has an SA for each CPU only where packets may ask for one, and no trap lets them"
        return Reason("PCPU_NEEDS_TRAP", str(child), sentence, "swanctl.conf: start_action = trap")
    if daemon.name == "strongSwan" and child.options.get("if_id_out", "0") == "0":
        sentence = "policy-based: a flow holds on to the SA that was there when it became fast, be it the fallback SA"
        remedy = "use an xfrm interface (if_id_in, if_id_out): there each packet's CPU chooses the SA"
        return Reason("PCPU_FROZEN", str(child), sentence, remedy, Severity.INFO)
    return None


_CHILD: tuple[tuple[str, ChildJudge], ...] = (
    ("loaded", _not_loaded),
    ("mode", _mode),
    ("hw_offload", _hardware),
    ("policies", _policies),
    ("if_id_in", _interface),
    ("per_cpu_sas", _per_cpu),
)
