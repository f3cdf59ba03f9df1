"""What is sent: the loads, and iperf3's command for each."""

from collections.abc import Mapping
from dataclasses import dataclass

from flowfast.lab.demo.site import PartName


@dataclass(frozen=True, slots=True)
class Load:
    """`size` bytes of payload by iperf3; with `payload`, as UDP packets of that size, as fast as they go."""

    name: str
    size: int
    payload: int | None = None


ALL = (Load("TCP", 6_000_000), Load("UDP, 1300 bytes", 5_000_000, 1300), Load("UDP, 100 bytes", 600_000, 100))
LOADS: Mapping[PartName, tuple[Load, ...]] = {
    "policy": ALL,
    "interface": ALL,
    "offload": (Load("TCP", 3_000_000), Load("UDP, 100 bytes", 300_000, 100)),
}
"""Fewer and smaller ones where the question is who does ESP: three guests share the cores of a small machine."""
AFTER_KILL = Load("TCP, controllers killed", 6_000_000)


def iperf3(address: str, port: int, load: Load) -> list[str]:
    """The command of the client."""
    # In steps of 0.1 s: iperf3 looks only then whether everything was sent.
    command = ["iperf3", "--json", "--interval", "0.1", "--client", address, "--port", str(port)]
    command += ["--bytes", str(load.size)]
    return command if load.payload is None else [*command, "--udp", "--bitrate", "0", "--length", str(load.payload)]
