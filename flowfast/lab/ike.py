"""strongSwan in the lab: one daemon a gateway, several in one guest, driven by swanctl.

Each has its own strongswan.conf, vici socket and log in a folder of its own, so that they need no mount namespaces.
The shared key is made at run time and stays in that folder, which only root can enter.
"""

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from flowfast.lab.hub import HubAndSpokes
from flowfast.lab.manual_keys import Peered
from flowfast.lab.netns import WAIT, LabError, Netns
from flowfast.lab.swanctl import Child, Connection, parse_raw, render, swanctl_conf
from flowfast.lab.topology import Family, Peering, TwoGateways, wan_address

# Few plugins: each costs time to load, under emulation. Those that a version lacks are passed over: 5.9 splits out of
# openssl what later versions have in it.
DAEMON_PLUGINS = "random nonce openssl gcm aes hmac sha2 kdf vici kernel-netlink socket-default"
START = 30.0
"""Seconds until a daemon must have opened its vici socket."""


@dataclass(frozen=True, slots=True)
class ChildSa:
    """One CHILD_SA as the daemon sees it; SPIs in host order, bytes and packets by direction."""

    name: str
    unique_id: int
    state: str
    mode: str
    reqid: int
    spi_in: int
    spi_out: int
    if_id_in: int | None
    cpu: int | None
    encap: bool
    bytes_in: int
    bytes_out: int
    packets_in: int
    packets_out: int


def _child_sa(fields: dict[str, Any]) -> ChildSa:
    return ChildSa(
        name=fields["name"],
        unique_id=int(fields["uniqueid"]),
        state=fields["state"],
        mode=fields.get("mode", ""),
        reqid=int(fields["reqid"]),
        spi_in=int(fields.get("spi-in", "0"), 16),
        spi_out=int(fields.get("spi-out", "0"), 16),
        if_id_in=int(fields["if-id-in"], 16) if "if-id-in" in fields else None,
        cpu=int(fields["cpu"]) if "cpu" in fields else None,
        encap=fields.get("encap") == "yes",
        bytes_in=int(fields.get("bytes-in", 0)),
        bytes_out=int(fields.get("bytes-out", 0)),
        packets_in=int(fields.get("packets-in", 0)),
        packets_out=int(fields.get("packets-out", 0)),
    )


class Daemon:
    """charon in a namespace: `with Daemon(gw1, (connection,), secret) as ike: ike.initiate("net0")`."""

    def __init__(self, ns: Netns, connections: tuple[Connection, ...], secret: str) -> None:
        self.ns = ns
        self.connections = connections
        self._secret = secret
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        self.load()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the daemon, returns when it answers."""
        self.folder = Path(self._stack.enter_context(TemporaryDirectory(prefix=f"ike-{self.ns.name}-", dir="/run")))
        (self.folder / "strongswan.conf").write_text(
            render(
                {
                    "charon-systemd": {
                        "load": DAEMON_PLUGINS,
                        "install_routes": False,
                        "threads": 8,
                        # Seconds for which the old inbound SA is kept after a rekey: 5 unless said.
                        "delete_rekeyed_delay": 1,
                        "journal": {"default": -1},
                        "filelog": {"lab": {"path": str(self.log), "flush_line": True, "default": 1}},
                        "plugins": {"vici": {"socket": self.uri}},
                    },
                    "swanctl": {"load": "nonce"},
                }
            )
        )
        environment = {
            **os.environ,
            "STRONGSWAN_CONF": str(self.folder / "strongswan.conf"),
            "SWANCTL_DIR": str(self.folder),
        }
        with (self.folder / "output").open("wb") as output:
            command = ["/usr/sbin/charon-systemd"]
            self._process = self.ns.popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START
        while not (self.folder / "vici").exists():
            if self._process.poll() is not None:
                raise self._error(f"the daemon ended with exit code {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._error(f"the daemon did not start within {START:g} s")
            time.sleep(0.05)

    @property
    def uri(self) -> str:
        """Of the vici socket."""
        return f"unix://{self.folder}/vici"

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.folder / "log"

    def _error(self, sentence: str) -> LabError:
        log = self.log if self.log.exists() else self.folder / "output"
        tail = "\n".join("    " + line for line in log.read_text(errors="replace").splitlines()[-25:])
        return LabError(f"strongSwan in {self.ns.name}: {sentence}; its log said:\n{tail}")

    def _swanctl(self, *arguments: str, timeout: float = WAIT) -> str:
        environment = {"STRONGSWAN_CONF": str(self.folder / "strongswan.conf")}
        command = ["swanctl", *arguments, "--uri", self.uri]
        done = self.ns.run(command, check=False, environment=environment, timeout=timeout)
        if done.returncode != 0:
            raise self._error(f"swanctl {' '.join(arguments)}: {(done.stderr + done.stdout).strip()}")
        return done.stdout

    def load(self, connections: tuple[Connection, ...] | None = None) -> None:
        """Loads the connections and the shared key; others than before, if `connections` are given."""
        if connections is not None:
            self.connections = connections
        conf = self.folder / "swanctl.conf"
        conf.touch(mode=0o600)
        conf.write_text(swanctl_conf(self.connections, self._secret))
        self._swanctl("--load-all", "--noprompt", "--file", str(conf))

    def initiate(self, child: str, timeout: float = 30) -> None:
        """Brings up the child, and its IKE SA if need be; returns when it is there."""
        self._swanctl("--initiate", "--child", child, "--timeout", f"{timeout:g}", timeout=timeout + 10)

    def rekey(self, child: str) -> None:
        """Has the child rekeyed: new SAs, then the old ones deleted. Returns at once, see wait_rekeyed()."""
        self._swanctl("--rekey", "--child", child)

    def wait_rekeyed(self, child: str, old: set[int], timeout: float = 30) -> ChildSa:
        """Waits until the child has an SA whose inbound SPI is not in `old`, and only that one; returns it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            now = [sa for sa in self.list_sas() if sa.name == child]
            if len(now) == 1 and now[0].state == "INSTALLED" and now[0].spi_in not in old:
                return now[0]
            time.sleep(0.1)
        raise self._error(f"{child} was not rekeyed within {timeout:g} s")

    def terminate(self, child: str) -> None:
        """Takes the child down."""
        self._swanctl("--terminate", "--child", child)

    def list_sas(self) -> list[ChildSa]:
        """All CHILD_SAs, those of a per-CPU child one by one."""
        messages = parse_raw(self._swanctl("--list-sas", "--raw"))
        sas = [sa for name, content in messages if name == "list-sa" for sa in content.values()]
        return [_child_sa(child) for sa in sas for child in sa.get("child-sas", {}).values()]

    def stop(self) -> None:
        """Ends the daemon, which takes its SAs and policies with it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._stack.close()


def connections(
    peering: Peering, outer: Family = 4, encap: bool = False, **options: Any
) -> tuple[Connection, Connection]:
    """The connection of either end of a peering: a child per tunnel. `options` go to every Child."""
    left, right = (wan_address(side, outer) for side in peering.sides)
    ours = tuple(Child(t.name, t.local, t.remote, if_id=t.if_id, **options) for t in peering.tunnels)
    theirs = tuple(Child(t.name, t.remote, t.local, if_id=t.if_id, **options) for t in peering.tunnels)
    return (
        Connection(peering.name, left, right, ours, encap=encap),
        Connection(peering.name, right, left, theirs, encap=encap),
    )


@contextmanager
def _daemons(topology: Peered, initiate: bool, **options: Any) -> Iterator[list[Daemon]]:
    """strongSwan in every namespace that has SAs, in the order of the peerings, the left end first."""
    secret = secrets.token_urlsafe(32)
    by_netns: dict[Netns, tuple[Connection, ...]] = {}
    for peering in topology.peerings:
        for ns, connection in zip((peering.left, peering.right), connections(peering, **options), strict=True):
            by_netns[ns] = (*by_netns.get(ns, ()), connection)
    with ExitStack() as stack:
        daemons = {ns: stack.enter_context(Daemon(ns, conns, secret)) for ns, conns in by_netns.items()}
        for peering in topology.peerings if initiate else ():
            for tunnel in peering.tunnels:
                daemons[peering.left].initiate(tunnel.name)
        yield list(daemons.values())


@contextmanager
def two_daemons(
    topology: TwoGateways, outer: Family = 4, encap: bool = False, initiate: bool = True, **options: Any
) -> Iterator[tuple[Daemon, Daemon]]:
    """strongSwan on both gateways, all tunnels up (with `initiate`).

    `options`: as in Child (rekey_time, start_action, per_cpu_sas, ...).
    `outer`: the family of the gateways' addresses; `encap` forces ESP in UDP.
    """
    with _daemons(topology, initiate, outer=outer, encap=encap, **options) as (left, right):
        yield left, right


@contextmanager
def hub_daemons(
    topology: HubAndSpokes, outer: Family = 4, initiate: bool = True, **options: Any
) -> Iterator[tuple[Daemon, list[Daemon]]]:
    """strongSwan on the hub and on every spoke; `options` as in two_daemons()."""
    with _daemons(topology, initiate, outer=outer, **options) as (hub, *spokes):
        yield hub, spokes
