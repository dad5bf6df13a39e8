"""The one value and its forms: rows and slices counted by hand, JUnit and Markdown with hostile text, the page's promises."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from xml.etree.ElementTree import XML

import pytest

from evals.gate import GatePolicy, decide
from evals.gate_junit import to_junit
from evals.gate_markdown import MARKER, to_markdown
from evals.gate_sentences import change_headline, text_lines
from evals.gated import GatedChange, GatedSuite, ItemDiff, diff_cases, diff_items, document, slice_diffs, used_ids
from tasks.gate_page import ordered, render_gate
from tests.fix_page import Page
from tests.fix_reports import Outcome, make_report

POLICY = GatePolicy(rule="non_inferior", margin=0.1, min_items=10)
HOSTILE = "<script>alert(1)</script> | `x` @team\n</details> ]]> \x00\x1b **b** é ${x}"


def gated(
    before: list[float], after: list[float], policy: GatePolicy = POLICY, cases: dict[str, Outcome] | None = None
) -> GatedSuite:
    baseline, candidate = make_report(before), make_report(after, cases, model="next")
    decision = decide(candidate, baseline, policy)
    used = used_ids(candidate, decision, policy)
    items = diff_items(candidate, baseline, used, {"item-000": "Where is it?"})
    return GatedSuite("tickets", ("prompt",), policy.metric, decision, items, diff_cases(candidate, baseline))


def hostile() -> GatedChange:
    one = gated([1.0] * 40, [0.0] * 40)
    bad = ItemDiff("item-000", (("length", HOSTILE),), HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1.0, 0.0)
    return GatedChange("a" * 40, "b" * 40, (replace(one, suite=HOSTILE, items=(bad,), notes=(HOSTILE,)),), (HOSTILE,))


def test_items_are_sorted_into_four_changes_and_slices_count_them() -> None:
    one = gated([1, 1, 0, 0, 1, 1, 0, 0] * 2, [1, 0, 1, 0, 1, 0, 1, 0] * 2)
    assert [
        len(one.changed(kind)) for kind in ("newly failing", "newly passing", "still failing", "still passing")
    ] == [4] * 4
    # even items are in length=short: right before 1, 0, 1, 0 …, now all right; odd ones the other way round
    rows = {row.value: (row.n, row.baseline, row.candidate, row.fell, row.rose) for row in slice_diffs(one.items)}
    assert rows == {"short": (8, 0.5, 1.0, 0, 4), "long": (8, 0.5, 0.0, 4, 0)}
    assert [item.change for item in ordered(one)][:4] == ["newly failing"] * 4


def test_with_blocks_only_the_items_used_are_shown() -> None:
    one = gated([1.0] * 200, [0.0] * 200, replace(POLICY, block=10))
    assert one.decision.verdict == "rejected"
    assert len(one.items) == one.decision.items_used < 100
    assert {item.id for item in one.items} == set(one.decision.item_flips.newly_failing)


@pytest.mark.parametrize(
    ("after", "verdict", "code"),
    [([1.0] * 40, "passed", 0), ([0.0] * 40, "rejected", 3), ([1.0] * 38 + [0.0] * 2, "inconclusive", 4)],
)
def test_every_form_says_the_same(after: list[float], verdict: str, code: int) -> None:
    change = GatedChange("a" * 40, "b" * 40, (gated([1.0] * 40, after),))
    told, junit = document(change), XML(to_junit(change).encode())
    assert (change.verdict, change.exit_code, told["verdict"], told["exit_code"]) == (verdict, code, verdict, code)
    red = int(junit.get("failures", "0")) + int(junit.get("errors", "0"))
    assert (red == 0) == (code == 0)
    assert verdict in to_markdown(change).splitlines()[2]
    assert text_lines(change)[0].startswith(f"{verdict}: ")
    assert f"Exit code {code}" in Page(render_gate(change).replace("<!doctype html>", "")).text


def test_a_doubt_that_no_rule_shows_is_red_in_junit_too() -> None:
    one = gated([1.0] * 60, [1.0] * 60, cases={"case-a": "passed", "case-b": "errored"})
    assert one.decision.verdict == "inconclusive"
    root = XML(to_junit(GatedChange("", "", (one,))).encode())
    (verdict,) = [case for case in root.iter("testcase") if case.get("name") == "verdict"]
    assert verdict.find("error") is not None


def test_the_worst_suite_decides_and_no_suite_passes() -> None:
    good, bad = gated([1.0] * 60, [1.0] * 60), gated([1.0] * 60, [0.0] * 60)
    both = GatedChange("a", "b", (good, bad))
    assert (both.verdict, GatedChange("a", "b", ()).verdict) == ("rejected", "passed")
    assert "of 2 suites 1 rejected, 1 passed" in change_headline(both)
    assert len(XML(to_junit(both).encode())) == 2


def test_hostile_text_stays_text() -> None:
    change = hostile()
    markdown, page = to_markdown(change), render_gate(change)
    assert "<script>" not in markdown and "@team" not in markdown and "`x`" not in markdown and "**b**" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("| <code>")]
    assert len(rows) == 1 and rows[0].count("|") == 6
    assert markdown.count("</details>") == 1
    assert page.count("<script>") == 1, "only the page's own"
    root = XML(to_junit(change).encode())
    assert "alert(1)" in "".join(root.itertext())


def test_a_long_comment_is_cut_where_it_may_be() -> None:
    one = gated([1.0] * 400, [0.0] * 400)
    long = replace(one, items=tuple(replace(item, candidate_answer="x" * 5000) for item in one.items))
    full = to_markdown(GatedChange("a", "b", (long,)))
    assert "360 more are in the report." in full and len(full.encode()) < 60_000
    short = to_markdown(GatedChange("a", "b", (long,)), most_bytes=5_000)
    assert short.startswith(MARKER) and "400 more are in the report." not in short.split("<details>")[0]
    assert len(short.encode()) <= 5_000 and one.decision.reasons[0][:20].split(",")[0].replace("_", "&#95;") in short


def test_the_page_runs_its_own_script_only_and_says_so_by_digest() -> None:
    page = render_gate(hostile())
    script = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script[-1].encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}" in page or f"script-src 'sha256-{digest}'" in page
    assert (
        "default-src 'none'" in page
        and "http://" not in page.replace("http://www.w3.org", "")
        and "https://" not in page
    )


def test_items_that_fail_in_every_repeat_are_named_everywhere() -> None:
    one = gated([1.0] * 60, [1.0] * 60)
    named = replace(one, decision=replace(one.decision, always_failing=("item-007",)))
    change = GatedChange("a", "b", (named,))
    assert document(change)["suites"][0]["always_failing"] == ["item-007"]
    assert all("item-007" in text for text in (to_markdown(change), render_gate(change), "\n".join(text_lines(change))))
