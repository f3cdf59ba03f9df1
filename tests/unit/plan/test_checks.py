"""What doctor says of a router on paper: each check with the setting that it is about, and without."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from flowfast.config.load import parse
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.ike import IkeChild, IkeDaemon
from flowfast.model.link import Link
from flowfast.model.reason import Reason, Severity
from flowfast.model.sa import Direction, Offload, Replay
from flowfast.model.state import Feature, RouterState
from flowfast.plan.checks import Examination, examine, wanted_sysctls
from flowfast.plan.tunnels import find_tunnels
from tests.unit.plan.router import IPSEC, LAN, PEER, US, WAN, config, policies, router

CROSSING = replace(IPSEC, underlay_netns=0)
NF = "net.netfilter.nf_"
GOOD = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.netfilter.nf_conntrack_acct": "1",
    "net.netfilter.nf_conntrack_max": "262144",
    "net.netfilter.nf_conntrack_count": "17",
    "net.netfilter.nf_conntrack_buckets": "262144",
    "net.netfilter.nf_conntrack_tcp_timeout_established": "432000",
    "net.netfilter.nf_conntrack_udp_timeout_stream": "120",
    "net.netfilter.nf_flowtable_tcp_timeout": "30",
    "net.netfilter.nf_flowtable_udp_timeout": "30",
}


def good(state: RouterState | None = None, **more: object) -> Examination:
    """A router on which nothing is wrong."""
    if state is None:
        sas = (make_sa(US, PEER, reqid=1), make_sa(PEER, US, reqid=1, direction=Direction.IN))
        sas = tuple(sa._replace(replay=Replay(0, 0, 128, True)) for sa in sas)
        state = replace(router(policies()), sas=sas)
    wanted = config()
    found = Examination(state, find_tunnels(state, wanted), wanted, GOOD, frozenset({"esp4_offload", "esp6_offload"}))
    return replace(found, **more)  # type: ignore[arg-type]


def reasons(seen: Examination) -> dict[str, Reason]:
    return {check.reason.code: check.reason for check in examine(seen) if check.reason is not None}


def sysctl(values: Mapping[str, str], links: tuple[Link, ...] = (LAN, WAN)) -> dict[str, Reason]:
    seen = good()
    return reasons(replace(seen, state=replace(seen.state, links=links), sysctls=GOOD | values))


def test_nothing_is_said_of_a_router_on_which_nothing_is_wrong() -> None:
    assert reasons(good()) == {}
    assert {check.area for check in examine(good())} == {"modules", "sysctls", "conntrack", "devices", "ipsec", "ike"}


@pytest.mark.parametrize(
    ("values", "code", "about"),
    [
        ({"net.ipv4.ip_forward": "0"}, "NOT_FORWARDING", "net.ipv4.ip_forward"),
        ({"net.ipv6.conf.wan0.forwarding": "0"}, "NOT_FORWARDING", "net.ipv6.conf.wan0.forwarding"),
        ({"net.ipv4.conf.wan0.disable_policy": "1"}, "POLICY_DISABLED", "wan0"),
        ({"net.ipv6.conf.lan0.disable_policy": "1"}, "POLICY_DISABLED", "lan0"),
        ({"net.ipv4.conf.wan0.disable_xfrm": "1"}, "XFRM_DISABLED", "wan0"),
        ({"net.netfilter.nf_conntrack_acct": "0"}, "NO_FLOW_COUNTERS", "conntrack"),
        ({"net.netfilter.nf_conntrack_count": "250000"}, "CONNTRACK_FULL", "conntrack"),
        ({"net.netfilter.nf_conntrack_buckets": "1024"}, "CONNTRACK_BUCKETS", "conntrack"),
        ({f"{NF}conntrack_udp_timeout_stream": "30"}, "FLOW_TIMEOUT", f"{NF}flowtable_udp_timeout"),
        ({f"{NF}flowtable_tcp_timeout": "5"}, "FLOW_TIMEOUT", f"{NF}flowtable_tcp_timeout"),
    ],
)  # fmt: skip
def test_a_sysctl_that_is_wrong(values: dict[str, str], code: str, about: str) -> None:
    found = sysctl(values)
    assert set(found) == {code}
    assert found[code].object == about
    assert "sysctl -w " in found[code].remedy
    assert set(values) <= set(wanted_sysctls((LAN, WAN)))


def test_without_tunnels_switches_of_ipsec_do_not_matter() -> None:
    seen = good(router(), sysctls=GOOD | {"net.ipv4.conf.wan0.disable_policy": "1"})
    assert "POLICY_DISABLED" not in reasons(seen)


def test_strict_rp_filter_matters_where_the_secpath_is_gone_or_several_wans_are() -> None:
    strict = {"net.ipv4.conf.all.rp_filter": "1"}
    assert sysctl(strict) == {}
    assert sysctl(strict, (LAN, WAN, IPSEC)) == {}
    assert sysctl(strict, (LAN, WAN, CROSSING))["RP_FILTER"].object == "ipsec0"
    loose = strict | {"net.ipv4.conf.ipsec0.rp_filter": "2"}
    assert sysctl(loose, (LAN, WAN, CROSSING)) == {}
    seen = good(sysctls=GOOD | strict)
    two = parse("devices: {lan: [lan0], wan: [wan0, wan1]}\n", "two.yaml").config
    links = (LAN, WAN, replace(WAN, ifindex=9, name="wan1"))
    found = reasons(replace(seen, config=two, state=replace(seen.state, links=links)))
    assert found["RP_FILTER"].severity is Severity.INFO


def test_bulking_in_front_of_esp_is_shown() -> None:
    seen = good()
    links = (replace(LAN, features=frozenset({"rx-gro-list"})), WAN)
    found = {check.name: check.found for check in examine(replace(seen, state=replace(seen.state, links=links)))}
    assert (found["rx-gro-list"], found["rx-udp-gro-forwarding"]) == ("on: lan0", "off")


def test_a_missing_offload_module_costs_something_or_breaks_something() -> None:
    seen = good(modules=frozenset({"esp6_offload"}))
    assert reasons(seen)["NO_ESP_GRO"].object == "esp4_offload"
    offloaded = tuple(sa._replace(offload=Offload(2, 0)) for sa in seen.state.sas)
    assert (
        reasons(replace(seen, state=replace(seen.state, sas=offloaded)))["NO_OFFLOAD_MODULE"].remedy
        == "modprobe esp4_offload"
    )


def test_devices_that_are_down_are_ports_or_promise_too_much() -> None:
    seen = good()

    def with_links(*links: Link) -> dict[str, Reason]:
        state = replace(seen.state, links=links)
        return reasons(replace(seen, state=state, tunnels=find_tunnels(state, config())))

    assert with_links(LAN, replace(WAN, up=False))["DEVICE_DOWN"].remedy == "ip link set wan0 up"
    bridge = Link(8, "br0", "bridge", True, 1500)
    assert with_links(replace(LAN, master=8), WAN, bridge)["DEVICE_IS_PORT"].remedy == "name br0 in the config instead"
    interface = replace(IPSEC, mtu=1500, underlay_ifindex=2)
    sas = tuple(sa._replace(if_id=42) for sa in seen.state.sas)
    state = replace(router(policies(if_id=42), links=(LAN, WAN, interface)), sas=sas)
    found = reasons(good(state))
    assert found["MTU_TOO_LARGE"].remedy == "ip link set ipsec0 mtu 1446"
    state = replace(state, links=(LAN, WAN, replace(interface, mtu=1446)))
    assert "MTU_TOO_LARGE" not in reasons(good(state))


def test_sas_and_policies() -> None:
    seen = good()

    def with_sas(**values: object) -> dict[str, Reason]:
        sas = tuple(sa._replace(**values) for sa in seen.state.sas)
        state = replace(seen.state, sas=sas)
        return reasons(replace(seen, state=state, tunnels=find_tunnels(state, config())))

    assert set(with_sas(replay=Replay(0, 0, 32, False))) == {"REPLAY_WINDOW_SMALL"}
    assert set(with_sas(replay=Replay(0, 0, 0, False))) == {"NO_REPLAY_WINDOW"}
    assert set(with_sas(flags=4)) == {"DF_NOT_COPIED"}
    optional = tuple(
        policy._replace(templates=tuple(template._replace(optional=True) for template in policy.templates))
        for policy in seen.state.policies
    )
    found = reasons(replace(seen, state=replace(seen.state, policies=optional)))
    assert found["POLICY_OPTIONAL"].severity is Severity.ERROR


def said_of(
    options: Mapping[str, str] | None = None, child: Mapping[str, str] | None = None, **more: object
) -> set[str]:
    daemon = IkeDaemon(
        "strongSwan", "/etc/strongswan.conf", "6.1.0", options or {}, (IkeChild("site", "net", child or {}),)
    )
    return set(reasons(good(daemons=(replace(daemon, **more),))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("charon.delete_rekeyed_delay", "0s", "REKEY_LOSS"),
        ("charon.plugins.kernel-netlink.mss", "1300", "ROUTE_MTU"),
        ("charon.plugins.kernel-netlink.mtu", "1400", "ROUTE_MTU"),
        ("charon.plugins.kernel-netlink.policy_optional", "yes", "POLICY_OPTIONAL"),
    ],
)
def test_options_of_the_daemon(option: str, value: str, code: str) -> None:
    assert said_of({option: value}) == {code}
    assert said_of({option: {"REKEY_LOSS": "5", "POLICY_OPTIONAL": "no"}.get(code, "0")}) == set()


def test_options_that_matter_beside_others() -> None:
    assert said_of({"charon.install_virtual_ip": "yes"}, {"vips": "0.0.0.0"}) == {"VIRTUAL_IP"}  # noqa: S104
    assert said_of({"charon.install_virtual_ip": "yes"}) == set()
    expires = {"charon.plugins.kernel-netlink.xfrm_acq_expires": "165"}
    assert said_of(expires, {"start_action": "trap"}) == {"ACQUIRE_EXPIRES"}
    assert said_of(expires) == set()
    slow = {"charon.plugins.kernel-netlink.parallel_xfrm": "no", "charon.plugins.kernel-netlink.roam_events": "yes"}
    assert said_of(slow) == set()
    many = good(daemons=(IkeDaemon("strongSwan", "x", options=slow),))
    assert set(reasons(replace(many, tunnels=many.tunnels * 100))) == {"SLOW_REKEY", "ROAM_EVENTS"}


@pytest.mark.parametrize(
    ("child", "code"),
    [
        ({"mode": "transport"}, "MODE_NOT_ELIGIBLE"),
        ({"hw_offload": "packet"}, "NO_ESP_DEVICE"),
        ({"hw_offload": "auto"}, "NO_ESP_DEVICE"),
        ({"policies": "no"}, "NO_POLICIES"),
        ({"if_id_in": "1", "if_id_out": "2"}, "IF_ID_DIFFERS"),
        ({"if_id_in": "%unique-dir", "if_id_out": "%unique-dir"}, "IF_ID_DIFFERS"),
        ({"if_id_in": "7", "if_id_out": "0x7"}, "IF_ID_DIFFERS"),
        ({"if_id_in": "7", "if_id_out": "7"}, "NO_INTERFACE"),
        ({"per_cpu_sas": "yes"}, "PCPU_NEEDS_TRAP"),
        ({"per_cpu_sas": "yes", "start_action": "trap"}, "PCPU_FROZEN"),
    ],
)
def test_options_of_a_child(child: dict[str, str], code: str) -> None:
    assert said_of(child=child) == {code}


def test_no_sa_for_each_cpu_on_an_old_kernel_and_files_that_are_not_loaded() -> None:
    child = IkeChild("site", "net", {"per_cpu_sas": "yes", "start_action": "trap"})
    seen = good(daemons=(IkeDaemon("strongSwan", "x", children=(child,)),))
    why = Reason("NO_SA_PCPU", "kernel", "no SA by CPU", "Linux 6.13 or newer")
    features = {**seen.state.features, "sa_pcpu": Feature("sa_pcpu", False, why)}
    found = reasons(replace(seen, state=replace(seen.state, features=features)))
    assert found["NO_SA_PCPU"].remedy == "Linux 6.13 or newer"
    assert said_of(loaded=frozenset({"other"})) == {"NOT_LOADED"}
    assert said_of(loaded=frozenset({"site"})) == set()
    assert said_of(unread=("/etc/swanctl/swanctl.conf: Permission denied",)) == {"IKE_UNREAD"}
