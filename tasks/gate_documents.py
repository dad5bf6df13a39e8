"""The gate on a change of documents, of the embedder or of the code that cuts and searches: what retrieval loses. Effect (processes,
Postgres).

Each side is indexed and searched by its own rag/, in a process and a database of its own; the questions are the head's for both,
and what may be lost is the base's. recall@10 and nDCG@10 are judged by the eval gate, paired by question, and both must pass.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import psycopg
from psycopg import sql

from evals.gate import GatePolicy, decide
from evals.gated import GatedSuite, diff_items
from evals.report import AssertionCounts, EvalReport, Fingerprint, ItemResult
from evals.retrieval import DEPTH, Ranked, mean, places_of
from tasks.documents_suite import (
    CORPORA,
    QUESTIONS,
    SPEC,
    DocumentsSpec,
    DocumentsSuiteInvalid,
    Question,
    by_corpus,
    load_questions,
    load_spec,
)
from tasks.settings import ROOT, Settings
from tasks.stack.addresses import postgres_address

CODE = "retrieval"
ANSWERING = (
    "answer.py",
    "api.py",
    "ask.py",
    "chat.py",
    "embed_server.py",
    "support.py",
)  # of rag/, what finds no passage
UNTAKEN = ("embedder", CODE)  # of a fork: what sets the rule, and what runs
MIN_QUESTIONS = 20
METRICS: dict[str, Callable[[Ranked], float]] = {
    f"recall@{DEPTH}": lambda one: one.recall(DEPTH),
    f"nDCG@{DEPTH}": lambda one: one.ndcg,
}


class RetrievalFailed(Exception):
    """One side's documents could not be indexed or searched; nothing is judged then."""


@dataclass(frozen=True)
class Side:
    """One commit's tree with a suite in it."""

    name: str
    tree: Path
    folder: str

    @property
    def suite(self) -> Path:
        return self.tree / self.folder

    @property
    def code(self) -> Path:
        """The commit's own rag/, or this installation's where it has none that can be asked."""
        return self.tree if (self.tree / "rag" / "rank.py").is_file() else ROOT


@dataclass(frozen=True)
class Found:
    """What one side found: sources and texts of its passages by corpus and id, and ids by question, the best first."""

    passages: dict[str, dict[str, tuple[str, str]]]
    found: dict[str, list[str]]
    pins: str


def documents_folders(paths: Sequence[str]) -> tuple[str, ...]:
    """Folders of a commit that hold a retrieval.yaml."""
    return tuple(sorted(str(PurePosixPath(path).parent) for path in paths if PurePosixPath(path).name == SPEC))


def documents_data(folders: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
    """Those of `paths` that are documents or questions of one of the folders."""
    return tuple(path for path in paths if any(kind in ("corpus", "questions") for kind in _kinds(folders, (path,))))


def gate_documents(
    base: Side, head: Side, paths: Sequence[str], settings: Settings, *, fork: bool = False
) -> tuple[GatedSuite, ...]:
    """Nothing where none of `paths` matters to retrieval. Raises DocumentsSuiteInvalid, RetrievalFailed, StackDown, ReportInvalid."""
    kinds = _kinds((head.folder,), paths)
    try:
        return _gate(base, head, kinds, settings, fork) if kinds else ()
    except DocumentsSuiteInvalid as error:  # names files as the repository does
        raise DocumentsSuiteInvalid(str(error).replace(f"{base.tree}/", "").replace(f"{head.tree}/", "")) from None


def _gate(base: Side, head: Side, kinds: tuple[str, ...], settings: Settings, fork: bool) -> tuple[GatedSuite, ...]:
    if not (base.suite / SPEC).is_file():
        base = replace(head, name=base.name)
    spec, questions = load_spec(base.suite), load_questions(head.suite)
    asked = tuple(question for question in questions if question.kind != "none")
    before = _ask(base, questions, settings)
    after = before if base.tree == head.tree else _ask(head, questions, settings)
    notes = _notes(kinds, base, head, (before, after), asked)
    return tuple(_judge(metric, (base, before), (head, after), asked, spec, kinds, notes, fork) for metric in METRICS)


def _kinds(folders: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
    """How the change touches a suite of these folders."""
    found = {_kind(folder, PurePosixPath(path)) for folder in folders for path in paths}
    return tuple(kind for kind in ("corpus", "embedder", CODE, "questions") if kind in found)


def _kind(folder: str, path: PurePosixPath) -> str:
    if path.parts[0] == "rag" and path.suffix in (".py", ".sql") and path.name not in ANSWERING:
        return CODE
    names = {f"{folder}/{SPEC}": "embedder", f"{folder}/{QUESTIONS}": "questions"}
    return "corpus" if PurePosixPath(folder, CORPORA) in path.parents else names.get(str(path), "")


def _ask(side: Side, questions: Sequence[Question], settings: Settings) -> Found:
    """In a process that sees no package of the commit but its rag/."""
    asked: dict[str, Any] = {
        "corpora": str(side.suite / CORPORA),
        "embedder": _embedder(load_spec(side.suite), settings),
        "questions": {name: {one.id: one.question for one in found} for name, found in by_corpus(questions).items()},
        "k": DEPTH,
    }
    with _database(settings) as dsn, tempfile.TemporaryDirectory(prefix="rag-", dir=side.tree.parent) as made:
        (Path(made) / "rag").symlink_to((side.code / "rag").absolute())
        environment = {**os.environ, "PYTHONPATH": made, "PYTHONDONTWRITEBYTECODE": "1"}
        argv = [sys.executable, "-P", "-m", "rag.rank"]
        text = json.dumps({**asked, "dsn": dsn})
        done = subprocess.run(argv, input=text, capture_output=True, text=True, env=environment, cwd=made, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RetrievalFailed(
            f"the documents of {side.folder} cannot be indexed and searched as the {side.name} has them: {said[-1]}; "
            "nothing was judged: mend that commit or what it needs"
        )
    return _found(json.loads(done.stdout))


def _found(answer: dict[str, Any]) -> Found:
    return Found(
        {name: {one["id"]: (one["source"], one["text"]) for one in part["passages"]} for name, part in answer.items()},
        {question: ids for part in answer.values() for question, ids in part["found"].items()},
        ", ".join(sorted({f"{part['pins']['embedder']} {part['pins']['chunking']}" for part in answer.values()})),
    )


def _embedder(spec: DocumentsSpec, settings: Settings) -> dict[str, Any]:
    """How rag/rank.py reaches the model that the suite names: its folder, or the embeddings server of the settings."""
    folder = settings.models / spec.embedder
    if settings.embeddings_url is None:
        return {"folder": str(folder)}
    usual = spec.embedder == settings.embeddings_model  # the other settings are about that model
    return {
        "url": settings.embeddings_url,
        "key": settings.api_key.get_secret_value() if settings.api_key else None,
        "name": spec.embedder,
        "tokenizer": str((settings.embeddings_tokenizer if usual else None) or folder / "tokenizer.json"),
        "revision": spec.revision or (settings.embeddings_revision if usual else None),
        "max_tokens": settings.embeddings_max_tokens if usual else None,
    }


@contextmanager
def _database(settings: Settings) -> Iterator[str]:
    """An empty database that goes afterwards. Raises StackDown, psycopg.OperationalError."""
    server, name = postgres_address(settings), f"gate_{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as conn:
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            yield f"{server}/{name}"
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _judge(
    metric: str,
    baseline: tuple[Side, Found],
    candidate: tuple[Side, Found],
    asked: Sequence[Question],
    spec: DocumentsSpec,
    kinds: tuple[str, ...],
    notes: tuple[str, ...],
    fork: bool,
) -> GatedSuite:
    policy = GatePolicy(metric, "non_inferior", spec.margin, min_items=MIN_QUESTIONS, min_case_pass_rate=0.0)
    before, after = (_report(*side, asked, metric) for side in (baseline, candidate))
    decision = decide(after, before, policy)
    untaken = [kind for kind in kinds if kind in UNTAKEN]
    if fork and untaken and decision.verdict == "passed":
        reason = (
            f"The fork changes {', '.join(untaken)}, and the base's was used instead: a maintainer has to read it and run "
            "the gate without --fork."
        )
        decision = replace(decision, verdict="inconclusive", reasons=(reason, *decision.reasons))
    texts = {question.id: question.question for question in asked}
    items = diff_items(after, before, [item.id for item in after.items], texts)
    return GatedSuite(candidate[0].folder, kinds, metric, decision, items, notes=notes)


def _report(side: Side, found: Found, asked: Sequence[Question], metric: str) -> EvalReport:
    items = tuple(_item(question, found, metric) for question in asked)
    questions = sha256("\n".join(question.model_dump_json() for question in asked).encode()).hexdigest()
    fingerprint = Fingerprint(
        model=f"{side.name} ({found.pins})",
        model_sha256=sha256(repr((found.passages, found.found)).encode()).hexdigest(),
        task=side.folder, task_version="1", task_sha256="none", prompt_sha256="none", template_sha256="none",
        dataset_sha256=questions, cases_sha256="none", engine="rag", engine_version="unreported", sampling="{}",
    )  # fmt: skip
    score = mean([item.score for item in items])
    return EvalReport(fingerprint, ((metric, score),), items, (), AssertionCounts(0, 0, 0), len(items), (), 0.0)


def _item(question: Question, found: Found, metric: str) -> ItemResult:
    """Its answer is the passage found first, its target what the gold passage holds."""
    passages, ids = found.passages[question.corpus], found.found[question.id]
    gold = _gold(question, found)
    score = METRICS[metric](Ranked(question.id, places_of(gold, ids), len(gold)))
    source, text = passages[ids[0]] if ids else ("", "")
    target = f"{question.source}: {question.holds}"
    slices = (("corpus", question.corpus), ("kind", question.kind))
    return ItemResult(question.id, score, f"{source}: {text}", target, slices)


def _gold(question: Question, found: Found) -> frozenset[str]:
    passages = found.passages[question.corpus]
    return frozenset(name for name, (source, text) in passages.items() if question.is_held_by(source, text))


def _notes(
    kinds: Sequence[str], base: Side, head: Side, found: tuple[Found, Found], asked: Sequence[Question]
) -> tuple[str, ...]:
    notes = []
    if base.tree == head.tree:
        notes.append("The suite is new: it is compared with itself.")
    if "questions" in kinds:
        notes.append("The change also moves the questions: both sides were asked the new ones.")
    for side, one in zip((base, head), found, strict=True):
        if side.code == ROOT and CODE in kinds:
            notes.append(f"The {side.name} has no rag/rank.py, so this installation's rag/ was run for it.")
        if lost := [question.id for question in asked if not _gold(question, one)]:
            some = f"{', '.join(lost[:5])}{', …' if len(lost) > 5 else ''}"
            notes.append(
                f"No passage of the {side.name} holds the answer of {len(lost)} questions ({some}): they score 0."
            )
    return tuple(notes)
