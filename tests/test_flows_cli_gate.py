"""`liftlock gate compare` and `plan` as their user runs them: verdicts, exit codes, the JSON, and refusals in words."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app, main

Row = dict[str, Any]


def write(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(better: int, worse: int, both: int) -> tuple[list[Row], list[Row]]:
    """(baseline, candidate), in different orders."""
    scores = [(0, 1)] * better + [(1, 0)] * worse + [(1, 1)] * both
    before = [{"id": f"i{n}", "score": old} for n, (old, _) in enumerate(scores)]
    after = [{"id": f"i{n}", "score": new} for n, (_, new) in enumerate(scores)]
    random.Random(0).shuffle(after)
    return before, after


def files(tmp_path: Path, before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    return [str(write(tmp_path / "baseline.jsonl", before)), str(write(tmp_path / "candidate.jsonl", after))]


def run(arguments: Sequence[str]) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["gate", *arguments])
    return found.exit_code, found.output


@pytest.mark.parametrize(
    ("table", "options", "verdict", "code"),
    [
        ((60, 10, 330), ["--superior"], "passed", 0),
        ((10, 60, 330), ["--superior"], "rejected", 3),
        ((20, 20, 360), ["--superior"], "inconclusive", 4),
        ((20, 20, 360), ["--non-inferior", "0.05"], "passed", 0),
        ((20, 20, 360), ["--non-inferior", "0.05", "--floor", "0.97"], "rejected", 3),
        ((20, 20, 360), ["--non-inferior", "0.05", "--floor", "0.9"], "passed", 0),
    ],
)
def test_the_verdict_the_document_and_the_exit_code(
    tmp_path: Path, table: tuple[int, int, int], options: list[str], verdict: str, code: int
) -> None:
    found_code, out = run(["compare", *files(tmp_path, *rows_of(*table)), *options, "--json"])
    found = json.loads(out)
    assert (found["verdict"], found["exit_code"], found_code) == (verdict, code, code)
    assert set(found) == {
        "verdict", "exit_code", "difference", "interval", "items_used", "items_total", "items_needed", "reasons",
    }  # fmt: skip
    assert found["difference"] == pytest.approx((table[0] - table[1]) / sum(table))
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    assert found["items_total"] == sum(table)


def test_in_blocks_it_stops_early_and_says_after_how_many(tmp_path: Path) -> None:
    both = files(tmp_path, *rows_of(10, 200, 590))
    code, out = run(
        ["compare", *both, "--non-inferior", "0.05", "--sequential", "--block", "16", "--seed", "5", "--json"]
    )
    found = json.loads(out)
    assert (code, found["items_total"]) == (3, 800)
    assert found["items_used"] < 160
    assert found["items_used"] % 16 == 0
    assert f"{found['items_used']} of 800 asked" in found["reasons"][0]
    assert run(["compare", *both, "--non-inferior", "0.05", "--sequential", "--seed", "5", "--json"])[1] != out


def test_inconclusive_says_how_many_items_would_decide(tmp_path: Path) -> None:
    both = files(tmp_path, *rows_of(24, 16, 160))
    code, out = run(["compare", *both, "--superior", "--json"])
    needed = json.loads(out)["items_needed"]
    deviation2 = 40 / 200 - 0.04**2
    expected = ((NormalDist().inv_cdf(0.95) + NormalDist().inv_cdf(0.8)) ** 2) * deviation2 / 0.04**2
    assert code == 4
    assert needed == pytest.approx(expected, rel=0.02)
    assert f"about {needed} items in all would decide" in out


def test_graded_scores_repeats_and_clusters(tmp_path: Path) -> None:
    draw = random.Random(2)
    before = [
        {"id": f"i{n}", "repeat": r, "score": round(draw.random() * 0.5 * (n > 2), 3), "doc": n // 4}
        for n in range(80)
        for r in range(3)
    ]
    after = [{**row, "score": row["score"] + 0.2 if row["score"] else 0.0} for row in before]
    code, out = run(["compare", *files(tmp_path, before, after), "--cluster", "doc", "--json"])
    found = json.loads(out)
    assert (code, found["verdict"], found["items_used"]) == (0, "passed", 80)
    assert any("3 items failed in every repeat: i0, i1, i2" in reason for reason in found["reasons"])


Broken = Callable[[list[Row], list[Row]], tuple[list[Row], list[Row]]]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda old, new: (old, []), "has no results (n = 0)"),
        (lambda old, new: (old, [*new, new[0]]), "twice; ids must be unique"),
        (lambda old, new: (old, new[1:]), "ids are on one side only"),
        (lambda old, new: (old, [{**new[0], "score": float("nan")}, *new[1:]]), "score is nan"),
        (lambda old, new: (old, [{**new[0], "score": 7}, *new[1:]]), "must lie in [0, 1]"),
        (lambda old, new: (old, [{"id": "i1", "f1": 0.2}]), "lacks the metric 'score'; it has f1"),
        (lambda old, new: (old[:3], [row for row in new if row["id"] in ("i0", "i1", "i2")]), "can never show"),
    ],
)
def test_bad_files_are_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: Broken, words: str
) -> None:
    arguments = files(tmp_path, *broken(*rows_of(5, 5, 60)))
    assert refused(monkeypatch, capsys, ["compare", *arguments, "--non-inferior", "0.05"]).count(words) == 1


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """What it says on standard error, on one line; the exit code is 2."""
    monkeypatch.setattr("sys.argv", ["liftlock", "gate", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (2, "")
    assert "Traceback" not in said.err
    return " ".join(said.err.split())


def test_a_truncated_file_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = files(tmp_path, *rows_of(5, 5, 60))
    text = Path(new).read_text()
    Path(new).write_text(text[:-8])
    said = refused(monkeypatch, capsys, ["compare", old, new])
    assert "candidate.jsonl:70 is not JSON" in said
    assert "may be truncated" in said


def test_lm_eval_samples_are_read_by_metric_and_filter(tmp_path: Path) -> None:
    def sample(n: int, score: float, name: str) -> Row:
        doc = {"id": f"q{n}"}
        return {
            "doc_id": n,
            "doc": doc,
            "filter": name,
            "metrics": ["exact_match"],
            "exact_match": score,
            "doc_hash": f"{n}",
        }

    old = [sample(n, float(n % 2), name) for n in range(200) for name in ("strict", "loose")]
    new = [sample(n, 1.0 if name == "strict" else 0.0, name) for n in range(200) for name in ("strict", "loose")]
    both = files(tmp_path, old, new)
    assert run(["compare", *both, "--metric", "exact_match,strict"])[0] == 0
    assert run(["compare", *both, "--metric", "exact_match,loose"])[0] == 3


def test_plan_is_the_textbook_formula(tmp_path: Path) -> None:
    code, out = run(["plan", "--margin", "0.05", "--rate", "0.8", "--correlation", "0.4", "--items", "320", "--json"])
    found, z = json.loads(out), NormalDist().inv_cdf(0.95)
    variance = 2 * 0.8 * 0.2 * 0.6
    assert code == 0
    assert found["items_needed"] == ceil((2 * z) ** 2 * variance / 0.05**2) == 832
    assert found["detectable"] == pytest.approx(2 * z * (variance / 320) ** 0.5)
    old, new = files(tmp_path, *rows_of(20, 20, 160))
    from_runs = json.loads(run(["plan", "--baseline", old, "--again", new, "--json"])[1])
    assert from_runs["deviation"] == pytest.approx((40 / 199) ** 0.5)
    assert from_runs["items_at_hand"] == 200


def test_the_noise_of_two_runs_refuses_a_margin_below_it(tmp_path: Path) -> None:
    both = files(tmp_path, *rows_of(3, 3, 194))
    code, out = run(["aa", *both, "--json"])
    found = json.loads(out)
    assert (code, found["items"], len(found["flipped"]), found["allowed"]) == (0, 200, 6, None)
    assert run(["aa", *both, "--margin", "0.05"])[0] == 0
    code, out = run(["aa", *both, "--margin", "0.01"])
    assert code == 3
    assert out.startswith("6 of 200 items differ between the runs")
    assert "0.01 lies below" in out


def test_runs_of_other_items_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = rows_of(3, 3, 20)
    assert "in one run only" in refused(monkeypatch, capsys, ["aa", *files(tmp_path, old, new[:-1])])


def test_the_other_forms_say_what_the_text_says(tmp_path: Path) -> None:
    old, new = rows_of(10, 60, 330)
    told = [
        [{**row, "question": f"Q {row['id']}", "answer": f"{side} <b>", "target": "t"} for row in rows]
        for side, rows in (("old", old), ("new", new))
    ]
    forms = {name: tmp_path / f"report.{name}" for name in ("junit", "markdown", "html")}
    options = [f"--{name}={path}" for name, path in forms.items()]
    code, out = run(["compare", *files(tmp_path, *told), "--non-inferior", "0.05", *options])
    text = {name: path.read_text() for name, path in forms.items()}
    assert code == 3
    assert out.startswith("rejected:")
    assert '<failure type="rejected"' in text["junit"]
    assert text["junit"].count("newly failing: i") == 60
    assert "❌ rejected" in text["markdown"]
    assert "<summary>60 newly failing</summary>" in text["markdown"]
    assert "candidate.jsonl was rejected" in text["html"]
    assert "Q i10" in text["html"]
    assert "new &lt;b&gt;" in text["html"]


def test_a_form_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(
        monkeypatch, capsys, ["compare", "gone.jsonl", "gone.jsonl", "--html", str(tmp_path / "no" / "x.html")]
    )
    assert "lies in a folder that does not exist" in said
