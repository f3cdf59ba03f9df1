"""What the operator has written: flowfast reads its config, strongSwan's two ends mirror each other."""

from typing import Literal, get_args

import pytest

from flowfast.config.load import load
from flowfast.lab.demo.site import TUNNELS, PartName, config, connection

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
        assert (ours.if_id is None) == (part == "policy")
