"""Segments of TCP that fit a tunnel: larger packets would leave the flowtable, and nobody would notice."""

import socket
from pathlib import Path

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.topology import BOTH, Family, TwoGateways, two_gateways
from flowfast.lab.traffic import family_of, tcp_transfer
from tests.guest.oneshot import FullPath, apply, meet

pytestmark = [pytest.mark.guest(images=["debian14"], nics=3), pytest.mark.long]


def offered(topo: TwoGateways, family: Family) -> int:
    """The largest segment that h2 sends to h1 in a new TCP connection of h1's."""
    address = topo.host_address(2, family)
    kind = family_of(address)
    with topo.h2.socket(kind, socket.SOCK_STREAM) as listener, topo.h1.socket(kind, socket.SOCK_STREAM) as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, 9100))
        listener.listen(1)
        client.settimeout(10)
        client.connect((address, 9100))
        server, _ = listener.accept()
        with server:
            segment: int = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    return segment


def test_segments_fit_the_tunnel_from_the_first_on(tmp_path: Path) -> None:
    """Hosts with an MTU of 1500, a policy-based tunnel that carries 1446 bytes: with and without clamping.

    What our side says is clamped here, what the other side says is so at the other gateway: this one has no flowfast,
    and h1 learns its MSS from the full path.
    """
    config = tmp_path / "site.yaml"
    with two_gateways("policy") as topo:
        manual_keys(topo)
        meet(topo)
        for clamp, fits in (("true", True), ("false", False)):  # in this order: hosts remember too small an MTU
            config.write_text(f"devices: {{lan: [lan0], wan: [wan0]}}\noffload: {{clamp_mss: {clamp}}}\n")
            apply(topo.gw1, str(config))
            for family, headers in zip(BOTH, (40, 60), strict=True):
                assert (offered(topo, family) <= 1446 - headers) == fits
                for client, server, side in ((topo.h1, topo.h2, 2), (topo.h2, topo.h1, 1)):
                    with FullPath(topo.gw1) as seen:
                        assert tcp_transfer(client, server, topo.host_address(side, family), 1_000_000).intact
                    print(f"clamp_mss {clamp}, IPv{family} to h{side}: {seen.packets} packets on the full path")
                    if fits:
                        assert seen.packets < 20
