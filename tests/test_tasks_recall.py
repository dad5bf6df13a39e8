"""The questions suite itself, and a measurement on a small one through a real Postgres."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from rag.answer import Messages
from rag.ask import Chat
from rag.chunk import Limits, chunk_document
from rag.corpus import find_files
from rag.embed import LocalEmbedder
from rag.support import best_quote
from tasks.documents_suite import DocumentsSuiteInvalid, load_questions
from tasks.recall import ACCEPTED, accept, hold_to_accepted, measure
from tasks.recall_answers import Answers, measure_answers
from tests.fix_rag import Connection, WordEmbedder

SUITE = Path(__file__).parents[1] / "evals" / "documents"


def test_every_answer_stands_in_a_passage_of_the_corpora(local_embedder: LocalEmbedder) -> None:
    passages: dict[tuple[str, str], list[str]] = {}
    shares: dict[str, list[float]] = defaultdict(list)
    for corpus in ("liftlock", "postgresql"):
        root = SUITE / "corpora" / corpus
        for file in find_files([root], root):
            chunks = chunk_document(file.read(), local_embedder.count_tokens, Limits())
            passages[corpus, file.source] = [" ".join(chunk.text.split()) for chunk in chunks]
    for question in load_questions(SUITE):
        if question.kind != "none":
            held = [text for text in passages[question.corpus, question.source] if question.holds in text]
            assert held, question
            shares[question.kind].append(best_quote(question.question, {1: " ".join(held)}).share)
    # A mixed question has a name of its passage and else other words; a verbatim one has most of its words.
    assert mean(shares["semantic"]) < mean(shares["mixed"]) < 0.4 and mean(shares["verbatim"]) > 0.6


def test_the_suite_is_as_large_as_it_says() -> None:
    questions = load_questions(SUITE)
    kinds = Counter((question.corpus, question.kind) for question in questions)
    assert len(questions) == len({question.question for question in questions}) == 184
    assert kinds["liftlock", "none"] == kinds["postgresql", "none"] == 10
    assert min(kinds.values()) >= 10
    held = json.loads((SUITE / ACCEPTED).read_text())["ndcg"]
    assert held.keys() == {question.id for question in questions if question.kind != "none"}


@pytest.mark.parametrize(
    ("line", "message"), [("{", "Invalid JSON"), ('{"id": "a"}', "corpus: Field required"), ('{"x": 1}', "id: ")]
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "questions.jsonl").write_text(line + "\n")
    with pytest.raises(DocumentsSuiteInvalid, match=rf"questions\.jsonl:1: .*{message}"):
        load_questions(tmp_path)
    with pytest.raises(DocumentsSuiteInvalid, match="is not there"):
        load_questions(tmp_path / "nowhere")


class Parts:
    """As tasks.rag.Parts, with an embedder that needs no model."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn

    def embedder(self, request_id: str = "") -> WordEmbedder:
        return WordEmbedder()

    def chat(self, model: str | None, request_id: str) -> Chat:
        """Right about even numbers, invents for odd ones, and says so where it does not know."""

        def answer(messages: Messages) -> Iterator[str]:
            number = re.search(r"by thing(\d)\?", messages[-1]["content"])
            if not number:
                yield "Not in the documents."
            elif int(number[1]) % 2:
                yield "The moon is made of cheese. It shines."
            else:
                yield f"Common words of thing{number[1]} stand here [1]."

        return answer


def suite_of(folder: Path, **changed: Any) -> Path:
    corpus = folder / "corpora" / "c"
    corpus.mkdir(parents=True)
    for i in range(12):
        (corpus / f"{i}.md").write_text(f"# Part {i}\n\nCommon words of thing{i} stand here.")
    rows = [
        {
            "id": f"q{i}",
            "corpus": "c",
            "kind": kind,
            "question": f"Which common words stand by thing{i}?",
            "source": f"{i}.md",
            "holds": f"thing{i}",
        }
        for i, kind in enumerate(("semantic", "semantic", "keyword", "keyword", "mixed", "mixed"))
    ]
    rows += [{"id": "n", "corpus": "c", "kind": "none", "question": "Which wine?"}]
    rows[0] |= changed
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_measurement_finds_what_is_there_and_is_held_to_what_was_accepted(conn: Connection, tmp_path: Path) -> None:
    suite = suite_of(tmp_path)
    measured = measure(Parts(conn), suite)  # type: ignore[arg-type]
    assert {row.ndcg_10 for name, row in measured.figures.items() if name.endswith("hybrid")} == {1.0}
    assert measured.figures["c/all/text"].questions == 6 and measured.abstained["unanswerable"] == 1.0
    with pytest.raises(DocumentsSuiteInvalid, match="write it by --accept"):
        hold_to_accepted(measured, suite)
    accept(measured, suite)
    assert hold_to_accepted(measured, suite)[0] == "passed"
    (suite / ACCEPTED).write_text("{}")
    with pytest.raises(DocumentsSuiteInvalid, match=r"accepted\.json"):
        hold_to_accepted(measured, suite)


def test_the_models_own_sentences_are_counted_by_what_stands_in_their_sources(conn: Connection, tmp_path: Path) -> None:
    suite, parts = suite_of(tmp_path, question="Which common words stand here?"), Parts(conn)
    measure(parts, suite)  # type: ignore[arg-type]
    found = measure_answers(parts, suite, None, lambda what, done, total: None)  # type: ignore[arg-type]
    # thing2 and thing4 are right, of each invention neither sentence stands anywhere, and the first question is not known.
    assert found["answerable"] == Answers(6, answered=2, quoted=3, abstained=1, from_gold=5, sentences=8, supported=2)
    assert found["unanswerable"] == Answers(1, 0, 0, 1, 0, 0, 0)


def test_a_gold_passage_that_is_not_there_is_named(conn: Connection, tmp_path: Path) -> None:
    suite = suite_of(tmp_path, holds="no such words")
    with pytest.raises(DocumentsSuiteInvalid, match=r"q0: no passage of 0\.md holds 'no such words'"):
        measure(Parts(conn), suite)  # type: ignore[arg-type]
