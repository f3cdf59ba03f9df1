"""deploy/ on a real kernel: Prometheus asks a router, Ansible's role installs it, systemd runs it in its sandbox."""

import json
import re
import secrets
import shlex
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowfast.lab.manual_keys import manual_keys
from flowfast.lab.topology import TwoGateways, two_gateways, wan_address
from flowfast.lab.traffic import UdpFlow, udp_echo
from tests.guest.booted import Booted
from tests.guest.router import Router, router_samples
from tests.queries import asked, configured, named, rules, targets

pytestmark = [
    pytest.mark.guest(images=["debian14-operated"], nics=3, memory=3072),
    pytest.mark.long(seconds=600),
]

FLOWFAST = "/opt/flowfast/.venv/bin/flowfast"
CONFIG = {"devices": {"lan": ["lan0"], "wan": ["wan0"]}}
REMOTES = {"berlin": "10.2.0.0/16", "paris": "10.99.0.0/16"}
"""Paris is in the config and nowhere else."""
PORT = 4700
UNIT = Path("/etc/systemd/system/flowfast.service")
CAPABILITIES = {"net_admin": 12, "net_raw": 13, "sys_admin": 21, "perfmon": 38, "bpf": 39}
"""include/uapi/linux/capability.h."""
CHOOSY = re.compile(r'state="hardware"|code=|[tr]x="l3"|[<>=]=|> |< ')
"""Of a query that may find nothing, because this router has none of what it asks for: a NIC's flows, certain reasons,
tunnels that are meant to be slow, what is over a limit."""
TRACE = """
from flowfast.kernel.witness import witness
from flowfast.kernel.xdp import ProgramKnob
from flowfast.model.knob import Knob, KnobKind
program, there = Knob(KnobKind.XDP, "lan0", "program"), ProgramKnob()
there.write(program, "flowfast_wan3")
assert there.read(program) == "flowfast_wan3"
there.write(program, "none")
with witness() as seen:
    seen.sightings()
"""
"""What steering needs of bpf(2), tried in the unit's sandbox."""


class Site:
    """A router that somebody operates, with systemd on it."""

    def __init__(self, topo: TwoGateways, booted: Booted, folder: Path) -> None:
        self.topo, self.booted, self.folder = topo, booted, folder
        booted.run(["sh", "-c", "cd /src && hatchling build -t wheel -d /root/dist"])
        (self.wheel,) = Path("/root/dist").glob("*.whl")

    def play(self, config: dict[str, Any]) -> dict[str, int]:
        """Runs the role as deploy/ansible/site.yml does. What Ansible says in the end: ok, changed, failed."""
        extra = folded(flowfast_wheel=str(self.wheel), flowfast_config=config, flowfast_pip_arguments="--no-index",
                       flowfast_confirm_seconds=300, ansible_python_interpreter="/usr/bin/python3")  # fmt: skip
        play = f"ansible-playbook -i localhost, -c local -e {shlex.quote(extra)} /src/deploy/ansible/site.yml"
        done = self.booted.run(
            ["sh", "-c", f"HOME=/root LC_ALL=C.UTF-8 ANSIBLE_NOCOLOR=1 ANSIBLE_PIPELINING=1 {play}"], check=False
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        counts = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", done.stdout.rpartition("RECAP")[2])}
        assert counts["failed"] == counts["unreachable"] == 0
        return counts

    def flow(self) -> UdpFlow:
        """Numbered packets through the tunnel that come back, over one connection."""
        h1, h2 = self.topo.h1, self.topo.h2
        return UdpFlow(h1, h2, self.topo.host_address(2, 4), rate=100, size=300, source_port=PORT)

    @property
    def fast(self) -> bool:
        """Whether conntrack has that connection on the flowtable."""
        listed = self.topo.gw1.run(["conntrack", "-L"]).stdout.splitlines()
        return any(f"sport={PORT} " in line and "[OFFLOAD]" in line for line in listed)

    def rules(self) -> str:
        """The ruleset with its handles, which change when anything is made anew."""
        return self.topo.gw1.run(["nft", "-a", "-s", "list", "ruleset"]).stdout

    def features(self) -> dict[str, bool]:
        """What the service found that this kernel can do."""
        page = router_samples(self.topo.gw1.call(scrape))
        found = re.compile(r'flowfast_feature\{name="(\w+)"\}')
        return {match[1]: value == 1 for name, value in page.items() if (match := found.fullmatch(name))}


def folded(**variables: Any) -> str:
    """Variables as `-e` takes them."""
    return json.dumps(variables)


def scrape() -> str:
    """The exporter's page, in this namespace."""
    with urllib.request.urlopen("http://127.0.0.1:9833/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
        return text


@pytest.fixture(scope="module")
def topo() -> Iterator[TwoGateways]:
    with two_gateways("policy", families=(4,)) as built:
        manual_keys(built)
        assert built.ping(4)
        yield built


@pytest.fixture(scope="module")
def site(topo: TwoGateways, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("operated")
    with Booted(topo.gw1, folder) as booted:
        yield Site(topo, booted, folder)
        booted.systemctl("stop", "flowfast", check=False)
        booted.run([FLOWFAST, "apply", "--remove"])


# Prometheus


class Asked:
    """Debian's Prometheus in the router's namespace."""

    def __init__(self, topo: TwoGateways, folder: Path) -> None:
        self.ns = topo.gw1
        (folder / "prometheus.yml").write_text(configured("127.0.0.1:9833", "5s"))
        self.log = folder / "prometheus.log"
        self._to = self.log.open("wb")
        command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                   "--web.listen-address=127.0.0.1:9090"]  # fmt: skip
        self.process = self.ns.popen(command, stdout=self._to, stderr=self._to)

    def all(self, expressions: list[str]) -> list[Any]:
        """What Prometheus says to each: a vector, or the text of its refusal; nothing while it does not answer."""
        assert self.process.poll() is None, self.log.read_text()
        return self.ns.call(answers, expressions, timeout=300)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._to.close()


def answers(expressions: list[str]) -> list[Any]:
    """Runs in the router's namespace."""
    found: list[Any] = []
    for expression in expressions:
        url = "http://127.0.0.1:9090/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                found.append(json.load(answer)["data"]["result"])
        except urllib.error.HTTPError as refused:
            found.append(refused.read().decode())
        except OSError:
            return []
    return found


def test_prometheus_asks_a_router_and_every_panel_and_rule_is_answered(topo: TwoGateways, tmp_path: Path) -> None:
    tunnels = {name: {"local": ["10.1.0.0/16"], "remote": [remote]} for name, remote in REMOTES.items()}
    more = {"accounting": "precise", "exporter": {"per_sa": True}, "exclude": {"ports": [4801]}, "tunnels": tunnels}
    # An SA that no policy asks for: what an IKE daemon leaves behind.
    leaked = f"src {wan_address(2, 4)} dst {wan_address(1, 4)} proto esp spi 0x77 reqid 77"
    keys = f"mode tunnel aead rfc4106(gcm(aes)) 0x{secrets.token_hex(20)} 128"
    topo.gw1.run(["ip", "xfrm", "state", "add", *leaked.split(), *keys.split()])
    with Router(topo.gw1, json.dumps({**CONFIG, **more}), tmp_path) as router:
        server = Asked(topo, tmp_path)
        try:
            h1, h2, there = topo.h1, topo.h2, topo.host_address(2, 4)
            with UdpFlow(h1, h2, there, rate=100, size=300, source_port=PORT):
                udp_echo(h1, h2, there, packets=100, rate=100, size=300, port=4801)
                deadline = time.monotonic() + 300
                enough = ["count_over_time(flowfast_build_info[5m]) >= 6", "instance:flowfast_fast_path:ratio_rate5m"]
                while not all(found := server.all(enough)) or not found:
                    assert time.monotonic() < deadline, (found, server.log.read_text()[-2000:])
                    time.sleep(5)
                page = router.metrics()
                panels = list(targets())
                found = server.all([asked(each.expression, "2m") for each in panels])
                told = server.all([rule["expr"] for rule in rules()])
        finally:
            server.stop()
    values = router_samples(page)
    assert values['flowfast_tunnel_up{tunnel="berlin"}'] == 1
    assert values['flowfast_tunnel_up{tunnel="paris"}'] == 0
    assert values['flowfast_xfrm_states{netns="",kind="orphan"}'] == 1
    assert values['flowfast_excluded_packets_total{by="ports"}'] > 90
    assert values['flowfast_flows{tunnel="berlin",state="offloaded"}'] == 1
    assert values['flowfast_xfrm_errors_total{netns="",counter="XfrmInNoStates"}'] >= 0
    there_now = {name.partition("{")[0] for name in values}
    assert {"flowfast_tunnel_bytes_total", "flowfast_sa_bytes_total", "flowfast_flows"} <= there_now
    faults: list[object] = [got for got in told if isinstance(got, str)]
    for each, got in zip(panels, found, strict=True):
        if isinstance(got, str) or (
            not got and named(each.expression) <= there_now and not CHOOSY.search(each.expression)
        ):
            faults.append((each, got))
        labels = re.findall(r"\{\{(\w+)\}\}", each.legend)
        faults += [(each, label, got) for label in labels if got and not any(label in one["metric"] for one in got)]
    assert faults == []
    by_rule = dict(zip((rule.get("record") for rule in rules()), told, strict=True))
    assert 0 < float(by_rule["instance:flowfast_fast_path:ratio_rate5m"][0]["value"][1]) <= 1


# The role and the unit, which the fixture `site` leaves running


def test_the_role_installs_applies_and_changes_nothing_the_second_time(site: Site) -> None:
    first = site.play(CONFIG)
    assert first["changed"] > 5
    assert site.booted.systemctl("is-active", "flowfast") == "active"
    assert "flowtable" in site.rules()
    assert "nothing waits" in site.booted.run([FLOWFAST, "confirm"], check=False).stderr
    before = site.rules()
    assert site.play(CONFIG)["changed"] == 0
    assert site.rules() == before


def test_the_unit_runs_in_its_sandbox_and_misses_nothing(site: Site) -> None:
    if not UNIT.exists():
        site.play(CONFIG)
    booted = site.booted
    assert booted.shows("flowfast", "ActiveState") == "active"
    status = booted.run(["cat", f"/proc/{booted.shows('flowfast', 'MainPID')}/status"]).stdout
    (held,) = re.findall(r"CapEff:\s+(\w+)", status)
    assert int(held, 16) == sum(1 << number for number in CAPABILITIES.values())
    # Everything that this kernel can do for root, the service can.
    doctor = booted.run([FLOWFAST, "doctor", "/etc/flowfast/flowfast.yaml", "--json"], check=False).stdout
    outside = {feature["name"]: feature["present"] for feature in json.loads(doctor)["features"]}
    assert site.features() == outside
    assert outside["flowtable"] and outside["meta_ipsec_netdev"] and outside["xfrm_interface"]
    tried = UNIT.with_name("sandbox.service")
    (site.folder / "trace.py").write_text(TRACE)
    text = re.sub(
        r"ExecStart=.*", f"ExecStart=/opt/flowfast/.venv/bin/python3 {site.folder}/trace.py", UNIT.read_text()
    )
    tried.write_text(re.sub(r"Type=.*|WatchdogSec=.*|Restart=.*|PrivateTmp=.*", "", text) + "\n")
    booted.systemctl("daemon-reload")
    booted.systemctl("start", "sandbox", check=False)
    booted.until(lambda: booted.shows("sandbox", "ActiveState") in ("inactive", "failed"), "ended")
    said = booted.run(["journalctl", "-u", "sandbox", "--no-pager"]).stdout
    assert booted.shows("sandbox", "Result") == "success", said


def test_systemd_watches_it_and_neither_restart_nor_stop_takes_a_flow_off(site: Site) -> None:
    if not UNIT.exists():
        site.play(CONFIG)
    booted = site.booted
    drop_in = Path(f"{UNIT}.d/fast.conf")
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[Service]\nWatchdogSec=30\n")
    booted.systemctl("daemon-reload")
    booted.systemctl("restart", "flowfast")
    before = site.rules()
    with site.flow() as flow:
        booted.until(lambda: site.fast, "fast")
        booted.systemctl("restart", "flowfast")
        assert booted.shows("flowfast", "ActiveState") == "active"
        process = booted.shows("flowfast", "MainPID")
        booted.systemctl("reload", "flowfast")
        assert booted.shows("flowfast", "MainPID") == process
        assert site.fast
        first = booted.shows("flowfast", "WatchdogTimestampMonotonic")
        booted.until(lambda: booted.shows("flowfast", "WatchdogTimestampMonotonic") != first, "heard of")
        # One that hangs is ended and started again.
        hung = booted.shows("flowfast", "MainPID")
        booted.run(["kill", "-STOP", hung])
        booted.until(lambda: booted.shows("flowfast", "NRestarts") == "1", "started again")
        booted.until(lambda: booted.shows("flowfast", "ActiveState") == "active", "active")
        assert booted.shows("flowfast", "MainPID") != hung
        booted.systemctl("stop", "flowfast")
        assert booted.shows("flowfast", "ActiveState") == "inactive"
        assert site.fast
        assert flow.stop().intact
    assert site.rules() == before
    assert list(Path(f"/proc/{booted.pid}/root/run/flowfast").glob("counts-*.jsonl"))
    booted.systemctl("start", "flowfast")


def test_another_config_holds_once_it_is_applied_and_confirmed(site: Site) -> None:
    site.play({**CONFIG, "accounting": "precise"})
    assert "accounting: precise" in Path("/etc/flowfast/flowfast.yaml").read_text()
    assert 'flowfast_accounting_info{mode="precise"}' in site.topo.gw1.call(scrape)
