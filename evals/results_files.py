"""Scores from files of results: plain JSON lines, lm-eval's samples, promptfoo's output. results_rows.py reads the files.

Plain: one {"id": …, "score": …} a line, with "repeat" where an item was asked more than once, "slices" (a mapping), any
key that `--cluster` names, and "question", "answer" and "target" for a reader. lm-eval: samples_TASK_DATE.jsonl of
`--log_samples`. promptfoo: `eval -o results.json`.
Nothing is guessed: what has no usable score is refused, with its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from evals.promptfoo_runner import ERRORED, THREW
from evals.results_rows import ResultsInvalid as ResultsInvalid
from evals.results_rows import Row, read_rows


@dataclass(frozen=True)
class Scored:
    """One answer. `content` is a digest of what was asked where the file has one, so that an id cannot change meaning.

    `question`, `answer` and `target` are for a reader; "" where the file does not hold them.
    """

    id: str
    repeat: int
    score: float
    cluster: str
    slices: tuple[tuple[str, str], ...]
    content: str
    question: str = ""
    answer: str = ""
    target: str = ""


@dataclass(frozen=True)
class Results:
    """All answers of a file, in its order, and the name of the metric that was read."""

    path: Path
    metric: str
    scored: tuple[Scored, ...]


def read_results(path: Path, metric: str | None, cluster: str | None) -> Results:
    """`metric` is a key of the rows; lm-eval's may name its filter too, "exact_match,strict". Raises ResultsInvalid."""
    rows = read_rows(path)
    if not rows:
        raise ResultsInvalid(f"{path} has no results (n = 0); give a file with one result an item")
    kind = _lm_eval if _is_lm_eval(rows[0][1]) else _promptfoo if "testCase" in rows[0][1] else _plain
    found_metric, scored = kind(path, rows, metric, cluster)
    _check_unique(path, scored)
    return Results(path, found_metric, scored)


def _is_lm_eval(row: Row) -> bool:
    return {"doc_id", "doc", "filter"} <= set(row)


def _plain(
    path: Path, rows: list[tuple[str, Row]], metric: str | None, cluster: str | None
) -> tuple[str, tuple[Scored, ...]]:
    key = metric or "score"
    return key, tuple(
        Scored(
            id=_name(place, row),
            repeat=_repeat(place, row),
            score=_score(place, row, key),
            cluster=_cluster(place, row, cluster) or _name(place, row),
            slices=_slices(place, row.get("slices", {})),
            content="",
            question=_text(row.get("question")),
            answer=_text(row.get("answer")),
            target=_text(row.get("target")),
        )
        for place, row in rows
    )


def _lm_eval(
    path: Path, rows: list[tuple[str, Row]], metric: str | None, cluster: str | None
) -> tuple[str, tuple[Scored, ...]]:
    filters = sorted({str(row["filter"]) for _, row in rows if _is_lm_eval(row)})
    key, _, wanted = (metric or _only_metric(path, rows)).partition(",")
    if not wanted and len(filters) > 1:
        raise ResultsInvalid(f"{path} has the filters {', '.join(filters)}; choose one, as --metric {key},{filters[0]}")
    if wanted and wanted not in filters:
        raise ResultsInvalid(f"{path} lacks the filter {wanted!r} of the metric; it has {', '.join(filters)}")
    chosen = [(place, row) for place, row in rows if not wanted or str(row.get("filter")) == wanted]
    return f"{key},{wanted or filters[0]}", tuple(_sample(place, row, key, cluster) for place, row in chosen)


def _sample(place: str, row: Row, key: str, cluster: str | None) -> Scored:
    if not _is_lm_eval(row) or not isinstance(row["doc"], dict):
        raise ResultsInvalid(f"{place} is no lm-eval sample: it lacks doc_id, doc or filter; write the samples again")
    own = row["doc"].get("id")
    name = str(own) if isinstance(own, str | int) and own != "" else f"doc {row['doc_id']}"
    return Scored(
        name,
        0,
        _score(place, row, key),
        _cluster(place, row["doc"], cluster) or name,
        (),
        str(row.get("doc_hash", "")),
        answer=_text(_first(row.get("filtered_resps"))),
        target=_text(row.get("target")),
    )


def _only_metric(path: Path, rows: list[tuple[str, Row]]) -> str:
    found = rows[0][1].get("metrics")
    names = [str(name) for name in found] if isinstance(found, list) else []
    if len(names) != 1:
        raise ResultsInvalid(f"{path} has the metrics {', '.join(names) or 'none'}; choose one with --metric")
    return names[0]


def _promptfoo(
    path: Path, rows: list[tuple[str, Row]], metric: str | None, cluster: str | None
) -> tuple[str, tuple[Scored, ...]]:
    key = metric or "score"
    several = len({row.get("promptIdx") for _, row in rows}) > 1
    return key, tuple(_case(place, row, key, cluster, several) for place, row in rows)


def _case(place: str, row: Row, key: str, cluster: str | None, several: bool) -> Scored:
    if not isinstance(row, dict) or not isinstance(row.get("testCase"), dict):
        raise ResultsInvalid(f"{place} is no promptfoo result: it has no testCase; write the results again")
    graded = row.get("gradingResult") or {}
    if row.get("failureReason") == ERRORED or str(graded.get("reason", "")).startswith(THREW):
        reason = str(row.get("error") or graded.get("reason") or "no reason given").splitlines()[0]
        raise ResultsInvalid(f"{place} errored and says nothing ({reason}); mend the cause and run promptfoo again")
    metadata = row["testCase"].get("metadata") or {}
    own = str(metadata["id"]) if "id" in metadata else f"test {row.get('testIdx')}"
    name = f"{own}, prompt {row.get('promptIdx')}" if several else own
    scores = {**(row.get("namedScores") or {}), "score": row.get("score"), "success": row.get("success")}
    known = {**(row.get("vars") or {}), **metadata}
    answer = _text((row.get("response") or {}).get("output"))
    return Scored(name, 0, _score(place, scores, key), _cluster(place, known, cluster) or name, (), "", answer=answer)


def _first(found: Any) -> Any:
    return found[0] if isinstance(found, list) and found else found


def _text(found: Any) -> str:
    return found if isinstance(found, str) else "" if found is None else json.dumps(found, ensure_ascii=False)


def _name(place: str, row: Row) -> str:
    found = row.get("id")
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise ResultsInvalid(f"{place} has no id; results are paired by it: give each item a text or a number")
    return str(found)


def _repeat(place: str, row: Row) -> int:
    found = row.get("repeat", 0)
    if isinstance(found, bool) or not isinstance(found, int):
        raise ResultsInvalid(f"{place} has the repeat {found!r}; it must be a whole number")
    return found


def _score(place: str, row: Row, key: str) -> float:
    if key not in row:
        numbers = sorted(name for name, value in row.items() if isinstance(value, int | float))
        raise ResultsInvalid(
            f"{place} lacks the metric {key!r}; it has {', '.join(numbers) or 'none'}: choose with --metric"
        )
    value = row[key]
    if not isinstance(value, int | float):
        raise ResultsInvalid(f"{place}: {key} is {value!r}; a score must be a number in [0, 1]")
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise ResultsInvalid(f"{place}: {key} is {value}; a score must lie in [0, 1]: scale it, or evaluate again")
    return float(value)


def _cluster(place: str, row: Row, key: str | None) -> str:
    if key is None:
        return ""
    if row.get(key) in (None, ""):
        raise ResultsInvalid(f"{place} lacks {key!r}, which names its cluster; add it, or leave --cluster out")
    return str(row[key])


def _slices(place: str, found: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(found, dict):
        raise ResultsInvalid(f"{place}: slices is {found!r}; it must be a mapping of column to value")
    return tuple((str(column), str(value)) for column, value in found.items())


def _check_unique(path: Path, scored: tuple[Scored, ...]) -> None:
    seen: set[tuple[str, int]] = set()
    for one in scored:
        if (one.id, one.repeat) in seen:
            raise ResultsInvalid(
                f"{path} has the id {one.id!r} twice; ids must be unique. Repeats of an item need a whole number `repeat`"
            )
        seen.add((one.id, one.repeat))


def numbers_by_id(results: Results) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Each item's scores, one a repeat, in the file's order of items."""
    found: dict[str, list[float]] = {}
    for one in results.scored:
        found.setdefault(one.id, []).append(one.score)
    yield from ((name, tuple(scores)) for name, scores in found.items())


def means_by_id(results: Results) -> dict[str, float]:
    """Repeats averaged."""
    return {name: fmean(scores) for name, scores in numbers_by_id(results)}
