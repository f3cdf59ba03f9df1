"""In the guest: runs cases, each kind of packet in turn, and says on standard output what became of it.

A line before each kind and one after it, so that whoever reads knows what killed a kernel that says no more. Cases
without esp_offload come first: with SAs about, the module cannot be unloaded.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pyroute2 import netns

from flowfast.kernel.knobs import RealKnobs
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import LabError, Netns
from flowfast.lab.qualify.kinds import KINDS, Tcp, Udp
from flowfast.lab.qualify.traffic import Arrived, Ends, tcp, udp
from flowfast.lab.topology import TUNNEL_MTU, Family, Kind, TwoGateways, two_gateways
from flowfast.lab.wires import WireKind
from flowfast.model.bulk import Case, Side, Stage, Verdict
from flowfast.model.errors import KernelError
from flowfast.model.knob import Knob, KnobKind
from flowfast.qualified import case_json, case_of

FLUSH_NS = 2_000_000
"""How long GRO waits for more packets, in nanoseconds: long, because the guest is emulated."""
FEATURES = {
    Stage.OFF: "gro off",
    Stage.GRO: "gro on rx-gro-list off rx-udp-gro-forwarding off",
    Stage.UDP: "gro on rx-gro-list off rx-udp-gro-forwarding on",
    Stage.LIST: "gro on rx-gro-list on rx-udp-gro-forwarding off",
}
Host = tuple[Netns, Literal[1, 2]]
"""And which gateway it is behind."""
LAB_KINDS: dict[str, Kind] = {"policy": "policy", "interface": "xfrmi", "cross-netns": "cross-netns"}
"""Topology -> what the lab calls it."""
RETRANSMITTED = 0.05
"""Share of retransmitted segments from which a TCP stream counts as one that loses packets."""


Shared = tuple[bool, str, str, bool, Family]


def groups(cases: Iterable[Case]) -> dict[Shared, list[Case]]:
    """Cases that share a topology: (esp_offload, driver, ...); the module is loaded once, in between."""
    found: dict[Shared, list[Case]] = {}
    for case in sorted(cases, key=_shared):
        found.setdefault(_shared(case), []).append(case)
    return found


def _shared(case: Case) -> Shared:
    return case.esp_offload, case.driver, case.topology, case.finished, case.outer


def run(cases: Sequence[Case], say: Any) -> None:
    """All cases, one after the other."""
    for (esp_offload, driver, topology, finished, outer), those in groups(cases).items():
        if esp_offload:
            subprocess.run(["modprobe", "-a", "esp4_offload", "esp6_offload"], check=True)
        if driver not in ("veth", "virtio_net"):
            subprocess.run(["modprobe", driver], check=True)  # nothing in the guest does it when a NIC is found
        wire: WireKind = "veth" if driver == "veth" else "nic"
        with two_gateways(LAB_KINDS[topology], wire, finish_checksums=finished) as topo:
            manual_keys(topo, outer)
            if not all(topo.ping(family, 3) for family in topo.families):
                raise LabError(f"{topology}: no ping comes through the tunnel")
            for each in (topo.h1, topo.h2, topo.gw2):
                _quiet(each)
            _flowtable(topo)
            for case in those:
                if refused := _stage(topo, case):
                    say({"impossible": case_json(case), "why": refused})
                else:
                    _kinds(topo, case, say)


def _kinds(topo: TwoGateways, case: Case, say: Any) -> None:
    say({"case": case_json(case)})
    one: Host = (topo.h1, 1)
    two: Host = (topo.h2, 2)
    (sender, near), (receiver, far) = (one, two) if case.side is Side.LAN else (two, one)
    for host in (topo.h1, topo.h2):
        host.run(["ip", "route", "flush", "cache"])  # path MTUs that a case before this one made up
    seen = _seen(topo)
    sent = 0
    for kind in KINDS:
        if sent and not isinstance(kind, Udp):
            say({"merged": round(sent / max(_seen(topo) - seen, 1), 1)})
            sent = 0
        segments = _seen(topo) if isinstance(kind, Tcp) else 0
        say({"kind": kind.name})
        ends = Ends(
            sender,
            receiver,
            topo.host_address(near, kind.family),
            topo.host_address(far, kind.family),
        )
        before = trouble(topo, receiver, sender)
        try:
            arrived = udp(ends, kind) if isinstance(kind, Udp) else tcp(ends, kind)
        except LabError as error:
            say({"kind": kind.name, "verdict": str(Verdict.LOST), "note": str(error)})
            continue
        sent += arrived.sent if isinstance(kind, Udp) else 0
        grown = {name: count - before[name] for name, count in trouble(topo, receiver, sender).items()}
        say(
            {
                "kind": kind.name,
                "verdict": str(judge(kind, arrived, grown)),
                "sent": arrived.sent,
                "got": arrived.got,
                "wrong": arrived.wrong,
                "seen": _seen(topo) - segments if isinstance(kind, Tcp) else None,
                "trouble": {name: count for name, count in grown.items() if count},
            }
        )
    say({"done": True})


def judge(kind: Udp | Tcp, arrived: Arrived, trouble: dict[str, int]) -> Verdict:
    """From what arrived and what the namespaces' counters say of it.

    TCP repairs what a stage breaks: packets that ESP refused, bad checksums and many retransmissions give it away.
    """
    if arrived.wrong or trouble["bad checksums"]:
        return Verdict.CORRUPT
    if arrived.got != arrived.sent or trouble["refused by xfrm"]:
        return Verdict.LOST
    if isinstance(kind, Tcp):
        segments = arrived.sent / (kind.mss or kind.write or 1400)
        if trouble["retransmitted"] > max(8, RETRANSMITTED * segments):
            return Verdict.LOST
    return Verdict.WHOLE


def trouble(topo: TwoGateways, receiver: Netns, sender: Netns) -> dict[str, int]:
    """What the namespaces' counters have of bad checksums, packets that ESP refused, and segments sent again."""
    at = _statistics(receiver, "snmp") + _statistics(receiver, "snmp6")
    xfrm = _statistics(topo.underlay1, "xfrm_stat")
    return {
        "bad checksums": _counter(at, "Udp", "InCsumErrors")
        + _counter(at, "Tcp", "InCsumErrors")
        + _six(at, "Udp6InCsumErrors"),
        "refused by xfrm": sum(
            int(line.split()[1]) for line in xfrm.splitlines() if line.startswith("XfrmOut") and "Error" in line
        ),
        "retransmitted": _counter(_statistics(sender, "snmp"), "Tcp", "RetransSegs"),
    }


def _statistics(ns: Netns, name: str) -> str:
    """A file of /proc/net, read by a thread in the namespace: a process would cost 50 ms under emulation."""
    read: list[str] = []

    def look() -> None:
        netns.setns(ns.name, flags=0, fork=False)
        read.append(Path(f"/proc/thread-self/net/{name}").read_text())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return read[0]


def _counter(snmp: str, protocol: str, name: str) -> int:
    heads, values = [line.split()[1:] for line in snmp.splitlines() if line.startswith(f"{protocol}:")]
    return dict(zip(heads, map(int, values), strict=True)).get(name, 0)


def _six(snmp6: str, name: str) -> int:
    return next((int(line.split()[1]) for line in snmp6.splitlines() if line.split()[:1] == [name]), 0)


def _quiet(ns: Netns) -> None:
    """Nobody but gw1 puts packets together."""
    for device in ("e0", "lan0", "wan0", "ipsec0"):
        ns.run(["ethtool", "-K", device, "gro", "off"], check=False)
    # Nobody has to find out the tunnel's MTU first, at the price of packets.
    ns.run(["ip", "link", "set", "e0", "mtu", str(TUNNEL_MTU)], check=False)


def _flowtable(topo: TwoGateways) -> None:
    devices = topo.devices
    rules = f"""
table inet qualify {{
  flowtable fast {{ hook ingress priority 0; devices = {{ {", ".join(devices)} }}; }}
  chain forward {{ type filter hook forward priority 0;
    meta l4proto {{ tcp, udp }} ct state established flow add @fast
  }}
}}
table netdev qualify {{
  counter seen {{ }}
"""
    for device in devices:
        rules += f"""  chain in_{device} {{ type filter hook ingress device {device} priority -300;
    ip daddr 10.0.0.0/8 counter name seen
    ip6 daddr fd00::/16 counter name seen
  }}
"""
    topo.gw1.run(["nft", "-f", "-"], stdin=rules + "}\n")


def _seen(topo: TwoGateways) -> int:
    """Inner packets that gw1's stack saw, on every device of the flowtable."""
    listed = json.loads(topo.gw1.run(["nft", "-j", "list", "counter", "netdev", "qualify", "seen"]).stdout)
    return next(int(each["counter"]["packets"]) for each in listed["nftables"] if "counter" in each)


def _stage(topo: TwoGateways, case: Case) -> str | None:
    """The stage on the devices of its side, and everything off on the others; why there can be no shield, if so."""
    merging = {"lan0"} if case.side is Side.LAN else {"wan0", "ipsec0"}
    topo.gw1.run(["ethtool", "-K", "lan0", *FEATURES[Stage.OFF].split()])  # it is not taken off below what needs it
    shield = Knob(KnobKind.SHIELD, "lan0", "shield")
    if refused := topo.gw1.call(_turn, shield, "on" if case.shield else "off"):
        return refused  # a driver without native XDP
    for ns in {topo.gw1, topo.underlay1}:
        present = ns.call(_devices)
        for device in present:
            stage = case.stage if device in merging else Stage.OFF
            ns.run(["ethtool", "-K", device, *FEATURES[stage].split()], check=device in ("lan0", "wan0"))
            waits = device in merging and case.stage is not Stage.OFF and device != "ipsec0"
            ns.write(f"/sys/class/net/{device}/gro_flush_timeout", str(FLUSH_NS if waits else 0))
            ns.write(f"/sys/class/net/{device}/napi_defer_hard_irqs", "1" if waits else "0")
    if case.driver == "veth":
        # veth only has NAPI, and so GRO, where its peer does not send super-packets.
        ends = ((topo.h1, "e0"), (topo.gw2, "wan0"))
        for ns, device in ends:
            ns.run(["ethtool", "-K", device, "tso", "off"])
    return None


def _turn(knob: Knob, value: str) -> str | None:
    """Turns it if it is not so; a guest without libbpf has no shield, and is asked for none."""
    knobs = RealKnobs()
    try:
        if knobs.read([knob]).get(knob, "off") != value:
            knobs.turn(knob, value)
    except KernelError as refused:
        return str(refused)
    return None


def _devices() -> list[str]:
    there = {each.name for each in Path("/sys/class/net").iterdir()}
    return sorted(there & {"lan0", "wan0", "ipsec0"})


def main() -> None:
    """`python3 -m flowfast.lab.qualify.scenario CASES`: a JSON list."""

    def say(event: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    started = time.monotonic()
    run([case_of(each) for each in json.loads(sys.argv[1])], say)
    say({"seconds": time.monotonic() - started})


if __name__ == "__main__":
    main()
