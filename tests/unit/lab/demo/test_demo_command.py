"""`flowfast demo` as typed, with a result made by hand in place of guests."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flowfast.cli import cli, main
from flowfast.cli import demo as command
from flowfast.lab.demo.events import Progress
from flowfast.lab.demo.result import Wire, result_of
from flowfast.lab.image import Image
from flowfast.lab.recipe import Recipe
from flowfast.lab.steps import BuildError
from tests.unit.lab.demo.sample import part, result

BAD = result(part(fast_wire=Wire(100, 90, 1, 0, ("10.1.0.2 > 10.2.0.2, protocol 17, 142 bytes",), 1)))
ALL = ("policy", "interface", "offload")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The arguments that the demo was played with; what it gives is under "result"."""
    seen: dict[str, Any] = {"result": result()}

    def ensure(entry: Recipe, say: Any) -> Image:
        say(f"{entry.name}: [building] it")
        return Image(entry, tmp_path, "7.2.12")

    def play(parts: Any, image: Image, *, show: Any, say: Any, keep_going: bool) -> Any:
        seen.update(parts=parts, image=image.recipe.name, keep_going=keep_going)
        for tenth in range(101):
            for which in parts:
                show(which, Progress(tenth / 100, f"step {tenth}"))
        return seen["result"]

    monkeypatch.setattr(command, "ensure", ensure)
    monkeypatch.setattr(command, "play", play)
    # Drawing takes a second, and has its own tests.
    monkeypatch.setattr(command.reports, "render", lambda whole: f"a page about {whole.date}")
    return seen


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["demo", *arguments])


def test_prints_tables_and_writes_the_report(played: dict[str, Any], tmp_path: Path) -> None:
    report = tmp_path / "demo.html"
    done = typed("--report", str(report))
    assert done.exit_code == 0
    assert "berlin" in done.stdout
    assert done.stdout.splitlines()[-1] == f"demo: all as it should be, in 99 s; report: {report}"
    assert report.read_text() == f"a page about {result().date}"
    assert (played["parts"], played["image"], played["keep_going"]) == (ALL, "debian14", False)


def test_without_a_terminal_progress_is_a_line_now_and_then(played: dict[str, Any], tmp_path: Path) -> None:
    lines = typed("--report", str(tmp_path / "demo.html")).stderr.splitlines()
    assert lines[0] == "debian14: [building] it"
    ours = [line for line in lines if "policy-based" in line]
    assert 15 < len(ours) < 30
    assert ours[0] == "   policy-based   0%  step 0"
    assert ours[-1] == "   policy-based 100%  step 100"


def test_a_demo_that_shows_what_it_should_not_exits_with_1(played: dict[str, Any], tmp_path: Path) -> None:
    played["result"] = BAD
    report = tmp_path / "demo.html"
    done = typed("--report", str(report))
    assert done.exit_code == 1
    assert "demo: policy-based: 1 packets of the tunnels' networks crossed the WAN unencrypted" in done.stderr
    assert report.exists()


def test_json_is_all_that_standard_output_gets(played: dict[str, Any], tmp_path: Path) -> None:
    done = typed("--json", "--report", str(tmp_path / "demo.html"), "--only", "policy", "--image", "debian13")
    assert result_of(json.loads(done.stdout)) == result()
    assert (played["parts"], played["image"]) == (("policy",), "debian13")


def test_an_image_without_a_nic_that_offloads_has_one_part_less_and_says_so(
    played: dict[str, Any], tmp_path: Path
) -> None:
    done = typed("--report", str(tmp_path / "demo.html"), "--image", "debian13")
    assert played["parts"] == ALL[:2]
    assert (
        "debian13: no NIC with IPsec offload can be simulated there (espsim is for debian14): left out" in done.stderr
    )


def test_a_report_that_cannot_be_written_is_said_before_the_work(played: dict[str, Any], tmp_path: Path) -> None:
    done = typed("--report", str(tmp_path / "nowhere" / "demo.html"))
    assert "nowhere (make it, or name another place with --report)" in str(done.exception)
    assert "parts" not in played


def test_an_image_that_cannot_be_built_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ensure(*_anything: Any) -> Image:
        raise BuildError("debian14: building an image needs root, or sudo (run `flowfast lab build` as root once)")

    monkeypatch.setattr(command, "ensure", ensure)
    monkeypatch.setattr(sys, "argv", ["flowfast", "demo", "--report", str(tmp_path / "demo.html")])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert (said.out, said.err) == (
        "",
        "debian14: building an image needs root, or sudo (run `flowfast lab build` as root once)\n",
    )


def test_an_image_that_does_not_exist_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["flowfast", "demo", "--image", "debian3", "--report", str(tmp_path / "demo.html")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("debian3: no such image (there are: debian14, ")
