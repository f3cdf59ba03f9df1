"""Bulking on a real kernel: what is read is what ethtool says; knobs are turned, and brought back after kill -9."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowfast.apply.knobs import KnobJournal
from flowfast.kernel import bpffs
from flowfast.kernel.arrivals import RealArrivals
from flowfast.kernel.features import RealBulk
from flowfast.kernel.knobs import RealKnobs
from flowfast.kernel.links import RealLinks
from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.netns import Netns
from flowfast.lab.nodes import Device, set_up
from flowfast.lab.topology import TwoGateways, two_gateways
from flowfast.lab.wires import End, Veth
from flowfast.model.bulk import HELD, Arrival, DeviceKnobs, Stage
from flowfast.model.errors import KernelError
from flowfast.model.knob import Knob, KnobKind, Turned

pytestmark = pytest.mark.guest(images=["debian14"], nics=3)

LIST = Knob(KnobKind.FEATURE, "lan0", "rx-gro-list")
SHIELD = Knob(KnobKind.SHIELD, "lan0", "shield")
CHECKSUM = Knob(KnobKind.FEATURE, "lan0", "rx-checksum")
EMPTY = '{"version": 1, "turned": []}'
CONFIG = """
devices: {lan: [lan0], wan: [wan0]}
bulk: {profile: throughput, accept: [unqualified, unfinished-checksums]}
"""


@pytest.fixture(scope="module")
def topo() -> Iterator[TwoGateways]:
    with two_gateways("policy", "nic") as built:
        manual_keys(built)
        yield built


def look() -> dict[str, DeviceKnobs]:
    return dict(RealBulk().look(asyncio.run(RealLinks().links())))


def journal_path() -> Path:
    return KnobJournal().path


def turned() -> dict[Knob, Turned]:
    return KnobJournal().read()


def turn(knob: Knob, value: str) -> str | None:
    try:
        RealKnobs().turn(knob, value)
    except KernelError as refused:
        return str(refused)
    return None


def as_ethtool_says(ns: Netns, device: str) -> dict[str, str]:
    parted = (line.partition(":") for line in ns.run(["ethtool", "-k", device]).stdout.splitlines()[1:])
    return {name.strip(): value.strip() for name, _, value in parted}


def test_features_are_read_and_turned_as_ethtool_says(topo: TwoGateways) -> None:
    gw1 = topo.gw1
    before, said = gw1.call(look)["lan0"], as_ethtool_says(gw1, "lan0")
    names = {"rx-gro": "generic-receive-offload", "rx-gro-list": "rx-gro-list", "rx-checksum": "rx-checksumming"}
    for name, ethtools in names.items():
        assert said[ethtools] == before.values[name] + (" [fixed]" if name in before.fixed else "")
    assert before.stage is Stage.GRO
    assert gw1.call(turn, LIST, "on") is None
    assert as_ethtool_says(gw1, "lan0")["rx-gro-list"] == "on"
    assert gw1.call(look)["lan0"].stage is Stage.LIST
    assert gw1.call(turn, LIST, "off") is None
    assert gw1.call(look)["lan0"] == before


@pytest.mark.long
def test_what_the_kernel_takes_and_does_not_do_is_refused(topo: TwoGateways) -> None:
    assert "rx-checksum" in topo.gw1.call(look)["lan0"].fixed
    assert "lan0: rx-checksum stays on" in (topo.gw1.call(turn, CHECKSUM, "off") or "")


def values(ns: Netns) -> dict[str, dict[str, str]]:
    return {device: dict(knobs.values) for device, knobs in ns.call(look).items()}


def waits(knobs: DeviceKnobs) -> set[str]:
    """How long each NAPI of the device has packets wait."""
    return {knobs.values[name] for name in knobs.napi("gro_flush_timeout")}


def test_nobody_takes_the_shield_off_by_a_slip(topo: TwoGateways) -> None:
    """Fraglist GRO without it kills the kernel. Whoever put it there is gone by the time that anybody tries."""
    gw1 = topo.gw1
    assert gw1.call(turn, SHIELD, "on") is None
    assert [gw1.call(look)["lan0"].values[name] for name in ("shield", HELD)] == ["on", "on"]
    for words in ("xdp off", "xdpdrv off", "xdpgeneric off"):
        tried = gw1.run(["ip", "link", "set", "lan0", *words.split()], check=False)
        assert "Can't replace active BPF XDP link" in tried.stderr or words.startswith("xdpgeneric")
        assert gw1.call(look)["lan0"].values["shield"] == "on"
    assert gw1.call(turn, LIST, "on") is None
    assert "rx-gro-list is on" in (gw1.call(turn, SHIELD, "off") or "")
    assert gw1.call(turn, LIST, "off") is None
    assert gw1.call(turn, SHIELD, "off") is None
    assert gw1.call(look)["lan0"].values["shield"] == "off"
    assert not list(bpffs.USUAL.glob("flowfast*"))  # as this process, in no other namespace, sees it


@pytest.mark.long
def test_apply_turns_and_remove_brings_back(topo: TwoGateways, tmp_path: Path) -> None:
    gw1, flowfast = topo.gw1, ["python3", "-m", "flowfast"]
    found = values(gw1)
    config = tmp_path / "bulk.yaml"
    config.write_text(CONFIG)
    planned = json.loads(gw1.run([*flowfast, "plan", str(config), "--json"], timeout=300).stdout)
    waiting = {each["knob"]: (each["from"], each["to"]) for each in planned["knobs"]}
    for name in gw1.call(look)["lan0"].napi("gro_flush_timeout"):
        assert waiting[f"lan0 {name}"] == ("0", "200000")
    assert values(gw1) == found
    gw1.run([*flowfast, "apply", str(config), "--yes"], timeout=300)
    lan = gw1.call(look)["lan0"]
    assert lan.stage is not Stage.OFF
    assert waits(lan) == {"200000"}
    gw1.run([*flowfast, "apply", "--remove"], timeout=300)
    assert values(gw1) == found


@pytest.mark.long(seconds=240)
@pytest.mark.parametrize("when", ["as soon as a way back is on disk", "when all is turned"])
def test_what_kill_9_left_behind_is_brought_back(topo: TwoGateways, tmp_path: Path, when: str) -> None:
    """The controller is killed, in the middle of its turns or after them; another process takes all of it back."""
    gw1 = topo.gw1
    found = values(gw1)
    config = tmp_path / "bulk.yaml"
    config.write_text(CONFIG)
    journal = gw1.call(journal_path)
    assert not gw1.call(turned)
    controller = gw1.popen(["python3", "-m", "flowfast", "run", str(config)])
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if when.startswith("as soon") and journal.exists() and journal.stat().st_size > len(EMPTY):
            break
        if when.startswith("when all") and waits(gw1.call(look)["lan0"]) == {"200000"}:
            break
        time.sleep(0.002)
    controller.kill()  # `ip netns exec` becomes the program that it starts
    controller.wait(30)
    held = gw1.call(turned)
    assert held
    if when.startswith("when all"):
        assert values(gw1) != found
    gw1.run(["python3", "-m", "flowfast", "apply", "--remove"], timeout=300)
    assert values(gw1) == found
    assert not gw1.call(turned)


def sample() -> dict[str, Arrival]:
    return dict(asyncio.run(RealArrivals().sample(["v0"], 2)))


@pytest.mark.long
@pytest.mark.parametrize("finish", [False, True])
def test_unfinished_checksums_are_seen_as_they_arrive(finish: bool) -> None:
    with Netns("near") as near, Netns("far") as far:
        Veth(finish).join(End(near, "v0"), End(far, "v0"))
        near.call(set_up, [Device("v0", ["10.9.0.1/24"])], [], False)
        far.call(set_up, [Device("v0", ["10.9.0.2/24"])], [], False)
        watching = far.start(sample)
        with near.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            deadline = time.monotonic() + 60
            while not watching.ready and time.monotonic() < deadline:
                sender.sendto(bytes(100), ("10.9.0.2", 9))
                time.sleep(0.01)
        seen = watching.result()["v0"]
        assert seen.seen > 10
        assert seen.unfinished == (0 if finish else seen.seen)
        assert seen.wire is not None and seen.stack
        assert 0.8 < seen.wire / seen.stack < 1.25  # nothing was put together
