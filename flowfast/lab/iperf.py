"""iperf3 between two namespaces, and its report."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flowfast.lab.netns import LabError, Netns


@dataclass(frozen=True, slots=True)
class IperfResult:
    """One iperf3 test, as the receiver counted: payload bytes, seconds, bits a second. UDP only: packets and losses."""

    bytes: int
    seconds: float
    bits_per_second: float
    retransmits: int | None
    packets: int | None
    lost_packets: int | None
    jitter_ms: float | None


def parse_iperf3(text: str) -> IperfResult:
    """The result in what `iperf3 -J` printed at the client; LabError with iperf3's own words if it failed."""
    try:
        report = json.loads(text)
    except ValueError:
        raise LabError(f"iperf3 printed no JSON: {text.strip()[:200]!r}") from None
    if "error" in report:
        raise LabError(f"iperf3: {report['error']}")
    end = report["end"]
    received = end.get("sum_received") or end["sum"]
    udp = report["start"]["test_start"]["protocol"] == "UDP"
    return IperfResult(
        bytes=received["bytes"],
        seconds=received["seconds"],
        bits_per_second=received["bits_per_second"],
        retransmits=end.get("sum_sent", {}).get("retransmits"),
        packets=end["sum"]["packets"] if udp else None,
        lost_packets=end["sum"]["lost_packets"] if udp else None,
        jitter_ms=end["sum"]["jitter_ms"] if udp else None,
    )


@contextlib.contextmanager
def iperf3_server(ns: Netns, address: str, port: int = 5201) -> Iterator[None]:
    """An iperf3 server, listening when this returns, for as many tests as wanted."""
    command = ["iperf3", "--server", "--bind", address, "--port", str(port), "--forceflush"]
    server = ns.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert server.stdout is not None  # noqa: S101 - for the type checker
        said = b""
        while b"listening" not in said:
            line = server.stdout.readline()
            if not line:
                raise LabError(f"{ns.name}: iperf3 did not start: {said.decode(errors='replace').strip()}")
            said += line
        drain = threading.Thread(target=server.stdout.read, daemon=True)
        drain.start()
        yield
    finally:
        server.kill()
        server.wait()


def iperf3_client(
    ns: Netns,
    address: str,
    *,
    seconds: float | None = None,
    size: int | None = None,
    udp: bool = False,
    bitrate: str | None = None,
    reverse: bool = False,
    parallel: int = 1,
    length: int | None = None,
    port: int = 5201,
) -> IperfResult:
    """Runs one test against a server: for `seconds`, or `size` bytes. `bitrate` as iperf3 takes it ("20M"); `reverse`
    has the server send; `length` is that of a write, of a UDP payload."""
    command = ["iperf3", "--json", "--client", address, "--port", str(port), "--parallel", str(parallel)]
    command += ["--bytes", str(size)] if size is not None else ["--time", f"{seconds or 5:g}"]
    command += ["--udp"] if udp else []
    command += ["--bitrate", bitrate] if bitrate else []
    command += ["--reverse"] if reverse else []
    command += ["--length", str(length)] if length else []
    done = ns.run(command, check=False, timeout=(seconds or 5) + 120)
    return parse_iperf3(done.stdout or json.dumps({"error": done.stderr.strip()}))


def iperf3(client: Netns, server: Netns, address: str, **options: Any) -> IperfResult:
    """A server and one test against it; `options` as in iperf3_client()."""
    with iperf3_server(server, address):
        return iperf3_client(client, address, **options)
