"""plan, apply, status and doctor against a kernel in memory: what they print, their exit codes, and bad input."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowfast.apply import journal
from flowfast.cli import cli, lock
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.links import FakeLinks
from flowfast.kernel.nft import FakeNft
from flowfast.kernel.probe import FakeProbe
from flowfast.kernel.system import FakeSystem
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.model.errors import FlowfastError, KernelError
from flowfast.model.link import Link
from flowfast.model.nftables import Ruleset
from flowfast.model.sa import Direction
from flowfast.model.transaction import AddFlowtable, Command
from flowfast.plan.diff import OWN
from flowfast.plan.ruleset import NETDEV
from tests.unit.plan.router import LAN, PEER, US, WAN, policies

Flowfast = Callable[..., Result]


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel(
        xfrm=FakeXfrm([make_sa(US, PEER), make_sa(PEER, US, direction=Direction.IN)], policies()),
        links=FakeLinks([LAN, WAN]),
        nft=FakeNft(devices={"lan0", "wan0"}),
        system=FakeSystem(sysctls={"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}),
    )


@pytest.fixture
def flowfast(kernel: FakeKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flowfast:
    for module in ("common", "apply", "confirm", "doctor", "run"):
        monkeypatch.setattr(f"flowfast.cli.{module}.real_kernel", lambda: kernel)
    monkeypatch.setattr(lock, "NAME", f"\0flowfast-test-{id(kernel)}")
    monkeypatch.setattr(journal, "FOLDER", tmp_path / "run")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    return run


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "site.yaml"
    path.write_text("devices: {lan: [lan0], wan: [wan0]}\n")
    return str(path)


def test_plan_shows_paths_and_steps_and_changes_nothing(flowfast: Flowfast, kernel: FakeKernel, config: str) -> None:
    shown = flowfast("plan", config)
    assert shown.exit_code == 0
    assert "flowtable (bundle cached)" in shown.output
    assert "flowtable (behind guard)" in shown.output
    assert "flowtable fast on lan0, wan0" in shown.output
    assert kernel.nft.committed == []


def test_detailed_exit_codes(flowfast: Flowfast, config: str) -> None:
    assert flowfast("plan", config, "--detailed-exitcode").exit_code == 2
    assert flowfast("apply", config).exit_code == 0
    assert flowfast("plan", config, "--detailed-exitcode").exit_code == 0


def test_plan_as_nft_and_json_say_the_same(flowfast: Flowfast, config: str) -> None:
    text = flowfast("plan", config, "--nft").output
    steps = json.loads(flowfast("plan", config, "--json").output)["steps"]
    assert [line for step in steps for line in step["nft"]] == [t for t in text.splitlines() if t[0] != "#"]
    assert text.startswith("add table netdev flowfast\n")


def test_apply_prints_the_plan_then_verifies(flowfast: Flowfast, kernel: FakeKernel, config: str) -> None:
    done = flowfast("apply", config)
    assert done.output.index("2 transactions") < done.output.index("Done, and verified")
    assert len(kernel.nft.committed) == 2
    assert "Nothing to do" in flowfast("apply", config).output
    assert len(kernel.nft.committed) == 2


def test_a_guard_that_goes_takes_three_transactions_and_plan_says_so(
    flowfast: Flowfast, kernel: FakeKernel, config: str
) -> None:
    flowfast("apply", config)
    Path(config).write_text("devices: {lan: [lan0], wan: [wan0]}\noffload: {mode: outbound-only}\n")
    first, _, rest = flowfast("plan", config, "--nft").output.partition(
        "# and only then, in a transaction of its own:\n"
    )
    assert first == 'delete flowtable inet flowfast fast { hook ingress priority 0; devices = { "wan0" }; }\n'
    assert rest.startswith("delete table netdev flowfast\n# and only then")
    assert "3 transactions" in flowfast("apply", config).output
    assert len(kernel.nft.committed) == 5
    assert NETDEV not in kernel.nft.read(OWN).tables


def test_a_guard_is_taken_out_again_where_the_fast_path_is_refused(
    flowfast: Flowfast, kernel: FakeKernel, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = kernel.nft.commit

    def refuse(commands: Sequence[Command]) -> None:
        if any(isinstance(command, AddFlowtable) for command in commands):
            raise KernelError("nft: Operation not supported", 95)
        commit(commands)

    monkeypatch.setattr(kernel.nft, "commit", refuse)
    assert "not supported" in str(flowfast("apply", config).exception)
    assert kernel.nft.read(OWN) == Ruleset()


def test_the_second_transaction_is_tried_before_the_first_is_made(
    flowfast: Flowfast, kernel: FakeKernel, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowfast("apply", config)
    held = kernel.nft.read(OWN)
    Path(config).write_text("devices: {lan: [lan0], wan: [wan0]}\noffload: {mode: outbound-only}\n")

    def refuse(_commands: object) -> None:
        raise KernelError("nft: Cannot allocate memory", 12)

    monkeypatch.setattr(kernel.nft, "check", refuse)
    refused = flowfast("apply", config)
    assert "Cannot allocate memory" in str(refused.exception or refused.output)
    assert kernel.nft.read(OWN) == held


def test_a_dry_run_stops_after_the_plan(flowfast: Flowfast, kernel: FakeKernel, config: str) -> None:
    assert "2 transactions" in flowfast("apply", config, "--dry-run").output
    assert kernel.nft.committed == []


def test_remove_leaves_nothing(flowfast: Flowfast, kernel: FakeKernel, config: str) -> None:
    flowfast("apply", config)
    assert "all traffic is on the full path" in flowfast("apply", "--remove").output
    assert kernel.nft.read(OWN) == Ruleset()
    assert "Nothing of flowfast's" in flowfast("apply", "--remove").output


def test_what_the_kernel_does_not_hold_is_taken_back(
    flowfast: Flowfast, kernel: FakeKernel, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel.nft, "hooked", lambda _table, _flowtable: frozenset({"lan0"}))
    done = flowfast("apply", config)
    assert done.exit_code == 1
    assert "wan0: the flowtable is not bound to this device" in done.output
    assert "Taken back" in done.output
    assert kernel.nft.read(OWN) == Ruleset()


def test_status_measures_between_two_looks(flowfast: Flowfast, config: str) -> None:
    flowfast("apply", config)
    shown = flowfast("status", config, "--seconds", "0.1", "--sa")
    assert "applied; flowtable on lan0, wan0" in shown.output
    assert "0 bit/s" in shown.output
    assert "rfc4106(gcm(aes))" in shown.output
    (tunnel,) = json.loads(flowfast("status", config, "--seconds", "0.1", "--json").output)["tunnels"]
    assert tunnel["tx"]["fast"]
    assert tunnel["flowtable_share"] == {"out": None, "in": None}


def test_brackets_in_the_name_of_a_device_are_no_markup(flowfast: Flowfast, kernel: FakeKernel, config: str) -> None:
    kernel.links.set(Link(9, "x[red]y", "xfrm", True, 1400, xfrm_if_id=7))
    for command in ("plan", "status"):
        assert "x[red]y" in flowfast(command, config, *(("--seconds", "0.1") if command == "status" else ())).output


def test_status_before_apply(flowfast: Flowfast, config: str) -> None:
    assert "not applied" in flowfast("status", config, "--seconds", "0.1").output


def test_doctor_lists_what_is_missing_with_its_remedy(flowfast: Flowfast, kernel: FakeKernel) -> None:
    assert flowfast("doctor").exit_code == 0
    kernel.probe = FakeProbe(missing=["flowtable"])
    missing = flowfast("doctor")
    assert missing.exit_code == 1
    assert "nf_flow_table_inet" in missing.output
    kernel.probe = FakeProbe()
    kernel.system.sysctls["net.ipv4.ip_forward"] = "0"
    assert "sysctl -w net.ipv4.ip_forward=1" in flowfast("doctor").output


@pytest.mark.parametrize("missing", ["flowtable", "nftables", "xfrm", "xfrm_interface"])
def test_a_missing_feature_is_a_reason_and_not_a_failure(
    flowfast: Flowfast, kernel: FakeKernel, config: str, missing: str
) -> None:
    kernel.probe = FakeProbe(missing=[missing])
    shown = flowfast("plan", config)
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("devices: {lan: [lan0], wan: [wan9]}", ':1:30: devices.wan: no device named "wan9" (did you mean "wan0"?)'),
        ("devices: {lan: [lan0], wan: [wan0]}\nspeed: 9", ":2:1: speed: unknown key"),
        ("devices: {lan: lan0, wan: [wan0]}", ":1:16: devices.lan: expected a list of device names, found text"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "apply", "run", "status"])
def test_a_wrong_config_is_one_line_and_nothing_changes(  # noqa: PLR0917
    flowfast: Flowfast, kernel: FakeKernel, tmp_path: Path, command: str, text: str, line: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    result = flowfast(command, str(path))
    assert isinstance(result.exception, FlowfastError)
    assert result.exception.exit_code == 2
    (said,) = str(result.exception).splitlines()
    assert said.startswith(f"{path}{line}")
    assert kernel.nft.committed == []


@pytest.mark.parametrize("command", ["plan", "apply", "run", "status"])
def test_not_root_says_so(flowfast: Flowfast, kernel: FakeKernel, config: str, command: str) -> None:
    kernel.system.is_privileged = False
    result = flowfast(command, config)
    assert str(result.exception) == "flowfast talks to the kernel as root (CAP_NET_ADMIN): run it with sudo"


def test_a_second_one_names_the_first() -> None:
    with lock.only_one():
        expected = rf"running here already \(process {os.getpid()}\)"
        with pytest.raises(FlowfastError, match=expected), lock.only_one():
            pass
    with lock.only_one():
        pass


def test_rollback_brings_back_what_was_before(flowfast: Flowfast, kernel: FakeKernel, config: str) -> None:
    flowfast("apply", config)
    first = kernel.nft.read(OWN)
    Path(config).write_text("devices: {lan: [lan0], wan: [wan0]}\noffload: {mode: outbound-only}\n")
    assert flowfast("apply", config).exit_code == 0
    assert kernel.nft.read(OWN) != first
    assert "Taken back" in flowfast("rollback").output
    assert kernel.nft.read(OWN) == first


def test_nothing_to_confirm_or_to_take_back_says_so(flowfast: Flowfast) -> None:
    assert str(flowfast("confirm").exception).startswith("nothing waits to be confirmed")
    assert str(flowfast("rollback").exception).startswith("nothing to take back")


def test_a_device_is_chosen_by_driver_or_feature(flowfast: Flowfast, kernel: FakeKernel, tmp_path: Path) -> None:
    kernel.links.change("wan0", driver="mlx5_core", features=frozenset({"esp-hw-offload"}))
    for wan in ("{driver: 'mlx5*'}", "{feature: esp-hw-offload}"):
        path = tmp_path / "site.yaml"
        path.write_text(f"devices: {{lan: [lan0], wan: [{wan}]}}\n")
        assert "flowtable fast on lan0, wan0" in flowfast("plan", str(path)).output
    assert kernel.links.with_features
