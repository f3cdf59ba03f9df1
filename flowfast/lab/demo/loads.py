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


ALL = (Load("TCP", 4_000_000), Load("UDP, 100 bytes", 400_000, 100))
LOADS: Mapping[PartName, tuple[Load, ...]] = {
    "policy": ALL,
    "interface": ALL,
    "offload": (Load("TCP", 4_000_000),),
}
"""Few: three guests share the cores of a small machine, and what a load costs is mostly that iperf3 starts. The fewest
where the question is who does ESP."""
AFTER_KILL = Load("TCP, controllers killed", 3_000_000)


def iperf3(address: str, port: int, load: Load) -> list[str]:
    """The command of the client."""
    # In steps of 0.1 s: iperf3 looks only then whether everything was sent.
    command = ["iperf3", "--json", "--interval", "0.1", "--client", address, "--port", str(port)]
    command += ["--bytes", str(load.size)]
    return command if load.payload is None else [*command, "--udp", "--bitrate", "0", "--length", str(load.payload)]
