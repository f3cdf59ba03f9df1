"""The matrix of `lab qualify`, what it makes of a guest's words, and the table on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from flowfast.cli.lab import lab
from flowfast.lab.machine import GuestError, Machine, Result
from flowfast.lab.qualify.host import matrix, qualify
from flowfast.lab.qualify.kinds import KINDS, Tcp, Udp
from flowfast.lab.qualify.scenario import groups, judge
from flowfast.lab.qualify.traffic import Arrived
from flowfast.model.bulk import Case, Cell, Side, Stage, Verdict, kernel_id
from flowfast.qualified import case_json, case_of, cells, kernels, save

QUIET = {"bad checksums": 0, "refused by xfrm": 0, "retransmitted": 0}


def test_every_kind_has_a_name_of_its_own_and_packets_that_differ() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        if isinstance(kind, Udp) and kind.size:
            flow = [kind.payload(0, number) for number in range(kind.count // 2)]
            assert len(set(flow)) == len(flow)
            assert {len(payload) for payload in flow} == {kind.size}


def test_cases_without_the_module_come_first_and_cross_the_pipe_unchanged() -> None:
    cases = matrix(["veth", "igb"], outers=(4, 6))
    order = [key[0] for key in groups(cases)]
    assert order == sorted(order)
    assert [case_of(json.loads(json.dumps(case_json(case)))) for case in cases] == cases
    assert {case.finished for case in cases if case.driver == "igb"} == {True}


@pytest.mark.parametrize(
    ("kind", "arrived", "trouble", "verdict"),
    [
        (Udp(4, 18), Arrived(96, 96, 0), {}, Verdict.WHOLE),
        (Udp(4, 18), Arrived(96, 95, 0), {}, Verdict.LOST),
        (Udp(4, 18), Arrived(96, 96, 1), {}, Verdict.CORRUPT),
        (Udp(4, 18), Arrived(96, 0, 0), {"bad checksums": 96}, Verdict.CORRUPT),
        (Tcp(4, 12_000, mss=88), Arrived(12_000, 12_000, 0), {}, Verdict.WHOLE),
        (Tcp(4, 12_000, mss=88), Arrived(12_000, 12_000, 0), {"refused by xfrm": 1}, Verdict.LOST),
        (Tcp(4, 12_000, mss=88), Arrived(12_000, 12_000, 0), {"retransmitted": 60}, Verdict.LOST),
        (Tcp(4, 12_000, mss=88), Arrived(12_000, 12_000, 0), {"bad checksums": 2}, Verdict.CORRUPT),
    ],
)
def test_tcp_does_not_hide_what_it_repairs(
    kind: Udp | Tcp, arrived: Arrived, trouble: dict[str, int], verdict: Verdict
) -> None:
    assert judge(kind, arrived, QUIET | trouble) is verdict


CASES = matrix(["virtio_net"], topologies=["policy"], stages=[Stage.LIST])


class Guests:
    """Guests that say what a test wrote down; the last word of one may be a panic."""

    def __init__(self, *says: tuple[list[object], bool]) -> None:
        self.says = list(says)
        self.asked: list[list[Case]] = []

    def run(self, argv: list[str], stdout: object) -> Result:
        events, dies = self.says.pop(0)
        self.asked.append([case_of(each) for each in json.loads(argv[-1])])
        data = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        for start in range(0, len(data), 7):
            stdout(data[start : start + 7])  # type: ignore[operator]
        if dies:
            raise GuestError("debian14: Kernel panic - not syncing: Fatal exception in interrupt", "")
        return Result(0, data, b"", "", 1.0, 1.0)


def whole(case: Case) -> list[object]:
    told: list[object] = [{"case": case_json(case)}]
    for kind in KINDS:
        told += [{"kind": kind.name}, {"kind": kind.name, "verdict": "whole", "sent": 96, "got": 96}]
    return [*told, {"merged": 3.1}, {"done": True}]


def test_a_guest_that_dies_is_booted_again_for_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *rest = CASES
    dying = [*whole(first), {"case": case_json(second)}, {"kind": KINDS[0].name}]
    guests = Guests((dying, True), ([event for case in rest for event in whole(case)], False))
    monkeypatch.setattr(Machine, "run", guests.run)
    found: list[Cell] = []
    qualify("debian14", "virtio_net", CASES, told=found.append, say=lambda _line: None)
    assert [cell.case for cell in found] == CASES
    assert guests.asked == [CASES, rest]
    assert found[0].failing() == {}
    assert found[0].merged == 3.1
    failing = found[1].failing()
    assert failing[KINDS[0].name] is Verdict.PANIC
    assert set(failing.values()) == {Verdict.PANIC, Verdict.UNKNOWN}
    assert len(failing) == len(KINDS)


def test_what_cannot_be_tried_is_said_has_no_cell_and_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = CASES
    told = [*whole(first), {"impossible": case_json(second), "why": "no native XDP"}]
    guests = Guests((told, False))
    monkeypatch.setattr(Machine, "run", guests.run)
    found: list[Cell] = []
    said: list[str] = []
    qualify("debian14", "virtio_net", [first, second], told=found.append, say=said.append)
    assert [cell.case for cell in found] == [first]
    assert guests.asked == [[first, second]]
    assert said == [f"{second}: cannot be tried: no native XDP"]


def test_the_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    case = Case("veth", False, "policy", 4, Side.LAN, Stage.LIST, True)
    one = Cell(case, "2026-11-24", {"udp4-1": Verdict.LOST, "udp4-60": Verdict.WHOLE}, 3.1)
    other = Cell(CASES[0], "2026-11-24", {"udp4-1": Verdict.WHOLE, "udp4-60": Verdict.WHOLE}, None)
    save("7.2.12+deb14-amd64", "debian14", [one], tmp_path)
    save("7.2.12+deb14-amd64", "debian14", [other], tmp_path)
    assert set(map(str, cells("7.2.12+deb14-cloud-amd64", tmp_path))) == {str(one), str(other)}
    assert kernels(tmp_path) == ("7.2.12+deb14",)
    assert cells("7.2.13+deb14-amd64", tmp_path) == ()
    again = Cell(case, "2026-11-25", {"udp4-1": Verdict.WHOLE, "udp4-60": Verdict.WHOLE}, 3.1)
    save("7.2.12+deb14-amd64", "debian14", [again], tmp_path)
    assert [cell.failing() for cell in cells("7.2.12+deb14-amd64", tmp_path)] == [{}, {}]


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("7.2.12+deb14-amd64", "7.2.12+deb14"),
        ("7.3.4+deb13-cloud-amd64", "7.3.4+deb13"),
        ("6.1.0-50-amd64", "6.1.0-50"),
        ("6.12.5", "6.12.5"),
    ],
)
def test_a_kernel_is_known_without_its_flavour(release: str, name: str) -> None:
    assert kernel_id(release) == name


def test_the_command_asks_for_what_its_options_say_and_fills_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, int]] = []

    def run(image: str, driver: str, cases: list[Case], *, told: Callable[[Cell], None], say: object) -> None:
        asked.append((image, driver, len(cases)))
        told(Cell(cases[0], "2026-11-24", {"udp4-1": Verdict.LOST, "udp4-60": Verdict.WHOLE}, 3.1))

    monkeypatch.setattr("flowfast.cli.lab.run_cases", run)
    monkeypatch.setattr("flowfast.cli.lab.images.ensure", lambda *_: SimpleNamespace(kernel="7.2.12+deb14-amd64"))
    options = ["--driver", "igb", "--topology", "policy", "--stage", "gro-list", "--stage", "off"]
    result = CliRunner().invoke(lab, ["qualify", *options, "--into", str(tmp_path)])
    assert result.exit_code == 0, result.output
    # Two stages, two sides, with the module and without; and the shield for what merges on the LAN before it.
    assert asked == [("debian14", "igb", 9)]
    assert "udp4-1 lost" in result.output
    (cell,) = cells("7.2.12+deb14-amd64", tmp_path)
    assert cell.failing() == {"udp4-1": Verdict.LOST}
