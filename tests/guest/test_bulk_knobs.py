"""Knobs that the config sets by name, on real kernels: set, refused, taken back after kill -9; by others' means.

In the guest's first network namespace, the only one with all sysctls of net.core; no tunnel is needed.
"""

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.generic import GenericNetlinkSocket

from flowfast.apply.knobs import KnobJournal
from flowfast.lab.espsim import EspSims
from flowfast.lab.wires import nic_pairs
from flowfast.plan.bulk_knobs import MOST_AGAIN
from tests.guest.oneshot import invoke

VIRTIO = pytest.mark.guest(images=["debian14", "debian13", "debian12"], nics=1, cpus=2, queues=2)
E1000E = pytest.mark.guest(images=["debian14", "debian12"], nics=1, nic_model="e1000e")
pytestmark = pytest.mark.long(seconds=200)

FLOWFAST = ("python3", "-m", "flowfast")
PATIENCE = 200.0
EMPTY = '{"version": 1, "turned": []}'
SYSFS = Path("/sys/class/net")
CONFIG = """
devices: {{lan: [{nic}], wan: [{other}]}}
bulk:
  esp_offload: loaded
  sysctls: {{gro_normal_batch: 16, netdev_budget: 600, netdev_budget_usecs: 9000, dev_weight: 128,
             netdev_max_backlog: 2000, qdisc_max_burst: 500}}
  devices:
    {nic}:
      napi: {{gro_flush_timeout: 30000, napi_defer_hard_irqs: 3, threaded: true}}
      sizes: {{gro_max_size: 30000, gso_max_size: 32000, gso_ipv4_max_size: 33000}}
      channels: {{combined: 1}}
      rings: {{rx: 1000000}}
      features: {{esp-hw-offload: true}}
    ipsec9:
      features: {{tx-gso-list: false}}
      sizes: {{gro_max_size: 20000}}
"""


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


class _Napi(genlmsg):
    nla_map = (
        ("NAPI_UNSPEC", "none"),
        ("NAPI_IFINDEX", "uint32"),
        ("NAPI_ID", "uint32"),
        ("NAPI_IRQ", "uint32"),
        ("NAPI_PID", "uint32"),
        ("NAPI_DEFER", "uint32"),
        ("NAPI_FLUSH", "uint32"),  # the kernel writes as few bytes as will do
        ("NAPI_SUSPEND", "hex"),
        ("NAPI_THREADED", "uint32"),
    )


def napis(device: str) -> list[tuple[int, int, int, int]]:
    """ID, napi_defer_hard_irqs, gro_flush_timeout, threaded of each NAPI, as pyroute2 reads them; none before 6.13."""
    with GenericNetlinkSocket() as netdev:
        try:
            netdev.bind("netdev", _Napi)
        except Exception:  # noqa: BLE001 - pyroute2's own kinds: the kernel has no such family
            return []
        asked = _Napi()
        asked["cmd"], asked["version"] = 11, 1
        asked["attrs"] = [("NAPI_IFINDEX", socket.if_nametoindex(device))]
        found = list(netdev.nlm_request(asked, msg_type=netdev.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP))
    names = ("NAPI_ID", "NAPI_DEFER", "NAPI_FLUSH", "NAPI_THREADED")
    each = [tuple(message.get_attr(name) for name in names) for message in found]
    return sorted(one for one in each if one[1] is not None)


def threads(device: str) -> int:
    """NAPI threads of a device that the kernel runs."""
    found = 0
    for process in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            found += process.read_text().startswith(f"napi/{device}-")
    return found


def by_others(*devices: str) -> dict[str, str]:
    """Everything that the test has flowfast set, as ethtool, ip, sysctl and files print it."""
    said = {"sysctl": run("sysctl", "-a", "--pattern", r"^net\.core\.")}
    for name in ("esp4_offload", "esp6_offload"):
        said[name] = str((Path("/sys/module") / name).exists())
    for device in devices:
        said[f"{device} link"] = run("ip", "-d", "link", "show", "dev", device)
        for option in "gclk":
            said[f"{device} -{option}"] = run("ethtool", f"-{option}", device, check=False)
        for name in ("gro_flush_timeout", "napi_defer_hard_irqs", "threaded"):
            file = SYSFS / device / name
            said[f"{device} {name}"] = file.read_text() if file.exists() else ""
        said[f"{device} NAPIs"] = str(napis(device))
    return said


def turned() -> dict[str, str]:
    return {str(knob): was.ours[-1] for knob, was in KnobJournal().read().items()}


def told(output: str) -> list[tuple[str, str]]:
    return sorted((each["code"], each["object"]) for each in json.loads(output)["reasons"])


class Controller:
    """`flowfast run`, until it is killed."""

    def __init__(self, config: Path) -> None:
        self.config, self.log = config, config.with_suffix(".log")

    def __enter__(self) -> "Controller":
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*FLOWFAST, "run", str(self.config)], stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.002)

    def metrics(self) -> str:
        try:
            with urllib.request.urlopen("http://127.0.0.1:9833/metrics", timeout=20) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""


def linked(nic: str) -> None:
    until(lambda: (SYSFS / nic / "operstate").read_text().strip() == "up", f"{nic} has no link")


@pytest.fixture
def nics() -> Iterator[tuple[str, str]]:
    """Two NICs that are joined, up; and an xfrm interface, ipsec9."""
    subprocess.run(["modprobe", "-q", "e1000e"], check=False)
    until(lambda: bool(nic_pairs()), "no NIC")
    ends = nic_pairs()[0]
    nic, other = ends[min(ends)], ends[max(ends)]
    run("ip", "link", "add", "ipsec9", "type", "xfrm", "dev", "lo", "if_id", "9")
    for device in (nic, other, "ipsec9"):
        run("ip", "link", "set", device, "up")
    linked(nic)
    yield nic, other
    removed()
    run("ip", "link", "del", "ipsec9")


def removed() -> None:
    code, said = invoke(("apply", "--remove"))
    assert code == 0, said


@VIRTIO
@pytest.mark.parametrize("when", ["all is set", "a way back is on disk"])
def test_every_knob_comes_back_after_kill_9(nics: tuple[str, str], tmp_path: Path, image: str, when: str) -> None:
    nic, other = nics
    config = tmp_path / "knobs.yaml"
    config.write_text(CONFIG.format(nic=nic, other=other))
    if image != "debian12":
        run("ip", "link", "set", nic, "gro_ipv4_max_size", "40000")  # which gro_max_size would take with it
    before = by_others(nic, "ipsec9")
    had = napis(nic)
    assert bool(had) is (image == "debian14")
    rings_refused = subprocess.run(["ethtool", "-G", nic, "rx", "1000000"], capture_output=True, check=False).returncode
    assert rings_refused
    planned = json.loads(invoke(("plan", str(config), "--json"))[1])
    moves = {each["knob"]: (each["from"], each["to"]) for each in planned["knobs"]}
    assert by_others(nic, "ipsec9") == before  # plan changes nothing
    with Controller(config) as controller:
        if when == "a way back is on disk":
            journal = KnobJournal().path
            controller.until(lambda: journal.exists() and journal.stat().st_size > len(EMPTY))
        else:
            controller.until(lambda: "flowfast_reconcile_last_success_timestamp_seconds " in controller.metrics())
    if when == "all is set":
        now = by_others(nic, "ipsec9")
        is_set(nic, image, now, moves)
        reasons = told(json.dumps(planned))
        assert ("BULK_FIXED", nic) in reasons
        assert (("BULK_ABSENT", nic) in reasons) is (image == "debian12")
        assert f"WARNING flowfast.controller: {nic} rings rx: ethtool netlink" in controller.log.read_text()
    assert turned()
    removed()
    until(lambda: by_others(nic, "ipsec9") == before, "it did not all come back")
    assert turned() == {}


def is_set(nic: str, image: str, now: dict[str, str], moves: dict[str, tuple[str, str]]) -> None:
    """What other programs say is what the config asks for, and what the plan said."""
    wanted = {"gro_normal_batch": 16, "netdev_budget": 600, "netdev_budget_usecs": 9000, "dev_weight": 128}
    wanted |= {"netdev_max_backlog": 2000} | ({"qdisc_max_burst": 500} if image == "debian14" else {})
    for name, value in wanted.items():
        assert f"net.core.{name} = {value}\n" in now["sysctl"]
        assert moves[f"net.core.{name}"][1] == str(value)
    assert (now["esp4_offload"], now["esp6_offload"]) == ("True", "True")
    sizes = {"gro_max_size": 30000, "gso_max_size": 32000}
    if image != "debian12":
        assert " gro_ipv4_max_size 40000 " in now[f"{nic} link"]
        sizes["gso_ipv4_max_size"] = 33000
    for name, value in sizes.items():
        assert f" {name} {value} " in now[f"{nic} link"] + " "
        assert moves[f"{nic} {name}"] == ("65536", str(value))
    assert now[f"{nic} -l"].split("Current hardware settings:")[1].split("Combined:")[1].split()[0] == "1"
    assert "tx-gso-list: off" in now["ipsec9 -k"]
    assert " gro_max_size 20000 " in now["ipsec9 link"] + " "
    assert threads(nic) >= 1
    if image != "debian14":
        assert (now[f"{nic} gro_flush_timeout"], now[f"{nic} napi_defer_hard_irqs"]) == ("30000\n", "3\n")
        return
    assert now[f"{nic} gro_flush_timeout"] == "0\n"  # the device's own is for NAPIs to come
    for number, defer, flush, threaded in napis(nic):
        assert (defer, flush, threaded) == (3, 30000, 1)
        assert moves[f"{nic} napi {number} gro_flush_timeout"] == ("0", "30000")


@pytest.mark.guest(images=["debian14"], nics=1, cpus=2, queues=2)
def test_what_something_else_turns_back_is_set_again_three_times(nics: tuple[str, str], tmp_path: Path) -> None:
    config = tmp_path / "knobs.yaml"
    config.write_text(
        f"devices: {{lan: [{nics[0]}], wan: [{nics[1]}]}}\n"
        "bulk: {devices: {ipsec9: {sizes: {gro_max_size: 20000}}}}\n"
    )

    def size() -> int:
        return int(json.loads(run("ip", "-d", "-j", "link", "show", "dev", "ipsec9"))[0]["gro_max_size"])

    with Controller(config) as controller:
        controller.until(lambda: size() == 20000)
        for _ in range(MOST_AGAIN):
            run("ip", "link", "set", "ipsec9", "gro_max_size", "21000")
            controller.until(lambda: size() == 20000)
            controller.until(lambda: '{code="BULK_TURNED_BACK",object="ipsec9",' in controller.metrics())
        run("ip", "link", "set", "ipsec9", "gro_max_size", "21000")
        controller.until(lambda: '{code="BULK_CONTESTED",object="ipsec9",' in controller.metrics())
        rounds = "flowfast_reconcile_total "
        done = controller.metrics().partition(f"\n{rounds}")[2].split("\n")[0]
        controller.until(
            lambda: float(controller.metrics().partition(f"\n{rounds}")[2].split("\n")[0]) > float(done) + 1
        )
        assert size() == 21000
    removed()
    assert size() == 21000  # his


@pytest.mark.guest(images=["debian14"], nics=1, cpus=2, queues=2)
def test_a_feature_of_esp_is_turned_and_turned_back(tmp_path: Path) -> None:
    sims = EspSims()
    config = tmp_path / "knobs.yaml"
    config.write_text(
        "devices: {lan: [espsim0], wan: [espsim1]}\n"
        "bulk: {devices: {espsim0: {features: {esp-hw-offload: false, tx-esp-segmentation: true}}}}\n"
    )
    assert "esp-hw-offload: on" in run("ethtool", "-k", "espsim0")
    said = json.loads(invoke(("apply", str(config), "--json"))[1])
    assert "esp-hw-offload: off" in run("ethtool", "-k", "espsim0")
    assert ("BULK_FIXED", "espsim0") in told(json.dumps(said))
    shown = json.loads(invoke(("show", "bulking", str(config), "--seconds", "0", "--json"))[1])["knobs"]
    (esp,) = [row for row in shown if (row["device"], row["knob"]) == ("espsim0", "esp-hw-offload")]
    assert (esp["held"], esp["planned"], esp["before"]) == ("off", "off", "on")
    removed()
    assert "esp-hw-offload: on" in run("ethtool", "-k", "espsim0")
    sims.close()


@E1000E
def test_rings_and_coalescing_of_a_nic(nics: tuple[str, str], tmp_path: Path, image: str) -> None:
    """e1000e makes 1008 of a ring of 1001: that is said once, is not asked for again, and goes back like all else."""
    nic, other = nics
    config = tmp_path / "nic.yaml"
    config.write_text(
        f"devices: {{lan: [{nic}], wan: [{other}]}}\n"
        f"bulk: {{devices: {{{nic}: {{rings: {{rx: 1001, tx: 512}}, coalesce: {{rx-usecs: 125, adaptive-rx: true}}, "
        "channels: {combined: 2}}}}\n"
    )
    before = by_others(nic)
    code, said = invoke(("apply", str(config), "--json"))
    assert code == 0, said
    linked(nic)  # again: other rings are made with the device down
    now = by_others(nic)
    rings = now[f"{nic} -g"].split("Current hardware settings:")[1]
    assert [int(rings.split(f"{name}:")[1].split()[0]) for name in ("RX", "TX")] == [1008, 512]
    assert now[f"{nic} -c"].split("rx-usecs:")[1].split()[0] == "125"
    answer = json.loads(said)
    assert {each["code"] for each in answer["failures"]} == {"KNOB_ROUNDED"}
    assert [each["object"] for each in answer["reasons"] if each["code"] == "BULK_ABSENT"] == [nic, nic]
    again = json.loads(invoke(("apply", str(config), "--json"))[1])
    assert again["knobs"] == []
    assert [each["code"] for each in again["failures"]] == ["KNOB_ROUNDED"]
    with Controller(config) as controller:
        controller.until(lambda: "flowfast_reconcile_last_success_timestamp_seconds " in controller.metrics())
    linked(nic)
    assert by_others(nic) == now
    removed()
    until(lambda: by_others(nic) == before, "it did not all come back")
