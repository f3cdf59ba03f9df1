"""XDP behind a driver that has none of its own (e1000e): as exact as in one that has."""

import subprocess
import time
from pathlib import Path

import pytest

from flowfast.lab.wires import nic_pairs
from tests.guest.steered_site import steered

pytestmark = [
    pytest.mark.guest(images=["debian14"], nics=3, cpus=4, nic_model="e1000e"),
    pytest.mark.long(seconds=150),
]


def test_each_sa_is_processed_on_its_cpu(tmp_path: Path) -> None:
    subprocess.run(["modprobe", "e1000e"], check=True)
    while len(nic_pairs()) < 3:
        time.sleep(0.1)
    for site in steered("nic xdp rps", tmp_path):
        assert "xdpgeneric" in site.topo.gw1.run(["ip", "-d", "link", "show", "wan0"]).stdout
        site.holds()
