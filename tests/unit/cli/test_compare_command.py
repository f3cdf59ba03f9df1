"""The command against a kernel in memory: what it says first, what it refuses, and what it leaves behind."""

import asyncio
import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowfast.apply import journal
from flowfast.cli import cli, confirm, lock
from flowfast.kernel.fake import FakeKernel
from flowfast.model.transaction import AddTimed
from flowfast.plan.diff import OWN
from flowfast.plan.pause import paused
from tests.unit.cli.looking import Flowfast, applied
from tests.unit.compare.bench import Bench, Clock


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "run")


@pytest.fixture
def kernel(bench: Bench) -> FakeKernel:
    return bench.kernel


@pytest.fixture
def flowfast(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flowfast:
    def run_on(clock: Clock) -> object:
        def run(main: object) -> object:
            with asyncio.Runner(loop_factory=clock.loop) as runner:
                return runner.run(main)  # type: ignore[arg-type]

        return run

    monkeypatch.setattr("flowfast.cli.common.real_kernel", lambda: bench.kernel)
    monkeypatch.setattr("flowfast.cli.compare.RealLoad", lambda _devices: bench.traffic)
    monkeypatch.setattr("flowfast.cli.compare.asyncio.run", run_on(bench.clock))
    for module, name in ((lock, "NAME"), (lock, "COMPARING"), (confirm, "NAME")):
        monkeypatch.setattr(module, name, f"\0{module.__name__}-{name}-{id(bench)}")
    monkeypatch.setattr("flowfast.cli.compare.COMPARING", lock.COMPARING)
    monkeypatch.setattr(journal, "FOLDER", tmp_path / "run")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    return run


@pytest.fixture
def site(tmp_path: Path, kernel: FakeKernel) -> str:
    path = tmp_path / "site.yaml"
    path.write_text(
        "devices: {lan: [lan0], wan: [wan0]}\ntunnels: {berlin: {local: [10.1.0.0/16], remote: [10.2.0.0/16]}}\n"
    )
    applied(kernel, str(path))
    return str(path)


def test_it_says_what_it_will_do_then_what_it_found(flowfast: Flowfast, kernel: FakeKernel, site: str) -> None:
    shown = flowfast("compare", site)
    assert shown.exit_code == 0, shown.output
    assert "12 windows of 10 s, half of them on the full L3 path" in shown.stderr
    assert "the kernel puts the fast path back within 15 s, by itself" in shown.stderr
    assert "busiest CPU is busy for 20% of its time now" in shown.stderr
    assert "window 12 of 12" in shown.stderr
    assert "On the full L3 path a packet costs 2.00x the CPU time of the fast path (" in shown.stdout
    for said in ("berlin", "0x00001001", "80 Mbit/s, 20 kpackets/s", "20 for", "98.0%", "configuration"):
        assert said in shown.stdout or said == "20 for"
    assert not paused(kernel.nft.read(OWN))


def test_json_has_everything_and_nothing_else_is_on_standard_output(flowfast: Flowfast, site: str) -> None:
    shown = flowfast("compare", site, "--json", "--seconds", "60", "--windows", "6", "--seed", "5")
    found = json.loads(shown.stdout)
    assert found["findings"]["factor"]["value"] == pytest.approx(2, rel=0.01)
    assert found["seed"] == 5
    assert len(found["windows"]) == 6
    assert found["fingerprint"]["sysctls"] == {"net.core.netdev_budget": "300"}
    again = json.loads(flowfast("compare", site, "--json", "--seconds", "60", "--windows", "6", "--seed", "5").stdout)
    assert [each["arm"] for each in again["windows"]] == [each["arm"] for each in found["windows"]]
    assert again["fingerprint_hash"] == found["fingerprint_hash"]


def test_a_dry_run_changes_nothing(flowfast: Flowfast, kernel: FakeKernel, site: str) -> None:
    before = len(kernel.nft.committed)
    shown = flowfast("compare", site, "--dry-run")
    assert shown.exit_code == 0
    assert "12 windows" in shown.stderr
    assert len(kernel.nft.committed) == before


def test_the_report_is_one_file_with_the_figures(flowfast: Flowfast, site: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    shown = flowfast("compare", site, "--report", str(page))
    assert f"report: {page}" in shown.output
    assert "2.00x the CPU time" in page.read_text()


def test_a_report_that_cannot_be_written_is_said_before(flowfast: Flowfast, kernel: FakeKernel, site: str) -> None:
    before = len(kernel.nft.committed)
    shown = flowfast("compare", site, "--report", "/no/such/folder/report.html")
    assert shown.exit_code != 0
    assert "there is no folder" in str(shown.exception)
    assert len(kernel.nft.committed) == before


def test_no_verdict_is_exit_code_one_with_the_reason(flowfast: Flowfast, bench: Bench, site: str) -> None:
    bench.traffic.rate = {True: 20_000, False: 30_000}
    shown = flowfast("compare", site)
    assert shown.exit_code == 1
    assert "No verdict." in shown.stdout
    assert "1.50 times as many packets a second on the fast path" in shown.stdout


def test_a_busy_router_is_warned_of(flowfast: Flowfast, bench: Bench, site: str) -> None:
    bench.traffic.rate = {True: 40_000, False: 60_000}
    assert "may bring it to its limit" in flowfast("compare", site, "--dry-run").stderr


def test_a_change_that_waits_to_be_confirmed_comes_first(flowfast: Flowfast, kernel: FakeKernel, site: str) -> None:
    before = len(kernel.nft.committed)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        waiting.bind(confirm.NAME)
        waiting.listen()
        shown = flowfast("compare", site)
    assert "flowfast confirm" in str(shown.exception)
    assert len(kernel.nft.committed) == before


def test_it_runs_beside_a_controller_but_not_twice(flowfast: Flowfast, site: str) -> None:
    with lock.only_one():
        assert flowfast("compare", site, "--seconds", "60").exit_code == 0
    with lock.only_one(lock.COMPARING):
        assert "flowfast compare is running here already" in str(flowfast("compare", site).exception)


def test_without_a_controller_nobody_else_changes_anything(flowfast: Flowfast, kernel: FakeKernel, site: str) -> None:
    seen: list[str] = []
    commit = kernel.nft.commit

    def look(commands: list[object]) -> None:
        if any(isinstance(command, AddTimed) for command in commands):
            try:
                with lock.only_one():
                    seen.append("free")
            except Exception as error:  # noqa: BLE001 - which one is asserted
                seen.append(type(error).__name__)
        commit(commands)  # type: ignore[arg-type]

    kernel.nft.commit = look  # type: ignore[method-assign, assignment]
    assert flowfast("compare", site, "--seconds", "60").exit_code == 0
    assert set(seen) == {"FlowfastError"}
