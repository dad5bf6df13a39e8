"""Retrieval measured on a suite of questions with gold passages, and held to the figures that were accepted last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evals.retrieval import DEPTH, Difference, Ranked, Verdict, judge, mean, paired, places_of
from rag.answer import judge as judge_answer
from rag.answer import select_hits
from rag.chunk import Hit
from rag.rank import MODES, Ranking, rank
from rag.search import Mode
from tasks.documents_suite import ANSWERABLE, CORPORA, DocumentsSuiteInvalid, Kind, Question, by_corpus, load_questions
from tasks.rag import Parts
from tasks.whole_file import write_whole

ACCEPTED = "accepted.json"
MARGIN = 0.03  # of nDCG@10 that may be lost against the accepted figures
CONTEXT_TOKENS, ANSWERED_FROM = 1024, 4


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


def measure(parts: Parts, suite: Path) -> Measured:
    """Index the corpora as tenants of their own and ask every question in every mode. Raises DocumentsSuiteInvalid."""
    model = parts.embedder()
    ranked: dict[tuple[str, Kind, Mode], list[Ranked]] = {}
    hybrid: list[tuple[Question, tuple[Hit, ...]]] = []
    pins: dict[str, str] = {}
    for corpus, questions in by_corpus(load_questions(suite)).items():
        asked = {question.id: question.question for question in questions}
        ranking = rank(parts.conn, model, suite / CORPORA / corpus, tenant_of(corpus), asked, DEPTH)
        pins = {name: str(value) for name, value in asdict(ranking.pins).items()}
        hybrid += [(question, ranking.found[question.id, "hybrid"]) for question in questions]
        for question in (one for one in questions if one.kind != "none"):
            gold = _gold(ranking, question)
            for mode in MODES:
                places = places_of(gold, [hit.chunk.id for hit in ranking.found[question.id, mode]])
                ranked.setdefault((corpus, question.kind, mode), []).append(Ranked(question.id, places, len(gold)))
    return _summary(ranked, hybrid, parts, pins)


def tenant_of(corpus: str) -> str:
    return f"recall-{corpus}"


def _gold(ranking: Ranking, question: Question) -> frozenset[str]:
    """Raises DocumentsSuiteInvalid where no passage holds the answer."""
    found = frozenset(one.id for one in ranking.passages if question.is_held_by(one.source, one.text))
    if not found:
        raise DocumentsSuiteInvalid(
            f"{question.id}: no passage of {question.source} holds {question.holds!r}; shorten it to what stands in one passage"
        )
    return found


def _summary(
    ranked: dict[tuple[str, Kind, Mode], list[Ranked]],
    hybrid: Sequence[tuple[Question, tuple[Hit, ...]]],
    parts: Parts,
    pins: dict[str, str],
) -> Measured:
    corpora = sorted({corpus for corpus, _, _ in ranked})
    groups = [(corpus, kind) for corpus in (*corpora, "all") for kind in (*ANSWERABLE, "all")]
    figures: dict[str, Figures] = {}
    minus: dict[str, Difference] = {}
    for corpus, kind in groups:
        by_mode = {
            mode: [one for (c, k, m), rows in sorted(ranked.items()) if m == mode and corpus in (c, "all") and kind in (k, "all") for one in rows]
            for mode in MODES
        }  # fmt: skip
        for mode, rows in ((mode, rows) for mode, rows in by_mode.items() if rows):  # a corpus may lack a kind
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
