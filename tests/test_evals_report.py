"""Reports as JSON: what is written is read back, and what is broken is refused in words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.report import (
    AssertionCounts,
    ItemResult,
    ReportInvalid,
    SliceRow,
    check,
    count_cases,
    from_json,
    joined,
    slice_table,
    to_json,
)
from tests.fix_reports import make_report

TEXT = st.text(max_size=20)


@given(
    st.dictionaries(TEXT.filter(bool), st.floats(0, 1), min_size=1, max_size=8),
    st.dictionaries(TEXT.filter(bool), st.sampled_from(["passed", "failed", "errored"]), max_size=5),
)
def test_a_report_survives_its_json(scores: dict[str, float], cases: dict[str, str]) -> None:
    report = make_report(scores, cases)  # type: ignore[arg-type]
    again = from_json(to_json(report))
    assert again == report
    assert again.sha256 == report.sha256


def test_the_digest_is_of_what_was_found_and_not_of_the_time_it_took() -> None:
    report = make_report([1, 0, 1])
    assert replace(report, seconds=99.0).sha256 == report.sha256
    changed = replace(report, items=(replace(report.items[0], answer="other"), *report.items[1:]))
    assert changed.sha256 != report.sha256


def test_a_report_without_clusters_and_repeats_has_the_digest_that_it_had_before_there_were_any() -> None:
    report = make_report([1, 0, 1])
    content = {key: value for key, value in json.loads(to_json(report)).items() if key not in ("seconds", "format")}
    for item in content["items"]:
        del item["cluster"], item["scores"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == report.sha256
    told = replace(report, items=(replace(report.items[0], cluster="a"), *report.items[1:]))
    assert told.sha256 != report.sha256


def test_runs_are_joined_and_what_came_again_is_a_repeat() -> None:
    first, second = make_report({"a": 1, "b": 0}).items, make_report({"b": 1, "c": 1}).items
    assert [(item.id, item.score, item.scores) for item in joined([first, second])] == [
        ("a", 1, ()), ("b", 0.5, (0, 1)), ("c", 1, ())
    ]  # fmt: skip


def test_a_truncated_report_is_refused() -> None:
    with pytest.raises(ReportInvalid, match="may be truncated"):
        from_json(to_json(make_report([1, 0]))[:-40])


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("format",), 7, "format 7"),
        (("items", 0, "score"), "1", "items.0.score"),
        (("items", 0), {"id": "x"}, "items.0.score"),
        (("assertions", "passed"), None, "assertions.passed"),
        (("fingerprint",), {}, "fingerprint.model"),
        (("surplus",), 1, "surplus"),
        (("n",), 3, "says n = 3 and holds 2"),
        (("items",), [], r"no items \(n = 0\)"),
        (("items", 1, "id"), "item-000", "item id 'item-000' more than once"),
        (("cases", 1, "id"), "case-a", "case id 'case-a' more than once"),
        (("cases", 1, "passed"), False, "counts AssertionCounts"),
    ],
)
def test_a_broken_report_is_refused_in_words(path: tuple[str | int, ...], value: object, words: str) -> None:
    found = json.loads(to_json(make_report([1, 0])))
    where = found
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    with pytest.raises(ReportInvalid, match=words):
        from_json(json.dumps(found))


@pytest.mark.parametrize("text", ["[]", "3", "null", ""])
def test_json_that_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ReportInvalid, match="evaluate again"):
        from_json(text)


def test_nan_is_refused_in_json_and_in_memory() -> None:
    text = to_json(make_report([1, 0])).replace('"score":1', '"score":NaN')
    with pytest.raises(ReportInvalid, match="NaN is not a number"):
        from_json(text)
    report = make_report([1, 0])
    with pytest.raises(ReportInvalid, match="the score of item item-000 is nan"):
        check(replace(report, items=(replace(report.items[0], score=float("nan")), report.items[1])))
    with pytest.raises(ReportInvalid, match="exact_match,none is inf"):
        check(replace(report, metrics=(("exact_match,none", float("inf")),)))


def test_errored_cases_are_not_failed_ones() -> None:
    report = make_report([1], {"a": "passed", "b": "failed", "c": "errored", "d": "errored"})
    assert count_cases(report.cases) == AssertionCounts(passed=1, failed=1, errored=2)


def test_slices() -> None:
    report = make_report([1, 0, 0, 0, 1])  # short: items 0, 2, 4; long: items 1, 3
    report = replace(report, items=(*report.items, ItemResult("no-slice", 1.0, "", "")))
    assert slice_table(report) == (
        SliceRow("length", "long", 2, 0.0),
        SliceRow("length", "short", 3, 2 / 3),
    )
