"""`flowfast bench`: every figure beside the same for fewer tunnels."""

import json

from click.testing import CliRunner

from flowfast.cli import cli


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["bench", "--tunnels", "400", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_figures_stand_beside_those_for_fewer_tunnels() -> None:
    figures = json.loads(run("--json"))
    plans = {figure["tunnels"]: figure for figure in figures if figure["what"] == "plan"}
    assert plans.keys() == {40, 400}
    assert plans[40]["growth"] is None
    assert plans[400]["growth"] > 0
    assert all(figure["value"] > 0 for figure in figures)
    assert {figure["unit"] for figure in figures} == {"s", "B"}
    scrapes = {figure["what"]: figure["limit"] for figure in figures if figure["tunnels"] == 400 and figure["limit"]}
    assert (scrapes["a scrape, 2 SAs a tunnel"], scrapes["a scrape, 10 SAs a tunnel"]) == (0.3, 1.0)
    assert any(figure["what"].startswith("a rekey") and figure["limit"] == 0.05 for figure in figures)


def test_the_table_shows_units_and_limits() -> None:
    lines = run().splitlines()
    assert lines[0].split()[0] == "what"
    memory = next(line for line in lines if line.startswith("memory of a plan") and " 400 " in line)
    assert "MB" in memory
    assert "150.0 MB" in memory
