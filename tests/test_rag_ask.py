"""A question through a real Postgres and a real HTTP server that speaks OpenAI's chat API."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from rag.answer import NOT_FOUND, Messages
from rag.ask import Asked, Chat, ask, explain_search, stream
from rag.chat import ChatRefused, ChatUnavailable, openai_chat, served_models
from rag.chunk import Document, Limits, chunk_document
from rag.embed import LocalEmbedder
from rag.generation import EmbedderMismatch, NotIndexed, Pins
from rag.index import index
from tests.fix_http import Answering, Recorded, answering, events_of, serving_answers
from tests.fix_rag import Connection, Store, WordEmbedder

DOCUMENTS = {
    "docs/rollback.md": "# Rollback\n\n`liftlock rollback NAME` undoes a release with one command.",
    "docs/gate.md": "# Gate\n\nThe gate is inconclusive when a dataset has too few items.",
    "docs/fit.md": "# Fit\n\nThe preflight compares a model's memory with what the GPU has.",
}
MESSAGES: Messages = ({"role": "user", "content": "Hello"},)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=5) as client:
        yield client


def saying(*pieces: str) -> Answering:
    return answering(200, events_of(*pieces), {"content-type": "text/event-stream"})


def chat_of(served: Recorded, client: httpx.Client, **given: Any) -> Chat:
    return openai_chat(served.url, "smollm2", client=client, max_tokens=32, **given)


@pytest.fixture(scope="module")
def indexed(postgres_dsn: str, local_embedder: LocalEmbedder) -> Iterator[Connection]:
    """One index of the real model's vectors for the tests that only read."""
    name = "test_rag_ask"
    with psycopg.connect(postgres_dsn, autocommit=True) as server:
        server.execute(f"drop database if exists {name}")
        server.execute(f"create database {name}")
        with psycopg.connect(postgres_dsn, dbname=name, autocommit=True) as conn:
            pins = Pins(local_embedder.name, local_embedder.revision, 384, "vector", Limits().name)
            index(
                conn, "default", {source: source for source in DOCUMENTS},
                lambda s: chunk_document(Document(s, DOCUMENTS[s]), local_embedder.count_tokens, Limits()),
                pins, local_embedder.embed,
            )  # fmt: skip
            yield conn
        server.execute(f"drop database {name} with (force)")


@pytest.mark.parametrize(
    ("question", "source", "said"),
    [
        (
            "How do I go back to the version before?",
            "docs/rollback.md",
            "`liftlock rollback NAME` undoes a release [1] [9].",
        ),
        (
            "What if the eval has not enough examples?",
            "docs/gate.md",
            "The gate is inconclusive with too few items [1].",
        ),
        ("Will my weights fit on the card?", "docs/fit.md", "The preflight compares memory with what the GPU has [1]."),
    ],
)
def test_a_question_is_answered_with_its_source(
    indexed: Connection, local_embedder: LocalEmbedder, client: httpx.Client, question: str, source: str, said: str
) -> None:
    with serving_answers(saying(said[:10], said[10:])) as served:
        chat = chat_of(served, client, request_id="r-1", key="k-1")
        asked = Asked(question, "default", k=2, request_id="r-1")
        answer = ask(asked, conn=indexed, embedder=local_embedder, chat=chat)
    assert (answer.text, answer.outcome, len(answer.sources)) == (said.replace(" [9]", ""), "answered", 2)
    assert (answer.sources[0].source, answer.sources[0].is_cited, answer.request_id) == (source, True, "r-1")
    ((path, headers, body),) = served.requests
    assert (path, body["model"], body["temperature"], body["max_tokens"]) == ("/v1/chat/completions", "smollm2", 0, 32)
    assert (headers["x-request-id"], headers["authorization"]) == ("r-1", "Bearer k-1")
    assert answer.sources[0].text in body["messages"][1]["content"]
    assert body["messages"][1]["content"].endswith(f"Question: {question}")


def test_what_the_documents_have_nothing_of_is_not_even_asked(
    indexed: Connection, local_embedder: LocalEmbedder, client: httpx.Client
) -> None:
    with serving_answers(saying("Paris.")) as served:
        asked = Asked("Which wine goes with roast duck?", "default")
        answer = ask(asked, conn=indexed, embedder=local_embedder, chat=chat_of(served, client))
    assert (answer.outcome, answer.text, served.requests) == ("abstained", NOT_FOUND, [])


def test_sources_come_first_then_the_text_as_it_is_written_then_the_judged_answer(
    indexed: Connection, local_embedder: LocalEmbedder, client: httpx.Client
) -> None:
    with serving_answers(saying("One command ", "undoes ", "a release [1].")) as served:
        asked = Asked("How do I undo a release?", "default", k=1)
        steps = list(stream(asked, conn=indexed, embedder=local_embedder, chat=chat_of(served, client)))
    assert [bool(step.sources) for step in steps] == [True, False, False, False, False]
    assert [step.delta for step in steps] == ["", "One command ", "undoes ", "a release [1].", ""]
    assert steps[-1].answer is not None and steps[-1].answer.text == "One command undoes a release [1]."


def test_a_short_question_is_searched_with_the_one_before(
    indexed: Connection, local_embedder: LocalEmbedder, client: httpx.Client
) -> None:
    with serving_answers(saying("Yes.")) as served:
        asked = Asked("And by whom?", "default", k=1, previous="Which command undoes a release?")
        answer = ask(asked, conn=indexed, embedder=local_embedder, chat=chat_of(served, client))
    assert answer.sources[0].source == "docs/rollback.md"
    assert Asked("A question that stands by itself alone", "t", previous="X").searched.startswith("A question")


def test_only_what_the_model_was_shown_is_a_source(store: Store, client: httpx.Client) -> None:
    store.index(DOCUMENTS)
    with serving_answers(saying("Yes.")) as served:
        asked = Asked("one command", "default", k=3, max_context_tokens=40)
        answer = ask(asked, conn=store.conn, embedder=store.embedder, chat=chat_of(served, client))
    assert [source.source for source in answer.sources] == ["docs/rollback.md"]
    assert "docs/gate.md" not in json.dumps([body for _, _, body in served.requests])


def test_without_an_index_no_model_is_asked(conn: Connection, client: httpx.Client) -> None:
    with serving_answers(saying("Yes.")) as served:
        chat, asked, embedder = chat_of(served, client), Asked("one command", "default"), WordEmbedder()
        with pytest.raises(NotIndexed, match="default has no index"):
            ask(asked, conn=conn, embedder=embedder, chat=chat)
        Store(conn).index({})
        with pytest.raises(NotIndexed, match="nothing to answer from"):
            ask(asked, conn=conn, embedder=embedder, chat=chat)
        with pytest.raises(EmbedderMismatch):
            ask(asked, conn=conn, embedder=WordEmbedder(revision="2"), chat=chat)
    assert served.requests == []


def test_the_search_s_plan_is_postgres_own(store: Store) -> None:
    store.index(DOCUMENTS)
    assert "Execution Time" in explain_search(Asked("margin", "default"), conn=store.conn, embedder=store.embedder)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_in_v1(client: httpx.Client, suffix: str) -> None:
    with serving_answers(saying("Hel", "lo.")) as served:
        chat = openai_chat(served.url + suffix, "m", client=client, max_tokens=8)
        assert list(chat(MESSAGES)) == ["Hel", "lo."]
    assert served.requests[0][0] == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (answering(429, "slow down"), ChatUnavailable, "answered 429: slow down; try again later"),
        (answering(503, ""), ChatUnavailable, "answered 503"),
        (answering(404, "no such model"), ChatRefused, "no such model; check that it serves the model 'smollm2'"),
        (answering(200, events_of("")), ChatRefused, "without any text"),
        (answering(200, "data: nonsense\n\n"), ChatRefused, "did not answer with a chat completion"),
        (answering(200, "<html>"), ChatRefused, "without any text"),
        (answering(200, events_of("Hel", done=False) + 'data: {"error": "gone"}\n\n'), ChatUnavailable, "broke off"),
    ],
)
def test_what_is_no_answer_is_said_with_what_to_do(
    client: httpx.Client, answer: Answering, error: type[Exception], message: str
) -> None:
    with serving_answers(answer) as served, pytest.raises(error, match=message):
        list(chat_of(served, client)(MESSAGES))


def test_an_address_where_nothing_answers_is_named(client: httpx.Client) -> None:
    with serving_answers(saying("x")) as served:
        chat = chat_of(served, client)
    with pytest.raises(ChatUnavailable, match="check that the gateway runs"):
        list(chat(MESSAGES))
    with pytest.raises(ChatUnavailable, match="check that the gateway runs"):
        served_models(served.url, client=client)


def test_the_models_are_listed(client: httpx.Client) -> None:
    with serving_answers(answering(200, {"data": [{"id": "a"}, {"id": "b"}]})) as served:
        assert served_models(served.url + "/v1", client=client) == ("a", "b")
