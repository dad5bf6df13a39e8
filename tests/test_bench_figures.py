"""The form in which benches end, the page that `make bench` writes, and what counts as worse."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.bench.figures import Ending, Figure, NoEnding, end, read_ending
from tests.bench.figures_page import key_of, read, regressions, render, row_of, worse, write
from tests.bench.run_benches import DATA, PAGE, REASONS, ROOT, arguments_of, benches, chosen

QUICK = Figure("push", 2.0, "s", "lower", 2.5, (1.9, 2.2), {"curl": 1.5})


def row(figure: Figure, short: bool = False, on: str = "one") -> dict[str, object]:
    return row_of(Ending("b", (figure,), short), "make bench-b", on, "2026-11-28", "abc", 3)


def test_a_line_is_read_back_as_it_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert end("modelcar", [QUICK], details={"more": 1}) == 0
    said = read_ending("a table\n" + capsys.readouterr().out)
    assert said == Ending("modelcar", (QUICK,))


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("at the goal", 2.5, goal=2.5), True),
        (Figure("over", 2.6, goal=2.5), False),
        (Figure("enough", 3.0, better="higher", goal=2.5), True),
        (Figure("too little", 2.0, better="higher", goal=2.5), False),
        (Figure("not measured", float("nan"), goal=2.5), False),
        (Figure("no goal", 99.0), True),
    ],
)
def test_a_goal_is_met_in_its_direction(figure: Figure, met: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert figure.met is met
    assert end("b", [figure]) == (0 if met else 1)
    assert end("b", [figure], short=True, judged=False) == 0
    out = capsys.readouterr().out
    assert ("missed: " + figure.name in out) is not met
    assert (read_ending(out).missed == (figure.name,)) is not met


@pytest.mark.parametrize("output", ["", "skipped: no cluster", '{"bench": "x"}', "[1]", "{}"])
def test_an_output_without_figures_is_told(output: str) -> None:
    with pytest.raises(NoEnding, match="required is the line"):
        read_ending(output)


@pytest.mark.parametrize(
    ("old", "new", "by"),
    [
        (Figure("t", 1.0), Figure("t", 1.09), None),  # inside the noise of 10 %
        (Figure("t", 1.0), Figure("t", 1.2), 0.2),
        (Figure("t", 1.0, spread=(1.0, 1.3)), Figure("t", 1.2), None),  # inside the spread of then
        (Figure("t", 1.0), Figure("t", 1.5, spread=(1.05, 1.6)), None),  # inside the spread of now
        (Figure("r", 100, better="higher"), Figure("r", 80, better="higher"), 0.2),
        (Figure("r", 100, better="higher"), Figure("r", 150, better="higher"), None),
        (Figure("lost", 0), Figure("lost", 1), float("inf")),
        (Figure("lost", 0), Figure("lost", 0), None),
    ],
)
def test_worse_is_beyond_spread_and_noise(old: Figure, new: Figure, by: float | None) -> None:
    assert worse(old, new) == (by if by is None else pytest.approx(by))


def test_a_regression_is_told_with_both_values_and_only_on_the_same_machine() -> None:
    slow = Figure("push", 4.0, "s")
    (said,) = regressions({"b": row(QUICK)}, {"b": row(slow)})
    assert said == "b: push: 4 s, was 2 s on 2026-11-28 (100% worse)"
    assert regressions({"b": row(QUICK, on="another")}, {"b": row(slow)}) == []
    assert regressions({}, {"b": row(slow)}) == []


def test_the_page_has_figure_spread_goal_peer_command_machine_and_date() -> None:
    page = render({"b": row(QUICK)}, {})
    assert "| push | 2 s | 1.9 s to 2.2 s | at most 2.5 s | yes | curl 1.5 s |" in page
    assert "`make bench-b`, 3 s, 2026-11-28, one" in page
    assert "None of the figures below." in page


def test_a_missed_goal_stands_first_with_its_reason() -> None:
    rows = {"b": row(Figure("push", 3.0, "s", goal=2.5))}
    assert "- **b, push**: 3 s, goal at most 2.5 s. The disk is slow; tried two." in render(
        rows, {"b: push": "The disk is slow; tried two."}
    )
    assert "No reason is written yet." in render(rows, {})


def test_a_short_run_does_not_take_a_full_ones_place(tmp_path: Path) -> None:
    full, short = row(QUICK), row(Figure("push", 77.0, "s"), short=True)
    rows = {key_of("b", False): full, key_of("b", True): short}
    write(rows, tmp_path / "figures.json", tmp_path / "figures.md", {})
    assert read(tmp_path / "figures.json") == json.loads(json.dumps(rows))
    page = (tmp_path / "figures.md").read_text()
    assert "| push | 2 s |" in page
    assert "77 s" not in page
    assert "## b (short)" in render({key_of("b", True): short}, {})


def test_all_benches_of_make_help_run_by_default_and_an_unknown_one_is_refused() -> None:
    known = benches((ROOT / "Makefile").read_text())
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {f"bench-{name}" for name in known} | {"bench"} == set(
        re.findall(r"^  make (bench\S*)", helped, re.MULTILINE)
    )
    assert chosen([], known, short=False) == known
    with pytest.raises(SystemExit, match="no bench is named modlecar"):
        chosen(["modlecar"], known, short=False)
    assert arguments_of("rag", True, "peers/python") == "--short --peers peers/python"
    assert arguments_of("modelcar", False, "peers/python") == ""
    assert (arguments_of("adapters", False, None), arguments_of("adapters", True, None)) == ("--plot", "--short")


def test_the_other_stores_of_bench_rag_are_those_that_ran() -> None:
    from tests.bench.bench_rag import qps_of_others

    peers = {
        "rows": 10,
        "liftlock": {"qps": 3.0},
        "langchain": {"qps": 2.0},
        "llamaindex": {"error": "no such package"},
    }
    assert qps_of_others(peers) == {"langchain": 2.0}


@pytest.mark.slow
def test_a_bench_that_ran_ends_in_the_form() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_coherence"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    (figure,) = read_ending(done.stdout).figures
    assert figure.goal == 3.0
    assert figure.spread is not None
    assert figure.beside
    assert done.returncode == (0 if figure.met else 1)


def test_the_committed_page_is_what_the_committed_figures_give() -> None:
    reasons = yaml.safe_load(REASONS.read_text()) or {}
    assert PAGE.read_text() == render(read(DATA), reasons)


@pytest.mark.parametrize("file", sorted((ROOT / "tests" / "bench").glob("bench_*.py")), ids=lambda file: file.stem)
def test_every_bench_ends_in_the_form_and_has_a_target(file: Path) -> None:
    tree = ast.parse(file.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Return) and isinstance(node.value, ast.Call)]
    names = [node.value.args[0].value for node in calls if getattr(node.value.func, "id", "") == "end"]  # type: ignore[union-attr]
    assert names == [file.stem.removeprefix("bench_").replace("_", "-")]
    assert names[0] in benches((ROOT / "Makefile").read_text())
