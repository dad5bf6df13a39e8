"""The report page: what it says for each verdict, and that it is one safe, well-formed file whatever the texts are."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.gate import RuleResult
from tasks.artifacts import EvalPair, Outcome
from tasks.report import clip, duration, headline, number, render_report, short, size, write_report
from tests import fix_outcome as made
from tests.fix_page import Page
from tests.fix_reports import make_report
from tests.fix_tickets import sha

RELEASES = {make.__name__: make for make in (made.champion, made.rejected, made.inconclusive, made.undone, made.failed)}
OUTSIDE = {"script", "iframe", "object", "embed", "img", "image", "foreignObject", "base", "form"}
HOSTILE = (
    "</code></svg></details><script>alert(1)</script>\"' onload=x {{ 7*7 }} {% raw %} $\\frac$ "
    "<img src=http://x.example/y> \x00 \x1b[31m & --> ]]> パスワード"
)


@cache
def html(name: str) -> str:
    return render_report(RELEASES[name]())


@cache
def page(name: str) -> Page:
    return Page(html(name))


def judged(outcome: Outcome, rule: RuleResult) -> Outcome:
    assert outcome.decision
    return replace(outcome, decision=replace(outcome.decision, rules=(rule,)))


def hostile_pair() -> EvalPair:
    """All 320 items lost and all cases failed, with hostile ids, slices, answers, targets and reasons."""

    def side(score: float) -> object:
        report = made.first_pair().candidate
        items = tuple(
            replace(item, id=f"{k}{HOSTILE}", score=score, answer=HOSTILE, target=HOSTILE, slices=((HOSTILE, HOSTILE),))
            for k, item in enumerate(report.items)
        )
        cases = tuple(
            replace(case, id=f"{k}{HOSTILE}", group=HOSTILE, passed=score > 0, reason=HOSTILE, answer=HOSTILE)
            for k, case in enumerate(report.cases)
        )
        return replace(report, items=items, cases=cases)

    return EvalPair(side(0.0), side(1.0), HOSTILE, sha("pair"))  # type: ignore[arg-type]


def hostile() -> Outcome:
    """Every text that comes from a dataset, a model, a tool or a person is hostile."""
    whole = made.champion()
    assert whole.rollout and whole.adapter and whole.fit and whole.sample
    stages = tuple(replace(stage, name=HOSTILE, note=HOSTILE) for stage in whole.stages)
    steps = tuple(replace(step, reason=HOSTILE) for step in whole.rollout.steps)
    answers = (replace(whole.sample.answers[0], question=HOSTILE, answer=HOSTILE, sources=(HOSTILE,)),)
    return replace(
        replace(whole, name=HOSTILE, verdict="failed", stages=stages, champion_reference=HOSTILE, pair=hostile_pair()),
        reasons=(HOSTILE, "half \ud800 character"),
        adapter=replace(whole.adapter, base_model=HOSTILE, target_modules=(HOSTILE,)),
        fit=replace(whole.fit, flags=(HOSTILE,), reasons=(HOSTILE,)),
        rollout=replace(whole.rollout, steps=steps, reason=HOSTILE, engine_model=HOSTILE),
        sample=replace(whole.sample, answers=answers),
    )


@pytest.mark.parametrize("name", RELEASES)
def test_the_page_is_one_file_that_asks_for_nothing(name: str) -> None:
    found, ids = page(name), page(name).values("id")
    assert OUTSIDE.isdisjoint(found.tags)
    assert not found.values("src")
    assert not re.search(r"url\((?!#)|@import|https?:", html(name))
    assert len(ids) == len(set(ids))
    assert all(target == "data:," or target.removeprefix("#") in ids for target in found.values("href"))
    assert all(target[len("url(#") : -1] in ids for target in found.values("clip-path"))
    assert {*found.values("aria-labelledby")} <= {*ids}


@pytest.mark.parametrize("name", RELEASES)
def test_the_page_can_be_read_without_seeing_it(name: str) -> None:
    elements = page(name).elements
    assert all(attributes.get("scope") for tag, attributes in elements if tag == "th")
    assert all(attributes.get("aria-label") for _, attributes in elements if attributes.get("role") == "img")
    assert page(name).tags.count("svg") == page(name).values("role").count("img")
    assert page(name).tags.count("h1") == 1
    assert len(html(name).encode()) < 600_000


BETTER = RuleResult("superior", 0.9141, 0.8718, 0.9412, 0.0, "passed")
SENTENCES = {
    "champion": (
        BETTER,
        "ticket_router version 1 is champion: 0.91 on 320 items, +0.91 [0.87, 0.94] over the base model.",
    ),
    "rejected": (
        RuleResult("non_inferior", -0.309, -0.371, -0.247, -0.02, "rejected"),
        "ticket_router was rejected at judge: 0.60 on 320 items, −0.31 [−0.37, −0.25] against version 3.",
    ),
    "inconclusive": (
        RuleResult("non_inferior", -0.0062, -0.0224, 0.0064, -0.02, "inconclusive"),
        "ticket_router is inconclusive at judge: 0.90 on 320 items, −0.006 [−0.022, 0.006] against version 3.",
    ),
    "undone": (
        BETTER,
        "ticket_router version 1 was undone at 25 % of the traffic; it scored 0.91 on 320 items, "
        "+0.91 [0.87, 0.94] over the base model.",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_the_first_sentence_has_name_version_verdict_and_key_number(name: str) -> None:
    rule, said = SENTENCES[name]
    assert headline(judged(RELEASES[name](), rule)).replace("\u00a0", " ") == said


def test_the_first_sentence_before_the_evaluation() -> None:
    assert headline(made.failed()) == "ticket_router failed at train."
    assert headline(replace(made.failed(), stages=())) == "ticket_router failed before its first stage."


def test_a_model_that_does_not_fit_is_rejected_at_preflight() -> None:
    whole = made.champion()
    stages = (*whole.stages[:5], replace(whole.stages[5], status="rejected", note="needs 24 GiB"))
    refused = replace(made.fit(), verdict="does_not_fit", headroom_bytes=-512 * made.MIB, reasons=("It is too large.",))
    found = replace(
        whole, verdict="rejected", stages=stages, fit=refused, modelcar=None, rollout=None, contract=None, sample=None
    )
    said = "ticket_router version 1 was rejected at preflight; it scored 0.91 on 320 items"
    assert headline(found).startswith(said)
    page = Page(render_report(found))
    assert "fit" in page.values("id")
    assert "does not fit" in page.text
    assert "headroom −512 MiB" in page.text
    assert "It is too large." in page.text
    assert "Predicted against actual" not in page.text
    assert 'aria-label="GPU memory: weights 0.25 GiB' in render_report(found)


def test_predicted_stands_beside_actual() -> None:
    said = page("champion").text
    assert "serves 4,096 tokens a sequence; promised were 4,096." in said
    assert "weights and LoRA slots302 MiB322 MiB20 MiB" in said  # cells stand without a space between them
    assert "KV cache18,460 MiB18,360 MiB−100 MiB" in said
    assert "A note." in said


def test_a_rollout_without_steps_has_no_plots() -> None:
    found = replace(made.undone(), rollout=made.rollout((), "undone", "the warm-up failed"))
    assert headline(found).startswith("ticket_router version 1 was undone at the warm-up;")
    text = render_report(found)
    assert "the warm-up failed" in Page(text).text
    assert "Asked weight" not in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("champion", "Champion is now version 1."),
        ("rejected", "Champion is unchanged: version 3."),
        ("undone", "No version is champion: nothing was promoted."),
        ("failed", "Champion is unchanged: version 3."),
    ],
)
def test_the_page_says_who_is_champion(name: str, said: str) -> None:
    assert said in page(name).text


def test_a_rejected_release_shows_why_and_names_what_was_not_made() -> None:
    found = page("rejected")
    assert "3 promptfoo cases that the baseline passes now fail" in found.text
    assert "Not made in this release: model version, fit report, modelcar, rollout, RAG answers." in found.text
    assert {"stages", "gate", "training", "evidence"} <= {*found.values("id")}
    assert {"fit", "modelcar", "canary", "rag"}.isdisjoint(found.values("id"))


def test_a_champion_shows_every_section_and_the_full_digests() -> None:
    found, outcome = page("champion"), made.champion()
    sections = {"stages", "gate", "training", "fit", "modelcar", "canary", "rag", "evidence"}
    assert sections <= {*found.values("id")}
    assert outcome.modelcar and outcome.pair and outcome.adapter
    named = (outcome.modelcar.digest, outcome.pair.candidate.sha256, outcome.pair.baseline.sha256)
    assert all(digest in found.text for digest in (*named, sha("adapter"), sha("run")[:32], sha("data")))
    assert {stage.digest for stage in outcome.stages} <= {*found.values("title")}
    assert "--max-model-len=4096" in found.text
    assert "Not made" not in found.text


@pytest.mark.parametrize("part", ["pair", "decision", "adapter", "fit", "rollout", "version"])
def test_any_part_may_be_missing(part: str) -> None:
    assert "Not made in this release" in Page(render_report(replace(made.champion(), **{part: None}))).text


def test_reports_on_different_items_still_have_a_page() -> None:
    pair = EvalPair(make_report({"a": 1.0}, {}), make_report({"b": 1.0}, {}), None, "")
    assert "no item in common" in Page(render_report(replace(made.failed(), pair=pair))).text


def test_hostile_text_is_only_text() -> None:
    found = Page(render_report(hostile()))
    assert OUTSIDE.isdisjoint(found.tags)
    assert not any(key.startswith("on") for _, attributes in found.elements for key in attributes)
    assert "{{ 7*7 }}" in found.text and "<script>alert(1)</script>" in found.text


@settings(max_examples=30)
@given(st.text(), st.text())
def test_no_text_breaks_the_nesting(reason: str, note: str) -> None:
    stages = tuple(replace(stage, note=note) for stage in made.failed().stages)
    page = Page(render_report(replace(made.failed(), reasons=(reason,), stages=stages)))
    assert {"stages", "evidence"} <= {*page.values("id")}


def test_many_long_answers_stay_below_600_kb() -> None:
    """3000 lost items, each with a slice value of its own."""
    worse = make_report((0.0,) * 3000, {})
    items = tuple(
        replace(item, answer="an answer " * 900, target="x" * 9000, slices=(("team", f"team {place}"),))
        for place, item in enumerate(worse.items)
    )
    right = tuple(replace(item, score=1.0) for item in items)
    pair = EvalPair(replace(worse, items=items), replace(worse, items=right), None, "")
    text = render_report(replace(made.failed(), pair=pair))
    assert len(text.encode()) < 600_000
    assert "The first 100 of 3000." in text


def test_the_report_is_written_whole_and_the_same_every_time(tmp_path: Path) -> None:
    path = write_report(tmp_path, made.champion())
    assert path.read_text() == html("champion")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_half_a_character_does_not_lose_the_report(tmp_path: Path) -> None:
    path = write_report(tmp_path, replace(made.failed(), reasons=("half \ud800 character",)))
    assert "half ? character" in path.read_text()


def test_values_with_units() -> None:
    assert [duration(t) for t in (0.03, 9.94, 59.4, 163.4, 7260)] == [
        "< 0.1 s",
        "9.9 s",
        "59 s",
        "2 min 43 s",
        "2 h 1 min",
    ]
    assert [size(count) for count in (12, 2048, 269_060_552, 3 * 1024**3)] == [
        "12 B",
        "2.0 KiB",
        "256.6 MiB",
        "3.00 GiB",
    ]
    assert [number(value) for value in (-0.001, -0.309, 0.5)] == ["0.00", "−0.31", "0.50"]
    assert short("sha256:0123456789abcdef") == "0123456789ab"
    assert (clip("a" * 400), clip("a" * 401)) == ("a" * 400, "a" * 400 + "…")
