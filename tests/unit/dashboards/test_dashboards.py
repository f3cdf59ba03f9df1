"""Dashboards and rules: up to date, about metrics that exist, and every query answered by a real Prometheus."""

import asyncio
import json
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.__main__ import main
from flowfast.bench import CONFIG, fake_hub, sa_pair
from flowfast.config.values import Endpoint
from flowfast.controller import Controller
from flowfast.metrics.exporter import Exporter
from flowfast.model.reason import Reason
from flowfast.model.sa import Direction
from flowfast.model.snapshot import ByPath, Reconciles, Snapshot, Traffic
from flowfast.model.state import CounterValue
from tests.queries import DASHBOARDS, ROOT, RULES, asked, configured, named, rules, targets
from tests.unit.dashboards.tools import tool
from tests.unit.metrics.world import fixed

PROMETHEUS = RULES.parent
GOLDEN = ROOT / "tests" / "unit" / "metrics" / "golden"
OWN = {"flowfast_collector_success", "flowfast_collector_duration_seconds"}  # the registry's


def metrics() -> set[str]:
    found = {
        line.split()[2] for file in GOLDEN.glob("*.txt") for line in file.read_text().splitlines() if "# TYPE" in line
    }
    return found | OWN


def test_committed_dashboards_are_what_the_builders_make() -> None:
    assert main(["--check"]) == 0, "python -m dashboards writes them anew"
    assert {file.stem for file in DASHBOARDS} == {"router", "tunnel", "paths", "bulking", "steering", "fleet"}


def test_every_metric_of_dashboards_and_rules_exists() -> None:
    known = metrics()
    for target in targets():
        assert named(target.expression) <= known, target
    for rule in rules():
        assert named(rule["expr"]) <= known, rule
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = set(re.findall(r"[a-z_]+:flowfast[a-z_:0-9]+", " ".join(rule["expr"] for rule in rules())))
    assert used <= recorded


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_dashboards_keep_to_the_rules_of_the_house(file: Path) -> None:
    board = json.loads(file.read_text())
    variables = [variable["name"] for variable in board["templating"]["list"]]
    assert variables == ["datasource", "instance", *(["tunnel"] if file.stem != "fleet" else [])]
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["noValue"]
        if panel["type"] != "table":
            assert panel["fieldConfig"]["defaults"]["unit"]
        for query in panel["targets"]:
            assert 'instance=~"$instance"' in query["expr"], query["expr"]
            for function in re.findall(r"(?:rate|increase)\([^\]]*\]", query["expr"]):
                assert function.endswith("[$__rate_interval]"), query["expr"]
    ids = [panel["id"] for panel in board["panels"] if panel.get("id") is not None]
    assert len(set(ids)) == len(ids)
    assert {"uid", "title", "description", "tags"} <= board.keys()


def test_promtool_takes_rules_and_tests() -> None:
    for command in (["check", "rules", RULES.name], ["test", "rules", "flowfast-rules-test.yaml"]):
        done = subprocess.run([tool("promtool"), *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_and_says_what_to_do() -> None:
    tested = {
        test["alertname"]
        for group in yaml.safe_load((PROMETHEUS / "flowfast-rules-test.yaml").read_text())["tests"]
        for test in group["alert_rule_test"]
    }
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {rule["alert"] for rule in alerts} == tested
    for rule in alerts:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description"}


# --- a real Prometheus ----------------------------------------------------------------------------------------------


def moment(number: int) -> Snapshot:
    """The fixed router, which has carried, dropped and done a little more each time."""
    now, at = fixed(), time.time()
    carried = {
        key: Traffic(had.bytes + 100_000 * number, had.packets + 100 * number) for key, had in now.totals.items()
    }
    both = (("berlin", Direction.OUT), ("berlin", Direction.IN))
    return replace(
        now,
        state=replace(now.state, taken_at=at),
        totals=carried,
        by_path={key: ByPath(90_000 * number, 10_000 * number, 25 * number) for key in both},
        full_path={name: CounterValue(had.packets + number, 0) for name, had in now.full_path.items()},
        before_flowtable={name: CounterValue(had.packets + number, 0) for name, had in now.before_flowtable.items()},
        xfrm_errors={"": {"XfrmInNoStates": number}, "underlay": {"XfrmInError": number}},
        failures=(*now.failures, *(Reason(code, "lan0", "as it is") for code in ("BULK_NOT_QUALIFIED", "NOT_STEERED"))),
        reconciles=Reconciles(number, 1, 3, 2, 0, at, 0.05),
    )


class Prometheus:
    """Debian's Prometheus, which scrapes an exporter twice a second."""

    def __init__(self, folder: Path, exporter: Exporter) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        (folder / "prometheus.yml").write_text(configured(str(exporter.endpoint), "500ms"))
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [tool("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address={self.address}"], stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query. AssertionError where Prometheus refuses it."""
        url = f"http://{self.address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{expression}: {refused.read().decode()}") from None
        assert found["data"]["resultType"] == "vector", expression
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    exporter, done = Exporter(Endpoint(IPv4Address("127.0.0.1"), 0), per_sa=True), threading.Event()
    exporter.start()

    def publish() -> None:
        number = 0
        while not done.wait(0.2):
            number += 1
            exporter.publish(moment(number))

    thread = threading.Thread(target=publish)
    thread.start()
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), exporter)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert time.monotonic() < deadline, "Prometheus has no data"
            try:
                enough = server.query("count_over_time(flowfast_build_info[1m]) >= 8")
                if enough and server.query("instance:flowfast_fast_path:ratio_rate5m"):
                    break
            except OSError:
                assert server.process.poll() is None, "Prometheus ended"
            time.sleep(0.3)
        yield server
    finally:
        server.stop()
        done.set()
        thread.join()
        exporter.stop()


def test_every_query_of_every_panel_returns_what_the_panel_shows(prometheus: Prometheus) -> None:
    nothing = []
    for target in targets():
        series = prometheus.query(asked(target.expression))
        if not series:
            nothing.append((target.board, target.panel, target.expression))
        for label in re.findall(r"\{\{(\w+)\}\}", target.legend):
            assert any(label in each["metric"] for each in series), (target, series)
        for each in series:
            assert re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", each["value"][1]), (target, each)
    assert nothing == []


def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    for rule in rules():
        series = prometheus.query(rule["expr"])
        if "record" in rule:
            assert series, rule
    with urllib.request.urlopen(f"http://{prometheus.address}/api/v1/rules", timeout=60) as answer:
        groups = json.load(answer)["data"]["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert set(health.values()) == {"ok"}, health
    shares = prometheus.query("instance:flowfast_fast_path:ratio_rate5m")
    assert [round(float(each["value"][1]), 6) for each in shares] == [0.9]
    firing = prometheus.query('ALERTS{alertname="FlowfastTunnelDown"}')
    assert {each["metric"]["tunnel"] for each in firing} == {"down", 'of"fice\\1'}


def test_prometheus_scrapes_a_controller_that_runs(tmp_path: Path) -> None:
    """The controller itself, on a kernel in memory: ten tunnels, of which one loses its SAs meanwhile."""

    async def scenario() -> None:
        kernel, exporter = fake_hub(10), Exporter(Endpoint(IPv4Address("127.0.0.1"), 0))
        controller = Controller(
            kernel, CONFIG, await kernel.probe.features(), on_snapshot=exporter.publish, interval=0.5
        )
        exporter.start()
        task, server = asyncio.create_task(controller.run()), Prometheus(tmp_path, exporter)
        try:
            await answered(server, "sum(flowfast_tunnel_up)", 10)
            for sa in sa_pair(3):
                await kernel.xfrm.delete_sa(sa.dst, sa.spi)
            await answered(server, "sum(flowfast_tunnel_up)", 9)
            await answered(server, 'up{job="flowfast"}', 1)
            await answered(server, "count(flowfast_collector_success == 0) or vector(0)", 0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.stop()
            exporter.stop()

    asyncio.run(scenario())


async def answered(server: Prometheus, expression: str, wanted: float) -> None:
    """Returns once Prometheus says so."""
    found: object = None
    async with asyncio.timeout(120):
        while True:
            try:
                found = [float(each["value"][1]) for each in await asyncio.to_thread(server.query, expression)]
            except OSError:
                assert server.process.poll() is None, "Prometheus ended"
            if found == [wanted]:
                return
            await asyncio.sleep(0.3)
