"""What the tests of steering share: many flows both ways, and on which CPUs the packets of each SA were processed.

The witness is a pair of tracing programs in the kernel's own functions for ESP; it knows nothing of what steers.
"""

import asyncio
import secrets
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from flowfast.kernel.witness import witness
from flowfast.kernel.xfrm import AsyncXfrmSocket
from flowfast.lab.netns import Netns
from flowfast.lab.topology import TwoGateways, wan_address
from flowfast.lab.traffic import family_of
from flowfast.model.sa import SA, Direction
from flowfast.model.steering import Sightings

FLOWS = 64


def sas_of(ns: Netns) -> list[SA]:
    """The SAs of a namespace."""
    return [sa for sa in ns.call(_sas) if not sa.larval]


def _sas() -> list[SA]:
    async def ask() -> list[SA]:
        async with AsyncXfrmSocket() as xfrm:
            return await xfrm.sas()

    return asyncio.run(ask())


def cpus_with_sas(ns: Netns, direction: Direction) -> set[int]:
    """CPUs that have an SA of that direction."""
    return {sa.pcpu for sa in sas_of(ns) if sa.pcpu is not None and sa.direction is direction}


class Flows:
    """64 UDP flows from h1 to h2, every packet of which comes back: `with Flows(topo) as flows: flows.send(20)`."""

    def __init__(self, topo: TwoGateways, count: int = FLOWS, family: int = 4) -> None:
        self._address = topo.host_address(2, family)  # type: ignore[arg-type]
        kind = family_of(self._address)
        self._server = topo.h2.socket(kind, socket.SOCK_DGRAM)
        self._server.bind((self._address, 7))
        self._clients = []
        for number in range(count):
            client = topo.h1.socket(kind, socket.SOCK_DGRAM)
            client.bind(("", 20000 + 7 * number))
            client.connect((self._address, 7))
            self._clients.append(client)
        self._stop = threading.Event()

    def __enter__(self) -> "Flows":
        self._echo = threading.Thread(target=self._answer, daemon=True)
        self._echo.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._echo.join(10)
        for each in (self._server, *self._clients):
            each.close()

    def _answer(self) -> None:
        self._server.settimeout(0.2)
        while not self._stop.is_set():
            try:
                data, back = self._server.recvfrom(2048)
            except TimeoutError:
                continue
            self._server.sendto(data, back)

    def send(self, rounds: int, size: int = 100) -> float:
        """So many packets of each flow; returns the share that came back. Waits for each round's answers."""
        sent = came = 0
        for number in range(rounds):
            for client in self._clients:
                sent += client.send(number.to_bytes(4) + bytes(size - 4)) == size
            came += self._collect(len(self._clients))
        return came / sent

    @contextmanager
    def going(self) -> Iterator[None]:
        """They go on by themselves while the context lasts, and leave others their share of an emulated machine."""
        over = threading.Event()

        def go() -> None:
            while not over.wait(0.2):
                self.send(1)

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(30)

    def _collect(self, expected: int) -> int:
        came, until = 0, time.monotonic() + 2
        while came < expected and (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select(self._clients, [], [], left)
            for client in ready:
                client.recv(2048)
                came += 1
        return came


@dataclass
class Seen:
    """What the witness saw of one gateway's SAs."""

    sas: dict[tuple[Direction, int], SA] = field(default_factory=dict)
    cpus: Sightings = field(default_factory=dict)

    def packets(self, direction: Direction, pcpu: int | None) -> Mapping[int, int]:
        """By CPU, of the SAs of a direction and CPU (None: the fallback SAs)."""
        found: dict[int, int] = {}
        for (way, spi), sa in self.sas.items():
            if way is direction and sa.pcpu == pcpu:
                for cpu, packets in self.cpus.get((way, spi), {}).items():
                    found[cpu] = found.get(cpu, 0) + packets
        return found

    def own_share(self, direction: Direction, least: int = 20) -> float:
        """The worst of all SAs by CPU with so many packets at least: those that its own CPU processed, of all."""
        shares = []
        for (way, spi), sa in self.sas.items():
            by_cpu = self.cpus.get((way, spi), {})
            if way is direction and sa.pcpu is not None and sum(by_cpu.values()) >= least:
                shares.append(by_cpu.get(sa.pcpu, 0) / sum(by_cpu.values()))
        assert shares, "no SA by CPU carried anything"
        return min(shares)

    def one_cpu_share(self, direction: Direction) -> float:
        """The worst of all SAs by CPU: packets that one and the same CPU processed, whichever it is."""
        counts = [
            self.cpus[way, spi].values()
            for (way, spi), sa in self.sas.items()
            if way is direction and sa.pcpu is not None and (way, spi) in self.cpus
        ]
        return min(max(count) / sum(count) for count in counts if sum(count) >= 20)

    def fallback_share(self, direction: Direction) -> float:
        """Packets on fallback SAs, of all."""
        total = sum(sum(self.cpus.get(name, {}).values()) for name in self.sas if name[0] is direction)
        return sum(self.packets(direction, None).values()) / total

    def working(self, direction: Direction) -> int:
        """How many SAs by CPU carried packets."""
        return sum(
            bool(self.cpus.get(name)) for name, sa in self.sas.items() if name[0] is direction and sa.pcpu is not None
        )

    def __str__(self) -> str:
        lines = [
            f"  {way} 0x{spi:08x} pcpu {self.sas[way, spi].pcpu}: {dict(self.cpus.get((way, spi), {}))}"
            for way, spi in sorted(self.sas)
        ]
        return "\n".join(lines)


@contextmanager
def watching(ns: Netns) -> Iterator[Seen]:
    """Fills in what was seen of the namespace's SAs at the end of its context."""
    seen = Seen()
    with witness() as looking:
        yield seen
        seen.cpus = looking.sightings()
    for sa in sas_of(ns):
        # Without a direction of its own, by its end: this gateway is the first on the WAN.
        way = sa.direction or (Direction.OUT if sa.src == wan_address(1, 4) else Direction.IN)
        seen.sas[way, sa.spi] = sa


def add_sas_by_cpu(topo: TwoGateways, *, cpus: int = 4, ports: bool = False) -> None:
    """A pair for each of the first CPUs, beside manual_keys()': as two IKE daemons would agree on, with CPUs alike.

    `ports`: ESP in UDP, each pair from a port of its own (4501 and on) to the NAT-T port, which listening() serves.
    """
    near, far = wan_address(1, 4), wan_address(2, 4)
    lines: dict[str, list[str]] = {"gw1": [], "gw2": []}
    for cpu in range(cpus):
        for spi, source, target in ((0x5000 + cpu, near, far), (0x6000 + cpu, far, near)):
            key = secrets.token_hex(20)
            for name, address in (("gw1", near), ("gw2", far)):
                way, window = ("out", 0) if source == address else ("in", 1024)
                encap = f" encap espinudp {4501 + cpu} 4500 0.0.0.0" if ports else ""
                lines[name].append(
                    f"xfrm state add src {source} dst {target} proto esp spi {spi:#x} reqid 1 mode tunnel"
                    f" replay-window {window} flag esn af-unspec aead rfc4106(gcm(aes)) 0x{key} 128"
                    f"{encap} dir {way} pcpu-num {cpu}"
                )
    for ns in (topo.gw1, topo.gw2):
        ns.run(["ip", "-batch", "-"], stdin="\n".join(lines[ns.name]) + "\n")


@contextmanager
def listening(*gateways: Netns) -> Iterator[None]:
    """A socket in each that takes ESP in UDP, as an IKE daemon's does (RFC 3948, linux/udp.h)."""
    made = []
    try:
        for ns in gateways:
            made.append(ns.socket(socket.AF_INET, socket.SOCK_DGRAM))
            made[-1].setsockopt(socket.IPPROTO_UDP, 100, 2)  # UDP_ENCAP: UDP_ENCAP_ESPINUDP
            made[-1].bind(("", 4500))
        yield
    finally:
        for each in made:
            each.close()


def fallback_share(topo: TwoGateways, flows: Flows, rounds: int = 10) -> float:
    """Packets of gw1 that went out on the fallback SA, of all."""
    with watching(topo.gw1) as seen:
        assert flows.send(rounds) > 0.99
    return seen.fallback_share(Direction.OUT)


def knobs(ns: Netns) -> dict[str, str]:
    """Every knob of steering in a namespace, as the kernel has it: masks, interrupts' CPUs, hashes, rules, programs."""
    shown = ns.run(
        ["sh", "-c", "grep -H . /sys/class/net/*/queues/*/[rx]ps_cpus /proc/irq/*/smp_affinity_list"], check=False
    )
    held = dict(line.split(":", 1) for line in shown.stdout.splitlines())
    for device in ("lan0", "wan0"):
        hashed = [("-n", device, "rx-flow-hash", kind) for kind in ("esp4", "udp4")]
        for asked in (("-x", device), ("-n", device), ("-k", device), *hashed):  # most devices have no table, no rules
            held[" ".join(asked)] = ns.run(["ethtool", *asked], check=False).stdout
    held["xdp"] = " ".join(w for w in ns.run(["ip", "-d", "link"]).stdout.split("\n") if "prog/xdp" in w)
    return held
