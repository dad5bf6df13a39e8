"""A suite of questions over documents: retrieval.yaml, questions.jsonl, and a folder a corpus in corpora/. Reads files; runs nothing."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evals.suite import SuiteInvalid, load_yaml

SPEC, QUESTIONS, CORPORA = "retrieval.yaml", "questions.jsonl", "corpora"
Kind = Literal["semantic", "keyword", "mixed", "verbatim", "none"]
ANSWERABLE: tuple[Kind, ...] = ("semantic", "keyword", "mixed", "verbatim")
Model = TypeVar("Model", bound=BaseModel)


class DocumentsSuiteInvalid(Exception):
    """The suite's questions, settings or accepted figures cannot be used; mend the named line or file."""


class DocumentsSpec(BaseModel):
    """retrieval.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    embedder: str = Field(min_length=1, pattern=r"^[\w.-]+(/[\w.-]+)*$", description="The embedding model's name.")
    revision: str | None = Field(None, min_length=1, description="Its revision, where its server does not say one.")
    margin: float = Field(0.05, gt=0, lt=1, description="Of nDCG@10 and recall@10, what a change may lose.")


class Question(BaseModel):
    """One line of questions.jsonl. `holds` is part of the passage that answers it, blanks as one; of kind none, nothing does."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    corpus: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    kind: Kind
    question: str = Field(min_length=1)
    source: str = ""
    holds: str = ""

    def is_held_by(self, source: str, text: str) -> bool:
        """Whether this passage answers it."""
        return source == self.source and " ".join(self.holds.split()) in " ".join(text.split())


def load_spec(suite: Path) -> DocumentsSpec:
    """Raises DocumentsSuiteInvalid."""
    file = suite / SPEC
    if not file.is_file():
        raise DocumentsSuiteInvalid(f"{file} is not there; name a suite's folder, such as evals/documents")
    try:
        return _validated(DocumentsSpec, json.dumps(load_yaml(file)), str(file))
    except SuiteInvalid as error:
        raise DocumentsSuiteInvalid(str(error)) from error


def load_questions(suite: Path) -> tuple[Question, ...]:
    """Raises DocumentsSuiteInvalid."""
    file = suite / QUESTIONS
    if not file.is_file():
        raise DocumentsSuiteInvalid(f"{file} is not there; name a suite's folder, such as evals/documents")
    lines = enumerate(file.read_text(encoding="utf-8").split("\n"), 1)
    found = tuple(_validated(Question, line, f"{file}:{number}") for number, line in lines if line.strip())
    if len({question.id for question in found}) < len(found):
        raise DocumentsSuiteInvalid(f"{file} has an id more than once; give each question an id of its own")
    return found


def by_corpus(questions: Sequence[Question]) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = defaultdict(list)
    for question in sorted(questions, key=lambda one: one.corpus):
        found[question.corpus].append(question)
    return dict(found)


def _validated(kind: type[Model], text: str, where: str) -> Model:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DocumentsSuiteInvalid(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
