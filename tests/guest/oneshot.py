"""What the tests of templates, peers and NAT share: flowfast's commands, and a count of the full path.

The commands run in a fork of the test's process, which has everything imported already: a new interpreter costs
seconds under emulation.
"""

import io
import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from flowfast.cli import cli
from flowfast.lab.netns import Netns, enter
from flowfast.lab.topology import TwoGateways, settle
from flowfast.lab.traffic import family_of
from flowfast.model.errors import FlowfastError

WATCH = """
table inet watch {
  counter forwarded { }
  chain forward { type filter hook forward priority filter; policy accept; counter name forwarded; }
}
"""


def invoke(arguments: tuple[str, ...]) -> tuple[int, str]:
    """Runs `flowfast ARGUMENTS` in this process: exit code, and what it prints."""
    try:
        result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    except FlowfastError as error:
        return error.exit_code, str(error)
    return result.exit_code, result.stdout if result.exit_code == 0 or not result.stderr else result.output


def command(ns: Netns, *arguments: str) -> tuple[int, str]:
    """Exit code of `flowfast ARGUMENTS` in a namespace, and what it prints."""
    code, said = ns.call(invoke, arguments, timeout=120)
    return code, said


def flowfast(ns: Netns, *arguments: str) -> str:
    """What `flowfast ARGUMENTS` prints in a namespace, where it must succeed."""
    code, said = command(ns, *arguments)
    assert code == 0, f"flowfast {' '.join(arguments)}: exit code {code}: {said}"
    return said


@dataclass(frozen=True, slots=True)
class Applied:
    """What `flowfast apply --json` said."""

    said: dict[str, Any]

    @property
    def reasons(self) -> set[str]:
        """Codes of all reasons."""
        return {reason["code"] for reason in self.said["reasons"]}

    def fast(self, direction: str) -> set[bool]:
        """Whether the tunnels are fast in a direction ("tx", "rx")."""
        return {path[direction]["fast"] for path in self.said["paths"]}


def apply(ns: Netns, config: str, **settings: str) -> Applied:
    """`flowfast apply CONFIG --set NAME=VALUE ...` in a namespace."""
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return Applied(json.loads(flowfast(ns, "apply", config, "--json", *options)))


class FullPath:
    """Counts what the forward chains of a namespace see: `with FullPath(gw1) as seen: ...; seen.packets`."""

    def __init__(self, ns: Netns) -> None:
        self.ns = ns
        self.packets = 0

    def __enter__(self) -> "FullPath":
        self._before = self._count()
        return self

    def __exit__(self, *_: object) -> None:
        self.packets = self._count() - self._before

    def _count(self) -> int:
        if "table inet watch" not in self.ns.run(["nft", "list", "tables"]).stdout:
            self.ns.run(["nft", "-f", "-"], stdin=WATCH)
        listed = self.ns.run(["nft", "list", "counter", "inet", "watch", "forwarded"]).stdout
        return int(listed.split("packets")[1].split()[0])


def meet(topo: TwoGateways) -> None:
    """Waits until the hosts reach each other, and all neighbours are known: a flow is not added before."""
    settle(*((topo.h1, topo.host_address(2, family)) for family in topo.families))


def to_and_fro(
    client: Netns,
    server: Netns,
    address: str,
    *,
    source: str = "",
    at: str = "",
    port: int = 7,
    tos: int = 0,
    rounds: int = 300,
    patience: float = 10,
) -> int:
    """UDP packets there and back, one after the other, so that a slow machine has no more under way than a fast one.

    Each must arrive, and its answer, within `patience` seconds: TimeoutError. `at` is where the server listens, if NAT
    makes that another address. Returns the client's port.
    """
    family = family_of(address)
    with server.socket(family, socket.SOCK_DGRAM) as answering, client.socket(family, socket.SOCK_DGRAM) as asking:
        answering.bind((at or address, port))
        asking.bind((source, 0))
        asking.connect((address, port))
        if tos:
            asking.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        for one in (asking, answering):
            one.settimeout(patience)
        for number in range(rounds):
            payload = str(number).encode().ljust(300, b".")
            asking.send(payload)
            arrived, sender = answering.recvfrom(2048)
            assert arrived == payload
            answering.sendto(arrived, sender)
            assert asking.recv(2048) == payload
        ours: int = asking.getsockname()[1]
    return ours


@contextmanager
def tcp_chat(
    client: Netns, server: Netns, source: str, address: str, *, source_port: int, port: int = 8
) -> Iterator[None]:
    """A TCP connection that says something ten times a second and is answered."""
    family, done = family_of(address), threading.Event()
    with server.socket(family, socket.SOCK_STREAM) as listener, client.socket(family, socket.SOCK_STREAM) as ours:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(1)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind((source, source_port))
        ours.connect((address, port))
        theirs, _ = listener.accept()

        def talk() -> None:
            while not done.wait(0.1):
                ours.send(b"?")
                theirs.send(theirs.recv(100))
                ours.recv(100)

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(5)
            theirs.close()


def offloaded(ns: Netns) -> list[str]:
    """Connections that conntrack says are on the flowtable."""
    listed = ns.run(["conntrack", "-L"]).stdout + ns.run(["conntrack", "-L", "-f", "ipv6"]).stdout
    return [line for line in listed.splitlines() if "[OFFLOAD]" in line]


class Controller:
    """`flowfast run CONFIG` in a namespace, in a fork of this process; what it says is in `log`."""

    def __init__(self, ns: Netns, config: str, log: Path) -> None:
        self.ns, self.config, self.log = ns, config, log
        self._process: BaseProcess | None = None

    def start(self) -> None:
        """Starts it, and returns after its first round."""
        arguments = (self.ns.name, self.config, self.log)
        self._process = multiprocessing.get_context("fork").Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        deadline = time.monotonic() + 120
        while "flowfast_reconcile_last_success_timestamp_seconds " not in self.ns.call(metrics):
            self.check()
            assert time.monotonic() < deadline, f"no first round: {self.said()}"
            time.sleep(0.5)

    def check(self) -> None:
        """Fails where it has ended by itself."""
        assert self._process is not None
        assert self._process.is_alive(), f"flowfast ended with {self._process.exitcode}: {self.said()}"

    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    def hang_up(self) -> None:
        """Has it read its config again (SIGHUP)."""
        self._signal(signal.SIGHUP)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it with a signal, if it runs."""
        if self._process is not None:
            if self._process.is_alive():
                self._signal(how)
            self._process.join(30)
            self._process = None

    def _signal(self, what: signal.Signals) -> None:
        assert self._process is not None
        assert self._process.pid is not None
        os.kill(self._process.pid, what)


@contextmanager
def running(ns: Netns, config: str, log: Path) -> Iterator[None]:
    """`flowfast run CONFIG` in a namespace, from its first round on; what it says is in `log`."""
    controller = Controller(ns, config, log)
    try:
        controller.start()
        yield
        controller.check()
    finally:
        controller.stop()


def _run(name: str, config: str, log: Path) -> None:
    with log.open("ab", buffering=0) as to:
        os.dup2(to.fileno(), 1)
        os.dup2(to.fileno(), 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(to, line_buffering=True)
        enter(name)
        # The reports of the test's process must not come from here, nor its handlers of the log.
        logging.getLogger().handlers.clear()
        cli(["run", config], standalone_mode=False)


def metrics() -> str:
    """The exporter's page, empty while it does not answer."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:9833/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""
