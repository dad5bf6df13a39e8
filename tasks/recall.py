"""Retrieval measured on a suite of questions with gold passages, and held to the figures that were accepted last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.retrieval import Difference, Ranked, Verdict, judge, mean, paired
from rag.answer import judge as judge_answer
from rag.answer import select_hits
from rag.chunk import Hit
from rag.generation import Generation, require_live
from rag.schema import as_tenant
from rag.search import Mode, Query, search
from tasks.rag import Parts, index_paths
from tasks.whole_file import write_whole

Kind = Literal["semantic", "keyword", "mixed", "none"]
MODES: tuple[Mode, ...] = get_args(Mode)
DEPTH = 10
ACCEPTED = "accepted.json"
MARGIN = 0.03  # of nDCG@10 that a change may lose
CONTEXT_TOKENS, ANSWERED_FROM = 1024, 4


class DocumentsSuiteInvalid(Exception):
    """The suite's questions or its accepted figures cannot be used; mend the named line or file."""


class Question(BaseModel):
    """One line of questions.jsonl. `holds` is part of the passage that answers it, blanks as one."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    corpus: str
    kind: Kind
    question: str
    source: str = ""
    holds: str = ""


@dataclass(frozen=True)
class Figures:
    """Means over questions, with the number of them."""

    questions: int
    recall_5: float
    recall_10: float
    ndcg_10: float
    mrr: float


@dataclass(frozen=True)
class Measured:
    """`figures` by "corpus/kind/mode", `hybrid_minus` by "corpus/kind/mode" of the other; abstained by answerable or not."""

    figures: dict[str, Figures]
    hybrid_minus: dict[str, Difference]
    ndcg: dict[str, float]
    abstained: dict[str, float]
    quoted_right: float
    pins: dict[str, str]


def load_questions(suite: Path) -> tuple[Question, ...]:
    """Raises DocumentsSuiteInvalid."""
    file = suite / "questions.jsonl"
    if not file.is_file():
        raise DocumentsSuiteInvalid(f"{file} is not there; name a suite's folder, such as evals/documents")
    found = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            found.append(Question.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            raise DocumentsSuiteInvalid(
                f"{file}:{number}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from error
    return tuple(found)


def measure(parts: Parts, suite: Path) -> Measured:
    """Index the corpora as tenants of their own and ask every question in every mode."""
    questions = load_questions(suite)
    embedder = parts.embedder()
    ranked: dict[tuple[str, Kind, Mode], list[Ranked]] = {}
    hybrid: list[tuple[Question, tuple[Hit, ...]]] = []
    pins: dict[str, str] = {}
    for corpus in sorted({question.corpus for question in questions}):
        tenant = f"recall-{corpus}"
        index_paths(parts, (suite / "corpora" / corpus,), tenant)
        live = require_live(parts.conn, tenant, embedder.name, embedder.revision, embedder.dimension)
        pins = {name: str(value) for name, value in asdict(live.pins).items()}
        asked = [question for question in questions if question.corpus == corpus]
        vectors = embedder.embed([question.question for question in asked])
        for question, vector in zip(asked, vectors, strict=True):
            gold = _gold(parts, live, question)
            for mode in MODES:
                hits = search(parts.conn, live, Query(vector, question.question, DEPTH, mode=mode))
                if mode == "hybrid":
                    hybrid.append((question, hits))
                if question.kind != "none":
                    places = tuple(place for place, hit in enumerate(hits, 1) if hit.chunk.id in gold)
                    one = Ranked(question.id, places, len(gold))
                    ranked.setdefault((corpus, question.kind, mode), []).append(one)
    return _summary(ranked, hybrid, parts, pins)


def _gold(parts: Parts, live: Generation, question: Question) -> frozenset[str]:
    """Passages of the source that hold the text. Raises DocumentsSuiteInvalid where none does."""
    if question.kind == "none":
        return frozenset()
    query = live.fill(r"select id, text from {table} where source = %s")
    with as_tenant(parts.conn, live.tenant, reader=True):
        rows = parts.conn.execute(query, (question.source,)).fetchall()
    wanted = " ".join(question.holds.split())
    found = frozenset(chunk_id for chunk_id, text in rows if wanted in " ".join(text.split()))
    if not found:
        raise DocumentsSuiteInvalid(
            f"{question.id}: no passage of {question.source} holds {wanted!r}; shorten it to what stands in one passage"
        )
    return found


def _summary(
    ranked: dict[tuple[str, Kind, Mode], list[Ranked]],
    hybrid: Sequence[tuple[Question, tuple[Hit, ...]]],
    parts: Parts,
    pins: dict[str, str],
) -> Measured:
    corpora = sorted({corpus for corpus, _, _ in ranked})
    groups = [(corpus, kind) for corpus in (*corpora, "all") for kind in ("semantic", "keyword", "mixed", "all")]
    figures: dict[str, Figures] = {}
    minus: dict[str, Difference] = {}
    for corpus, kind in groups:
        by_mode = {
            mode: [one for (c, k, m), rows in sorted(ranked.items()) if m == mode and corpus in (c, "all") and kind in (k, "all") for one in rows]
            for mode in MODES
        }  # fmt: skip
        for mode, rows in by_mode.items():
            figures[f"{corpus}/{kind}/{mode}"] = _figures(rows)
            if mode != "hybrid":
                first = [one.ndcg for one in by_mode["hybrid"]]
                minus[f"{corpus}/{kind}/{mode}"] = paired(first, [one.ndcg for one in rows])
    ndcg = {one.question: one.ndcg for (_, _, mode), rows in ranked.items() if mode == "hybrid" for one in rows}
    abstained, right = _without_a_model(hybrid, parts)
    return Measured(figures, minus, ndcg, abstained, right, pins)


def _figures(rows: Sequence[Ranked]) -> Figures:
    return Figures(
        len(rows), mean([one.recall(5) for one in rows]), mean([one.recall(10) for one in rows]),
        mean([one.ndcg for one in rows]), mean([one.reciprocal for one in rows]),
    )  # fmt: skip


def _without_a_model(
    hybrid: Sequence[tuple[Question, tuple[Hit, ...]]], parts: Parts
) -> tuple[dict[str, float], float]:
    """What is said where a model's words have no support: the share that abstains, and of quotes the share from gold."""
    abstained: dict[str, list[float]] = {"answerable": [], "unanswerable": []}
    right: list[float] = []
    count = parts.embedder().count_tokens
    for question, hits in hybrid:
        shown = select_hits(hits[:ANSWERED_FROM], CONTEXT_TOKENS, count)
        answer = judge_answer(question.question, "unsupported", shown)
        key = "unanswerable" if question.kind == "none" else "answerable"
        abstained[key].append(float(answer.outcome == "abstained"))
        if question.kind != "none" and answer.outcome == "quoted":
            cited = next(source for source in answer.sources if source.is_cited)
            right.append(float(question.holds in " ".join(cited.text.split())))
    return {key: mean(values) for key, values in abstained.items()}, mean(right) if right else 0.0


def hold_to_accepted(measured: Measured, suite: Path) -> tuple[Verdict, Difference]:
    """Raises DocumentsSuiteInvalid."""
    file = suite / ACCEPTED
    if not file.is_file():
        raise DocumentsSuiteInvalid(f"{file} is not there; look at the figures and write it by --accept")
    try:
        return judge(measured.ndcg, json.loads(file.read_text())["ndcg"], MARGIN)
    except (ValueError, LookupError, TypeError) as error:
        raise DocumentsSuiteInvalid(f"{file}: {error}") from error


def accept(measured: Measured, suite: Path) -> Path:
    file = suite / ACCEPTED
    text = json.dumps({"pins": measured.pins, "ndcg": dict(sorted(measured.ndcg.items()))}, indent=1)
    write_whole(file, text + "\n")
    return file
