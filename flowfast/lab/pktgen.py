"""The kernel's packet generator: packets straight to a device (Documentation/networking/pktgen.rst).

With the guest booted with --icount a run's elapsed time is an exact count of instructions (measured.md).
"""

import ipaddress
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flowfast.lab.netns import LabError, Netns

PROC = Path("/proc/net/pktgen")


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: UDP with finished checksums, from port 9 to `port`, from `source` to `destination`.

    IPv4 only: `flows` destinations, from `destination` on, in bursts of `burst` packets a flow. `size` is that of the
    frame without its checksum, in bytes. IPv4's ID counts up over all flows, and DF is not set.
    """

    source: str
    destination: str
    mac: str  # of the next hop
    count: int
    size: int = 60
    flows: int = 1
    burst: int = 1
    device: str = "e0"
    port: int = 9

    def options(self) -> list[str]:
        """pktgen's commands for this load."""
        first = ipaddress.ip_address(self.destination)
        if first.version == 6 and self.flows > 1:
            raise LabError("pktgen makes several flows of IPv4 only")
        six = "6" if first.version == 6 else ""
        ends = (("src", 9), ("dst", self.port))
        options = [
            f"count {self.count}",
            f"pkt_size {self.size}",
            f"dst_mac {self.mac}",
            "delay 0",
            "clone_skb 0",
            "flag NO_TIMESTAMP",
            "flag UDPCSUM",
            *(f"udp_{end}_{limit} {port}" for end, port in ends for limit in ("min", "max")),
        ]
        if six:
            return [*options, f"src6 {self.source}", f"dst6 {self.destination}"]
        options += [f"src_min {self.source}", f"src_max {self.source}"]
        options += [f"dst_min {first}", f"dst_max {first + self.flows - 1}"]
        if self.flows > 1:
            options += ["flag FLOW_SEQ", f"flows {self.flows}", f"flowlen {self.burst}"]
        return options


@dataclass(frozen=True, slots=True)
class Result:
    """What the generator sent: packets, errors, and the seconds from its first to its last."""

    packets: int
    errors: int
    seconds: float

    @property
    def nanoseconds_per_packet(self) -> float:
        """Time per packet; instructions per packet under --icount. The generator's own are in it."""
        return self.seconds * 1e9 / self.packets


def parse_result(text: str) -> Result:
    """The result in a device's file in /proc/net/pktgen; LabError if the run did not end well."""
    result = re.search(r"Result: OK: (\d+)\(", text)
    sent = re.search(r"pkts-sofar: (\d+)\s+errors: (\d+)", text)
    if not result or not sent:
        said = re.search(r"Result: .*", text)
        raise LabError(f"pktgen: {said[0] if said else text.strip()[-200:]}")
    return Result(int(sent[1]), int(sent[2]), int(result[1]) / 1e6)


def _run(load: Load) -> str:
    """In the namespace: gives the device to the first thread, sets it up, runs it to its end.

    Each line has its end: before 6.15 pktgen read on behind what it was given, to the next blank.
    """
    thread, device = PROC / "kpktgend_0", PROC / load.device
    thread.write_text("rem_device_all\n")
    thread.write_text(f"add_device {load.device}\n")
    try:
        for option in load.options():
            try:
                device.write_text(f"{option}\n")
            except OSError as e:
                raise LabError(f"pktgen on {load.device}: {option!r}: {e.strerror}") from e
        (PROC / "pgctrl").write_text("start\n")
        return device.read_text()
    finally:
        thread.write_text("rem_device_all\n")


def pktgen(ns: Netns, load: Load, timeout: float = 300) -> Result:
    """Sends `load` from `ns`; returns when the last packet has been given to the device."""
    subprocess.run(["modprobe", "pktgen"], check=True, stdin=subprocess.DEVNULL)
    return parse_result(ns.call(_run, load, timeout=timeout))
