"""Hybrid search against either of its legs on the questions of evals/documents, both corpora, paired. Used by bench_rag.py."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from rag.embed import LocalEmbedder
from tasks.recall import measure
from tasks.setup import EMBEDDING_MODEL, MODELS, ROOT
from tests.bench.figures import Figure

SUITE = ROOT / "evals" / "documents"
PURE = ("semantic", "keyword")
MOST_BELOW, LEAST_AHEAD = -0.01, 0.05  # of nDCG@10, against the better leg


@dataclass(frozen=True)
class _Parts:
    conn: psycopg.Connection[Any]
    model: LocalEmbedder

    def embedder(self, request_id: str = "") -> LocalEmbedder:
        return self.model


def quality(dsn: str) -> dict[str, Any]:
    """By "corpus/kind": nDCG@10 of each search, and hybrid minus each leg with its interval."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        measured = measure(_Parts(conn, LocalEmbedder(MODELS / EMBEDDING_MODEL)), SUITE)  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for name, row in measured.figures.items():
        group, _, mode = name.rpartition("/")
        found.setdefault(group, {"questions": row.questions, "ndcg": {}, "minus": {}})["ndcg"][mode] = row.ndcg_10
        if name in measured.hybrid_minus:
            found[group]["minus"][mode] = asdict(measured.hybrid_minus[name])
    return found


def show_quality(found: dict[str, Any]) -> None:
    print("  nDCG@10, and hybrid minus each leg with its 95 % interval")
    for group, one in found.items():
        scores = ", ".join(f"{mode} {value:.3f}" for mode, value in one["ndcg"].items())
        said = ", ".join(
            f"{leg} {minus['mean']:+.3f} [{minus['low']:+.3f}, {minus['high']:+.3f}]"
            for leg, minus in one["minus"].items()
        )
        print(f"    {group:20} {one['questions']:3} questions: {scores}; minus {said}")


def told_quality(found: dict[str, Any]) -> list[Figure]:
    def ahead(group: str) -> float:
        return min(float(minus["mean"]) for minus in found[group]["minus"].values())

    pure = [ahead(group) for group in found if group.rpartition("/")[2] in PURE]
    return [
        Figure("nDCG@10 of hybrid minus the better leg, pure questions, worst", min(pure), "", "higher", MOST_BELOW, (min(pure), max(pure))),
        Figure("nDCG@10 of hybrid minus the better leg, mixed questions", ahead("all/mixed"), "", "higher", LEAST_AHEAD,
               (min(ahead(group) for group in found if group.endswith("/mixed")), max(ahead(group) for group in found if group.endswith("/mixed")))),
    ]  # fmt: skip
