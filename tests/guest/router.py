"""A gateway of the lab that runs flowfast as an operator would: `flowfast run CONFIG` in its namespace."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

from flowfast.lab.netns import Netns
from tests.guest.oneshot import metrics

COMMAND = ("python3", "-m", "flowfast")
START = 300.0
"""Seconds until the first round must be done: interpreter, imports and probing, emulated."""


class Router:
    """flowfast in a namespace, while `with Router(gw1, config, folder)` lasts; at the end nothing of it is left."""

    def __init__(self, ns: Netns, config: str, folder: Path) -> None:
        self.ns = ns
        self.config = folder / f"{ns.name}.yaml"
        self.config.write_text(config)
        self.log = folder / f"{ns.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.stop()
        self.ns.run([*COMMAND, "apply", "--remove"])

    def start(self) -> None:
        """Starts `flowfast run` and waits until its first round is served."""
        with self.log.open("ab") as log:
            self.process = self.ns.popen([*COMMAND, "run", str(self.config)], stdout=log, stderr=log)
        deadline = time.monotonic() + START
        while True:
            assert self.process.poll() is None, f"flowfast ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"no first round within {START} s: {self.log.read_text()}"
            if "flowfast_reconcile_last_success_timestamp_seconds " in self.metrics():
                return
            time.sleep(0.5)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it with a signal, and returns its exit code."""
        assert self.process is not None
        # `ip netns exec` becomes the program that it starts: the process is flowfast itself.
        os.kill(self.process.pid, how)
        code = self.process.wait(30)
        self.process = None
        return code

    def flowfast(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs another command of flowfast's here: beside traffic, and emulated, so it may take a while."""
        return self.ns.run([*COMMAND, *arguments], check=check, timeout=180)

    def metrics(self) -> str:
        """What the exporter says, empty while it does not answer."""
        return self.ns.call(metrics)

    def nft(self, *arguments: str) -> str:
        """What nft prints."""
        return self.ns.run(["nft", *arguments]).stdout

    def counters(self) -> dict[str, tuple[int, int]]:
        """Named counters of table inet flowfast: (packets, bytes)."""
        listed = json.loads(self.nft("-j", "list", "counters"))["nftables"]
        return {
            each["counter"]["name"]: (each["counter"]["packets"], each["counter"]["bytes"])
            for each in listed
            if "counter" in each and each["counter"]["family"] == "inet"
        }

    def full_path_packets(self) -> int:
        """Packets of all tunnels that the forward chain saw."""
        return sum(packets for name, (packets, _) in self.counters().items() if name.startswith(("in_", "out_")))

    def offloaded(self) -> list[str]:
        """Connections that conntrack says are on the flowtable."""
        return [line for line in self.ns.run(["conntrack", "-L"]).stdout.splitlines() if "[OFFLOAD]" in line]

    def rules(self) -> str:
        """The whole ruleset without counts, but with handles: they change when anything is made anew."""
        return self.nft("-a", "-s", "list", "ruleset")


def router_samples(text: str) -> dict[str, float]:
    """Series of a page of metrics, with their labels as written."""
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
