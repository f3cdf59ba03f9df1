"""`flowfast apply` with bulking: what needs the shield is on when the command has ended."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowfast.apply import journal
from flowfast.cli import cli, lock
from flowfast.kernel.arrivals import FakeArrivals
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.features import FakeBulk
from flowfast.kernel.knobs import FakeKnobs
from flowfast.kernel.links import FakeLinks
from flowfast.kernel.nft import FakeNft
from flowfast.kernel.system import FakeSystem
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.model.bulk import HELD, Arrival, DeviceKnobs, Stage
from flowfast.model.knob import Knob, KnobKind
from flowfast.model.link import Link
from flowfast.model.sa import Direction
from tests.unit.plan.router import LAN, PEER, US, WAN, policies

FOUND = {"rx-gro": "on", "rx-gro-list": "off", "rx-udp-gro-forwarding": "off", "shield": "off"}


class Devices(FakeBulk):
    """What devices do is what their knobs are turned to. `holds`: the shield cannot be taken off by a slip."""

    def __init__(self, knobs: FakeKnobs, holds: bool) -> None:
        super().__init__()
        self._turned, self._holds = knobs, holds

    def look(self, links: Iterable[Link]) -> Mapping[str, DeviceKnobs]:
        found: dict[str, dict[str, str]] = {link.name: {} for link in links}
        for knob, value in self._turned.values.items():
            found[knob.object][knob.name] = value
        for values in found.values():
            if values.get("shield") == "on":
                values[HELD] = "on" if self._holds else "off"
        return {name: DeviceKnobs(values) for name, values in found.items()}


@pytest.mark.parametrize(("holds", "stage"), [(False, Stage.UDP), (True, Stage.LIST)])
def test_apply_ends_with_the_stage_that_needs_the_shield(
    holds: bool, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = FakeKnobs()
    for link in (LAN, WAN):
        for name, value in FOUND.items():
            kind = KnobKind.SHIELD if name == "shield" else KnobKind.FEATURE
            knobs.values[Knob(kind, link.name, name)] = value
    devices = Devices(knobs, holds)
    kernel = FakeKernel(
        xfrm=FakeXfrm([make_sa(US, PEER), make_sa(PEER, US, direction=Direction.IN)], policies()),
        links=FakeLinks([replace(link, driver="virtio_net") for link in (LAN, WAN)]),
        nft=FakeNft(devices={"lan0", "wan0"}),
        system=FakeSystem(
            sysctls={"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"},
            modules=["esp4_offload"],
            release="7.2.12+deb14-amd64",
        ),
        knobs=knobs,
        bulk=devices,
        arrivals=FakeArrivals({"lan0": Arrival(100, 0), "wan0": Arrival(100, 0)}),
    )
    for module in ("common", "apply"):
        monkeypatch.setattr(f"flowfast.cli.{module}.real_kernel", lambda: kernel)
    monkeypatch.setattr(lock, "NAME", f"\0flowfast-test-{id(kernel)}")
    monkeypatch.setattr(journal, "FOLDER", tmp_path / "run")
    config = tmp_path / "site.yaml"
    config.write_text("devices: {lan: [lan0], wan: [wan0]}\nbulk: {profile: auto}\n")
    done = CliRunner().invoke(cli, ["apply", str(config), "--yes"])
    assert done.exit_code == 0, done.output
    assert devices.look([LAN, WAN])["lan0"].stage is stage
