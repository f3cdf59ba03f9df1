"""What happens in the guest: `python3 -m flowfast.lab.demo.scenario policy|interface`.

Two gateways and two hosts on emulated NICs, strongSwan's tunnels, a small firewall. The same loads run over the full
L3 path first, then with `flowfast run` on both gateways. Says every step on standard output (events.py), and at the
end everything that was measured.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import get_args

from flowfast.lab.capture import Capture, capture
from flowfast.lab.demo import cost
from flowfast.lab.demo.awake import Awake
from flowfast.lab.demo.controller import Controller
from flowfast.lab.demo.events import Failed, Progress
from flowfast.lab.demo.loads import AFTER_KILL, LOADS, Load, iperf3
from flowfast.lab.demo.meter import Meter, Reading
from flowfast.lab.demo.rate import rate
from flowfast.lab.demo.result import (
    ROUTES,
    WAYS,
    Cost,
    Lane,
    Part,
    Route,
    Sample,
    SaTraffic,
    Stream,
    Traffic,
    Way,
    Window,
    Wire,
)
from flowfast.lab.demo.site import FIREWALL, TITLES, TUNNELS, PartName, config, connection
from flowfast.lab.demo.tap import Tap
from flowfast.lab.demo.verdict import PATHS, WORDS
from flowfast.lab.ike import Daemon
from flowfast.lab.iperf import iperf3_server, parse_iperf3
from flowfast.lab.netns import Netns
from flowfast.lab.topology import BOTH, TwoGateways, lan_prefix, two_gateways, wan_address
from flowfast.lab.traffic import UdpFlow
from flowfast.model.errors import FlowfastError
from flowfast.model.sa import SA

SOCKET_BUFFER = 1 << 25
"""Bytes: one CPU does everything, and a receiver that waits for it must not lose what the gateways carried."""
PORT = 5200
"""iperf3's, plus the family."""
STREAM_RATE, STREAM_SIZE = 50, 1000
ROUND = 10.5
"""Seconds within which the controller looks at everything once more, and the exporter has it."""

Say = Callable[[Progress], None]


class _Step(IntEnum):
    """What takes how long: seconds on an idle machine, about."""

    BOOT = 16
    TOPOLOGY = 5
    TUNNELS = 4
    COST = 10
    LOAD = 2
    SWITCH = 26
    KILL = 3


class _Steps:
    """Turns steps into progress; the guest has booted when it begins."""

    def __init__(self, loads: int, say: Say) -> None:
        once = sum(_Step) - _Step.LOAD + _Step.COST
        self._total, self._say = once + loads * _Step.LOAD, say
        self._done, self._next = 0, _Step.BOOT

    def begin(self, step: _Step, sentence: str) -> None:
        self._done += self._next
        self._next, self._sentence = step, sentence
        self.again()

    def again(self) -> None:
        """Says the same once more: who listens may want to end this guest, and can only do so when it speaks."""
        self._say(Progress(self._done / self._total, self._sentence))


def _is_out(sa: SA) -> bool:
    return sa.src == wan_address(1, 4)


class Scenario:
    """One guest's run. `clock`: guest seconds since it began."""

    def __init__(self, part: PartName, say: Say) -> None:
        self.part = part
        self.lanes = [Lane(t.name, family, way) for t in TUNNELS[part] for family in t.families for way in WAYS]
        self.steps = _Steps(len(ROUTES) * len(self.lanes) * len(LOADS), say)
        self.windows: list[Window] = []
        self.by_sa: dict[Route, dict[int, Traffic]] = {"full": defaultdict(Traffic), "fast": defaultdict(Traffic)}
        self.began = time.monotonic()

    @property
    def clock(self) -> float:
        return time.monotonic() - self.began

    @contextmanager
    def played(self) -> Iterator[Part]:
        """Everything, from the topology to the answer; taken down when the context is left. Raises FlowfastError."""
        self.steps.begin(_Step.TOPOLOGY, "two gateways and two hosts, joined by emulated NICs")
        # What udev would have loaded for this CPU: without it AES is table lookups, and outweighs all the rest.
        subprocess.run(["modprobe", "aesni_intel"], check=False, stdin=subprocess.DEVNULL)
        for name in ("rmem", "wmem"):
            Path(f"/proc/sys/net/core/{name}_max").write_text(str(SOCKET_BUFFER))
        Path("/proc/sys/net/core/rmem_default").write_text(str(SOCKET_BUFFER))
        with ExitStack() as stack:
            self.awake = stack.enter_context(Awake())
            topo = stack.enter_context(two_gateways("policy" if self.part == "policy" else "xfrmi", "nic"))
            for gateway in (topo.gw1, topo.gw2):
                gateway.run(["nft", "-f", "-"], stdin=FIREWALL)
            self.steps.begin(_Step.TUNNELS, "strongSwan brings up " + " and ".join(t.name for t in TUNNELS[self.part]))
            ike = self._tunnels(topo, stack)
            self.reqids = {sa.reqid: sa.name for sa in ike.list_sas()}
            for host in (topo.h1, topo.h2):
                for family in BOTH:
                    address = topo.host_address(1 if host is topo.h1 else 2, family)
                    stack.enter_context(iperf3_server(host, address, PORT + family))
            self.tap = stack.enter_context(Tap(topo.wan[0]))
            meter = stack.enter_context(Meter("gw1"))
            yield self._measure(topo, meter, Path(stack.enter_context(tempfile.TemporaryDirectory())))

    def _tunnels(self, topo: TwoGateways, stack: ExitStack) -> Daemon:
        secret = os.urandom(24).hex()
        left = stack.enter_context(Daemon(topo.gw1, (connection(self.part, 1),), secret))
        stack.enter_context(Daemon(topo.gw2, (connection(self.part, 2),), secret))
        for tunnel in TUNNELS[self.part]:
            left.initiate(tunnel.name)
        return left

    def _measure(self, topo: TwoGateways, meter: Meter, folder: Path) -> Part:
        self.steps.begin(_Step.COST, "cost of a packet on the full L3 path")
        cost.establish(topo)
        with self.awake.paused():
            generator = cost.generator(topo)
            tx_full, rx_full = cost.outbound(topo, generator), cost.inbound(topo)
        with self._watched(topo, meter) as full_wire, self.awake.paused():
            self._loads(topo, meter, "full")
        controllers = [
            Controller(topo.gw1, config(self.part, 1), folder),
            Controller(topo.gw2, config(self.part, 2), folder),
        ]
        with self._watched(topo, meter) as fast_wire:
            streams, started, applied = self._switch_over(topo, controllers)
            with self.awake.paused():
                self._loads(topo, meter, "fast")
                time.sleep(ROUND)
            offloaded = _offloaded(topo.gw1)
            metrics = _tunnel_metrics(controllers[0].metrics())
            ruleset = topo.gw1.run(["nft", "list", "ruleset"]).stdout
            self.steps.begin(_Step.KILL, "kill -9 of both controllers, and traffic goes on")
            for controller in controllers:
                controller.kill()
            killed = self.clock
            with self.awake.paused():
                self._window(topo, meter, self.lanes[0], AFTER_KILL, "fast")
        self.steps.begin(_Step.COST, "cost of a packet on the flowtable")
        cost.establish(topo)
        with self.awake.paused():
            tx_fast, rx_fast = cost.outbound(topo, generator), cost.inbound(topo)
        return Part(
            name=self.part,
            topology=TITLES[self.part],
            windows=tuple(self.windows),
            sas=tuple(self._sa_rows(meter)),
            samples=tuple(self._samples(meter)),
            started=started,
            applied=applied,
            killed=killed,
            streams=streams,
            full_wire=full_wire(),
            fast_wire=fast_wire(),
            cost=Cost(tx_full, tx_fast, rx_full, rx_fast),
            offloaded=offloaded,
            ruleset=ruleset,
            config=config(self.part, 1),
            metrics=metrics,
            versions=_versions(),
        )

    # --- loads -------------------------------------------------------------------------------------------------------

    def _loads(self, topo: TwoGateways, meter: Meter, route: Route) -> None:
        for lane in self.lanes:
            for load in LOADS:
                where = f"{lane.tunnel}, IPv{lane.family}, {WORDS[lane.way]}"
                self.steps.begin(_Step.LOAD, f"{PATHS[route]}: {where}, {load.name}")
                self._window(topo, meter, lane, load, route)

    def _window(self, topo: TwoGateways, meter: Meter, lane: Lane, load: Load, route: Route) -> None:
        client, address = (
            (topo.h1, topo.host_address(2, lane.family))
            if lane.way == "tx"
            else (topo.h2, topo.host_address(1, lane.family))
        )
        before = meter.read()
        self.tap.seen()
        done = client.run(iperf3(address, PORT + lane.family, load), check=False)
        said = parse_iperf3(done.stdout or json.dumps({"error": done.stderr.strip()}))
        after = meter.read()
        carried = {way: self._carried(meter, (before, after), lane.tunnel, way, route) for way in WAYS}
        spis, own = self._spis(meter, lane.way, lane.tunnel), carried[lane.way]
        size = own.bytes / max(1, own.packets)
        points = [(each.at, each.sequence * size) for each in self.tap.seen() if each.spi in spis]
        self.windows.append(
            Window(
                lane=lane,
                load=load.name,
                route=route,
                start=before.at - self.began,
                end=after.at - self.began,
                tx=carried["tx"],
                rx=carried["rx"],
                bits_per_second=rate(points),
                sent=said.packets,
                lost=said.lost_packets,
            )
        )

    def _spis(self, meter: Meter, way: Way, tunnel: str | None = None) -> set[int]:
        """The SAs of one way, of one tunnel or of all."""
        return {
            spi
            for spi, sa in meter.sas.items()
            if _is_out(sa) == (way == "tx") and tunnel in (None, self.reqids.get(sa.reqid))
        }

    def _carried(self, meter: Meter, readings: tuple[Reading, Reading], tunnel: str, way: Way, route: Route) -> Traffic:
        """Growth between two readings; only one tunnel is loaded, so that what was forwarded was its."""
        before, after = readings
        total = Traffic(
            forward_bytes=after.forward[way].bytes - before.forward[way].bytes,
            forward_packets=after.forward[way].packets - before.forward[way].packets,
        )
        for spi in self._spis(meter, way, tunnel) & after.sas.keys():
            old, new = before.sas.get(spi), after.sas[spi]
            grown = Traffic(new.bytes - (old.bytes if old else 0), new.packets - (old.packets if old else 0))
            total += grown
            self.by_sa[route][spi] += grown + Traffic(0, 0, total.forward_bytes, total.forward_packets)
        return total

    # --- from one path to the other ----------------------------------------------------------------------------------

    def _switch_over(self, topo: TwoGateways, controllers: list[Controller]) -> tuple[tuple[Stream, ...], float, float]:
        """Starts flowfast on both gateways while a stream runs in each tunnel; what became of the streams, and when."""
        self.steps.begin(_Step.SWITCH, "`flowfast run` starts on both gateways, under traffic")
        with ExitStack() as stack:
            flows = {
                (tunnel.name, family): stack.enter_context(
                    UdpFlow(
                        topo.h1,
                        topo.h2,
                        topo.host_address(2, family),
                        size=STREAM_SIZE,
                        rate=STREAM_RATE,
                        port=7000 + family,
                    )
                )
                for tunnel in TUNNELS[self.part]
                for family in tunnel.families
            }
            time.sleep(0.3)
            started = self.clock
            for controller in controllers:
                controller.start()
            for controller in controllers:
                controller.wait(self.steps.again)
            applied = self.clock
            time.sleep(0.5)
            ended = {key: flow.stop() for key, flow in flows.items()}
        streams = tuple(
            Stream(tunnel, family, each.sent, each.lost, each.reordered, each.corrupt)
            for (tunnel, family), each in ended.items()
        )
        return streams, started, applied

    @contextmanager
    def _watched(self, topo: TwoGateways, meter: Meter) -> Iterator[Callable[[], Wire]]:
        """Captures on both ends of the WAN; what was seen can be asked for once the block has ended."""
        before = meter.read()
        seen: Capture
        wires: list[Wire] = []
        with capture(*topo.wan) as seen:
            yield lambda: wires[0]
        after = meter.read()
        esp = sum(
            counters.packets - (before.sas[spi].packets if spi in before.sas else 0)
            for spi, counters in after.sas.items()
        )
        prefixes = [lan_prefix(side, family) for side in (1, 2) for family in BOTH]
        inner = tuple(
            f"{packet.source} > {packet.destination}, protocol {packet.protocol}, {packet.length} bytes"
            for packet in seen.within(*prefixes)
        )
        wires.append(Wire(seen.total, esp, len(seen.packets), seen.missed, inner[:20], len(inner)))

    # --- the answer --------------------------------------------------------------------------------------------------

    def _sa_rows(self, meter: Meter) -> Iterator[SaTraffic]:
        for spi, sa in meter.sas.items():
            if sa.reqid in self.reqids:
                yield SaTraffic(
                    tunnel=self.reqids[sa.reqid],
                    way="tx" if _is_out(sa) else "rx",
                    spi=spi,
                    algorithm=sa.algorithm or "-",
                    cpu=sa.pcpu,
                    full=self.by_sa["full"][spi],
                    fast=self.by_sa["fast"][spi],
                )

    def _samples(self, meter: Meter) -> Iterator[Sample]:
        out, inward = self._spis(meter, "tx"), self._spis(meter, "rx")
        for each in meter.between(meter.readings[0], meter.readings[-1]):
            yield Sample(
                at=round(each.at - self.began, 4),
                tx=each.bytes(out),
                rx=each.bytes(inward),
                forward_tx=each.forward["tx"].bytes,
                forward_rx=each.forward["rx"].bytes,
            )


def _offloaded(gateway: Netns) -> tuple[str, ...]:
    """The connections that conntrack says are on the flowtable, in its own words."""
    found = []
    for family in ("ipv4", "ipv6"):
        listed = gateway.run(["conntrack", "-L", "-f", family]).stdout.splitlines()
        found += [" ".join(line.split()) for line in listed if "[OFFLOAD]" in line]
    return tuple(found)


def _tunnel_metrics(page: str) -> str:
    return "\n".join(
        line for line in page.splitlines() if line.startswith(("flowfast_tunnel_bytes", "flowfast_sa_bytes"))
    )


def _versions() -> dict[str, str]:
    """Of what was measured with, as Debian names them."""
    packages = ("nftables", "iproute2", "strongswan-swanctl", "iperf3")
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\n", *packages]
    listed = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout
    programs = {name: version for name, _, version in (line.partition(" ") for line in listed.splitlines())}
    return {"kernel": os.uname().release, **programs, "python": sys.version.split()[0]}


def main(argv: list[str]) -> int:
    """Prints events, and at the end the part or why there is none."""

    def say(line: str) -> None:
        print(line, flush=True)

    if len(argv) != 1 or argv[0] not in get_args(PartName):
        say(Failed(f"scenario: expected one of {', '.join(get_args(PartName))}").line())
        return 2
    # It lives for two minutes, and a collection of all it has read would stop the meter for longer than a load takes.
    gc.disable()
    try:
        scenario = Scenario(argv[0], lambda progress: say(progress.line()))  # type: ignore[arg-type] # checked above
        with scenario.played() as part:
            say(json.dumps({"part": asdict(part)}, separators=(",", ":")))
            # The guest ends with this process: taking the networks down first would take seconds, for nobody.
            os._exit(0)
    except (FlowfastError, OSError) as error:
        say(Failed(" ".join(str(error).split())).line())
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
