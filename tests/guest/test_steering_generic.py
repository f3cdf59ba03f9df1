"""XDP behind a driver that has none of its own (e1000e): as exact as in one that has."""

from pathlib import Path

import pytest

from tests.guest.steered_site import steered

pytestmark = [
    pytest.mark.guest(images=["debian14"], nics=3, cpus=4, nic_model="e1000e"),
    pytest.mark.long(seconds=150),
]


def test_each_sa_is_processed_on_its_cpu(tmp_path: Path) -> None:
    for site in steered("nic xdp rps", tmp_path):
        assert "xdpgeneric" in site.topo.gw1.run(["ip", "-d", "link", "show", "wan0"]).stdout
        site.holds()
