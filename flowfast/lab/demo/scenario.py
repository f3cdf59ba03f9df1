"""What happens in the guest: `python3 -m flowfast.lab.demo.scenario policy|interface|offload`.

Two gateways and two hosts on the devices of the part (stage.py), strongSwan's tunnels, a small firewall. The same
loads run over the full L3 path first, then with `flowfast run` on the gateways. Says every step on standard output
(events.py), and at the end everything that was measured.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import TypeVar, get_args

from flowfast.kernel.xfrm import AsyncXfrmSocket
from flowfast.lab.demo import cost
from flowfast.lab.demo.accounts import Accounts
from flowfast.lab.demo.awake import Awake
from flowfast.lab.demo.controller import Controller
from flowfast.lab.demo.events import Failed, Progress
from flowfast.lab.demo.loads import AFTER_KILL, LOADS, Load, iperf3
from flowfast.lab.demo.meter import Meter
from flowfast.lab.demo.rate import rate
from flowfast.lab.demo.result import (
    ROUTES,
    WAYS,
    Cost,
    EspWork,
    Lane,
    Part,
    Route,
    SaTraffic,
    Stream,
    Way,
    Window,
    Wire,
)
from flowfast.lab.demo.site import DRIVEN, TITLES, TUNNELS, PartName, Side, config, connection, costed, firewall
from flowfast.lab.demo.stage import Stage, set_up
from flowfast.lab.demo.tap import Tap
from flowfast.lab.demo.verdict import PATHS, WORDS
from flowfast.lab.ike import Daemon
from flowfast.lab.iperf import iperf3_server, parse_iperf3
from flowfast.lab.netns import Netns
from flowfast.lab.topology import BOTH, TwoGateways, lan_prefix
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
    COST = 7
    LOAD = 2
    SWITCH = 13
    """Of one controller."""
    KILL = 3


class _Steps:
    """Turns steps into progress; the guest has booted when it begins."""

    def __init__(self, say: Say, **several: int) -> None:
        self._total, self._say = sum(step * several.get(step.name, 1) for step in _Step), say
        self._done, self._next = 0, int(_Step.BOOT)

    def begin(self, step: _Step, sentence: str, times: int = 1) -> None:
        self._done += self._next
        self._next, self._sentence = step * times, sentence
        self.again()

    def again(self) -> None:
        """Says the same once more: who listens may want to end this guest, and can only do so when it speaks."""
        self._say(Progress(self._done / self._total, self._sentence))


class Scenario:
    """One guest's run. `clock`: guest seconds since it began."""

    def __init__(self, part: PartName, say: Say) -> None:
        self.part, self.tunnels, self.loads = part, TUNNELS[part], LOADS[part]
        self.carried = [(tunnel, family) for tunnel in self.tunnels for family in tunnel.families]
        self.lanes = {Lane(tunnel.name, family, way): tunnel for tunnel, family in self.carried for way in WAYS}
        self.steps = _Steps(
            say,
            LOAD=len(ROUTES) * len(self.lanes) * len(self.loads),
            COST=len(ROUTES) * len(costed(part)),
            SWITCH=len(DRIVEN[part]),
        )
        self.windows: list[Window] = []
        self.generator: float | None = None
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
            stage = stack.enter_context(set_up(self.part))
            topo = stage.topo
            for gateway in (topo.gw1, topo.gw2):
                gateway.run(["nft", "-f", "-"], stdin=firewall(self.part))
            self.steps.begin(_Step.TUNNELS, "strongSwan brings up " + " and ".join(t.name for t in self.tunnels))
            ours, theirs = self._ike(topo, stack)
            for tunnel, family in self.carried:
                for host, side in ((topo.h1, 1), (topo.h2, 2)):
                    stack.enter_context(iperf3_server(host, tunnel.host(side, family), PORT + family))
            self.tap = stack.enter_context(Tap(stage.wire))
            meter = stack.enter_context(Meter("gw1", stage.peer))
            listed = (theirs if stage.peer else ours).list_sas()
            self.accounts = Accounts(meter, {sa.reqid: sa.name for sa in listed}, self.began)
            yield self._measure(stage, meter, Path(stack.enter_context(tempfile.TemporaryDirectory())))

    def _ike(self, topo: TwoGateways, stack: ExitStack) -> tuple[Daemon, Daemon]:
        secret = os.urandom(24).hex()
        left, right = (
            stack.enter_context(Daemon(gateway, (connection(self.part, side),), secret))
            for gateway, side in zip((topo.gw1, topo.gw2), get_args(Side), strict=True)
        )
        for tunnel in self.tunnels:
            left.initiate(tunnel.name)
        return left, right

    def _measure(self, stage: Stage, meter: Meter, folder: Path) -> Part:
        full = self._costs(stage, PATHS["full"])
        with self._watched(stage, meter) as full_wire, self.awake.paused():
            self._loads(stage, meter, "full")
        controllers = [Controller(stage.gateway(side), config(self.part, side), folder) for side in DRIVEN[self.part]]
        with self._watched(stage, meter) as fast_wire:
            streams, started, applied = self._switch_over(stage, controllers)
            with self.awake.paused():
                self._loads(stage, meter, "fast")
                time.sleep(ROUND)
            offloaded = _offloaded(stage.topo.gw1)
            metrics = _tunnel_metrics(controllers[0].metrics())
            ruleset = stage.topo.gw1.run(["nft", "list", "ruleset"]).stdout
            self.steps.begin(_Step.KILL, "kill -9 of the controllers, and traffic goes on")
            for controller in controllers:
                controller.kill()
            killed = self.clock
            with self.awake.paused():
                self._window(stage, meter, next(iter(self.lanes)), AFTER_KILL, "fast")
        fast = self._costs(stage, PATHS["fast"])
        return Part(
            name=self.part,
            topology=TITLES[self.part],
            windows=tuple(self.windows),
            sas=_in_order(self.accounts.sa_rows()),
            samples=tuple(self.accounts.samples()),
            started=started,
            applied=applied,
            killed=killed,
            streams=streams,
            full_wire=full_wire(),
            fast_wire=fast_wire(),
            costs=tuple(
                Cost(of, tx_full=full[of]["tx"], tx_fast=fast[of]["tx"], rx_full=full[of]["rx"], rx_fast=fast[of]["rx"])
                for of in full
            ),
            offloaded=offloaded,
            ruleset=ruleset,
            config=config(self.part, 1),
            metrics=metrics,
            versions=_versions(),
            esp=self._esp(stage),
        )

    # --- loads and costs ---------------------------------------------------------------------------------------------

    def _costs(self, stage: Stage, words: str) -> dict[str, dict[Way, float | None]]:
        """What a packet costs on the path that is set up: of the first tunnel, and of all where they differ."""
        found: dict[str, dict[Way, float | None]] = {}
        for of, tunnel in costed(self.part):
            self.steps.begin(_Step.COST, f"cost of a packet on the {words}: {of}")
            cost.establish(stage, tunnel)
            with self.awake.paused():
                if self.generator is None:
                    self.generator = cost.generator(stage, tunnel)
                out, inward = cost.outbound(stage, tunnel, self.generator), cost.inbound(stage, tunnel)
            found[of] = {"tx": out, "rx": inward}
        return found

    def _loads(self, stage: Stage, meter: Meter, route: Route) -> None:
        for lane in self.lanes:
            for load in self.loads:
                where = f"{lane.tunnel}, IPv{lane.family}, {WORDS[lane.way]}"
                self.steps.begin(_Step.LOAD, f"{PATHS[route]}: {where}, {load.name}")
                self._window(stage, meter, lane, load, route)

    def _window(self, stage: Stage, meter: Meter, lane: Lane, load: Load, route: Route) -> None:
        client, far = (stage.topo.h1, 2) if lane.way == "tx" else (stage.topo.h2, 1)
        before = meter.read()
        self.tap.seen()
        address = self.lanes[lane].host(far, lane.family)
        done = client.run(iperf3(address, PORT + lane.family, load), check=False)
        said = parse_iperf3(done.stdout or json.dumps({"error": done.stderr.strip()}))
        after = meter.read()
        carried = {way: self.accounts.carried((before, after), lane.tunnel, way, route) for way in WAYS}
        spis, own = self.accounts.spis(lane.way, lane.tunnel), carried[lane.way]
        size = own.bytes / max(1, after.esp_packets(spis) - before.esp_packets(spis))
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

    # --- from one path to the other ----------------------------------------------------------------------------------

    def _switch_over(self, stage: Stage, controllers: list[Controller]) -> tuple[tuple[Stream, ...], float, float]:
        """Starts flowfast while a stream runs in each tunnel; what became of the streams, and when."""
        where = "both gateways" if len(controllers) > 1 else "gw1"
        self.steps.begin(_Step.SWITCH, f"`flowfast run` starts on {where}, under traffic", len(controllers))
        with ExitStack() as stack:
            flows = {
                (tunnel.name, family): stack.enter_context(
                    UdpFlow(
                        stage.topo.h1,
                        stage.topo.h2,
                        tunnel.host(2, family),
                        size=STREAM_SIZE,
                        rate=STREAM_RATE,
                        port=7000 + family,
                    )
                )
                for tunnel, family in self.carried
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
    def _watched(self, stage: Stage, meter: Meter) -> Iterator[Callable[[], Wire]]:
        """Watches the WAN; what was seen can be asked for once the block has ended."""
        before = meter.read()
        wires: list[Wire] = []
        with stage.watched() as watch:
            yield lambda: wires[0]
        after, seen = meter.read(), watch.capture
        esp = after.esp_packets(after.sas) - before.esp_packets(after.sas)
        prefixes = [lan_prefix(side, family) for side in (1, 2) for family in BOTH]
        inner = [
            f"{packet.source} > {packet.destination}, protocol {packet.protocol}, {packet.length} bytes"
            for packet in seen.within(*prefixes)
        ]
        if watch.plain:
            inner += ["from behind gw1 (counted as it arrived at gw2)"] * watch.plain
        wires.append(Wire(seen.total, esp, len(seen.packets) + watch.plain, seen.missed, tuple(inner[:20]), len(inner)))

    def _esp(self, stage: Stage) -> tuple[EspWork, ...]:
        """Who did ESP of gw1's SAs, where that is a question."""
        if not any(tunnel.offload for tunnel in self.tunnels):
            return ()
        links = json.loads(stage.topo.gw1.run(["ip", "-j", "link"]).stdout)
        devices = {link["ifindex"]: link["ifname"] for link in links}
        return _in_order(self.accounts.esp_work(asyncio.run(_sas(stage.topo.gw1)), devices, self.tunnels))


Row = TypeVar("Row", SaTraffic, EspWork)


def _in_order(rows: Iterator[Row]) -> tuple[Row, ...]:
    """By tunnel, and each as loads are: out first."""
    return tuple(sorted(rows, key=lambda row: (row.tunnel, WAYS.index(row.way))))


async def _sas(gateway: Netns) -> list[SA]:
    async with AsyncXfrmSocket(gateway.name) as xfrm:
        return [sa for sa in await xfrm.sas() if not sa.larval]


def _offloaded(gateway: Netns) -> tuple[str, ...]:
    """The connections that conntrack says are on the flowtable, in its own words."""
    found = []
    for family in ("ipv4", "ipv6"):
        listed = gateway.run(["conntrack", "-L", "-f", family]).stdout.splitlines()
        found += [" ".join(line.split()) for line in listed if "[OFFLOAD]" in line]
    return tuple(found)


EXPORTED = ("flowfast_tunnel_bytes", "flowfast_tunnel_info", "flowfast_sa_bytes", "flowfast_nic_")


def _tunnel_metrics(page: str) -> str:
    return "\n".join(line for line in page.splitlines() if line.startswith(EXPORTED))


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
