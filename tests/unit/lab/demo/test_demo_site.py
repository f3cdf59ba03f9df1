"""What the operator has written: flowfast reads its config, strongSwan's two ends mirror each other."""

from typing import Literal, get_args

import pytest

from flowfast.config.load import load
from flowfast.lab.demo.site import DRIVEN, TUNNELS, PartName, config, connection, costed

SIDES: tuple[Literal[1, 2], ...] = (1, 2)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("part", get_args(PartName))
def test_flowfast_reads_its_config(part: PartName, side: Literal[1, 2], tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "gw.yaml"
    path.write_text(config(part, side))
    loaded = load(str(path)).config
    assert list(loaded.tunnels) == [tunnel.name for tunnel in TUNNELS[part]]
    assert loaded.devices.lan == ("lan0",)
    assert loaded.exporter.per_sa


@pytest.mark.parametrize("part", get_args(PartName))
def test_the_ends_of_a_connection_mirror_each_other(part: PartName) -> None:
    left, right = connection(part, 1), connection(part, 2)
    assert (left.local, left.remote) == (right.remote, right.local)
    for ours, theirs in zip(left.children, right.children, strict=True):
        assert (ours.local_ts, ours.remote_ts) == (theirs.remote_ts, theirs.local_ts)
        assert len(ours.local_ts) == len(next(t for t in TUNNELS[part] if t.name == ours.name).families)
        assert (ours.if_id is None) == (part != "interface")
        assert theirs.hw_offload == "no"


def test_one_of_two_tunnels_through_the_same_nic_is_encrypted_by_it() -> None:
    assert [(child.name, child.hw_offload) for child in connection("offload", 1).children] == [
        ("oslo", "packet"),
        ("rome", "no"),
    ]
    oslo, rome = TUNNELS["offload"]
    assert (oslo.network(1, 4), rome.network(1, 4)) == ("10.1.0.0/24", "10.1.1.0/24")
    assert (oslo.host(2, 4), rome.host(2, 4)) == ("10.2.0.2", "10.2.1.2")
    assert [words for words, _ in costed("offload")] == ["oslo, ESP by the NIC", "rome, ESP by the CPU"]
    assert DRIVEN["offload"] == (1,)
