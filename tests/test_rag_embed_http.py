"""The embeddings client against the real local server, and against a server that misbehaves in every way it can."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from rag.embed import EmbedderUnavailable, LocalEmbedder
from rag.embed_http import TRIES, EmbedderBusy, EmbedderRefused, HttpEmbedder, Server
from rag.embed_server import make_app
from rag.vectors import EmbeddingInvalid
from tests.fix_http import Answering, answering, serving_answers, serving_app
from tests.fix_rag import count_words

TEXTS = ["One command undoes a release.", "The verdict shows its margin.", "Grüße, 你好"]


@pytest.fixture(scope="module")
def url(local_embedder: LocalEmbedder) -> Iterator[str]:
    with serving_app(make_app(local_embedder)) as url:
        yield url


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as client:
        yield client


def test_the_server_gives_the_model_s_own_vectors_and_says_which_weights(
    url: str, client: httpx.Client, local_embedder: LocalEmbedder
) -> None:
    served = HttpEmbedder(Server(url, client), local_embedder.name, local_embedder.count_tokens)
    assert (served.revision, served.dimension, served.max_tokens) == (local_embedder.revision, 384, 256)
    many = TEXTS * 15  # more than one request
    np.testing.assert_allclose(served.embed(many), local_embedder.embed(many), atol=1e-6)
    assert served.embed([]) == []


def test_openai_s_own_client_can_ask_it(url: str, local_embedder: LocalEmbedder) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as asked:
        assert [model.id for model in asked.models.list().data] == [local_embedder.name]
        for form in ("float", "base64"):
            answer = asked.embeddings.create(model=local_embedder.name, input=TEXTS, encoding_format=form)
            got = [
                np.frombuffer(base64.b64decode(row.embedding), "<f4") if form == "base64" else row.embedding
                for row in answer.data
            ]
            np.testing.assert_allclose(got, local_embedder.embed(TEXTS), atol=1e-6)
        assert answer.usage.prompt_tokens == sum(map(local_embedder.count_tokens, TEXTS))
        with pytest.raises(openai.NotFoundError, match="'other' is not served"):
            asked.embeddings.create(model="other", input="x")
        with pytest.raises(openai.BadRequestError, match="has 502 tokens"):
            asked.embeddings.create(model=local_embedder.name, input="word " * 500)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400), ("[]", 400), ({"model": "M"}, 400), ({"model": "M", "input": []}, 400), ({"model": "M", "input": [1]}, 400),
        ({"model": "M", "input": [""]}, 400), ({"model": "M", "input": ["x"] * 257}, 413),
        ({"model": "M", "input": "x", "encoding_format": "hex"}, 400), ("x" * (9 << 20), 413),
    ],
)  # fmt: skip
def test_a_request_that_asks_for_nothing_is_told_so(
    url: str, client: httpx.Client, local_embedder: LocalEmbedder, body: Any, status: int
) -> None:
    text = body if isinstance(body, str) else json.dumps(body).replace('"M"', f'"{local_embedder.name}"')
    answer = client.post(f"{url}/v1/embeddings", content=text)
    assert answer.status_code == status and answer.json()["error"]["message"]


MODELS = answering(200, {"data": [{"id": "m", "revision": "r1", "dimension": 2}]})


def vectors(*rows: Any) -> Answering:
    return answering(200, {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]})


def embedder(url: str, client: httpx.Client, slept: list[float], **given: Any) -> HttpEmbedder:
    return HttpEmbedder(Server(url, client, "key-1", slept.append), "m", count_words, **given)


def test_a_busy_server_is_asked_again_after_the_time_it_names(client: httpx.Client) -> None:
    busy = answering(429, {}, {"retry-after": "7"})
    slept: list[float] = []
    with serving_answers(MODELS, busy, answering(503, {}), vectors([1, 2])) as served:
        assert embedder(served.url, client, slept).embed(["a"])[0].tolist() == [1, 2]
    assert slept == [7, 0.5]


def test_a_server_that_stays_busy_or_away_is_given_up(client: httpx.Client) -> None:
    slept: list[float] = []
    with serving_answers(MODELS, answering(503, {"error": "full"})) as served:
        asked = embedder(served.url, client, slept)
        with pytest.raises(EmbedderBusy, match=rf"answered 503 {TRIES} times.*full"):
            asked.embed(["a"])
    with pytest.raises(EmbedderBusy, match="check that the embeddings server runs"):
        asked.embed(["a"])


def test_rows_are_taken_by_their_index_and_the_key_goes_along(client: httpx.Client) -> None:
    backwards = answering(200, {"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}]})
    with serving_answers(MODELS, backwards) as served:
        found = embedder(served.url, client, [], request_id="abc").embed(["a", "b"])
        assert [vector.tolist() for vector in found] == [[1, 2], [3, 4]]
        sent = [(headers["authorization"], headers["x-request-id"]) for _, headers, _ in served.requests]
        assert sent == [("Bearer key-1", "abc")] * 2


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (vectors([1, 2, 3]), EmbeddingInvalid, r"shape \(3,\)"),
        (vectors([1, float("nan")]), EmbeddingInvalid, "NaN"),
        (vectors([0, 0]), EmbeddingInvalid, "zeros"),
        (vectors(), EmbeddingInvalid, "0 vectors for 1 texts"),
        (vectors([1, 2], [1, 2]), EmbeddingInvalid, "2 vectors for 1 texts"),
        (vectors("not base64!"), EmbedderRefused, "did not answer with embeddings"),
        (answering(200, {"ok": True}), EmbedderRefused, "did not answer with embeddings"),
        (answering(200, "<html>"), EmbedderRefused, "did not answer with JSON"),
        (answering(401, {"error": "no key"}), EmbedderRefused, "401.*your key"),
    ],
)
def test_what_is_no_answer_is_refused(client: httpx.Client, answer: Answering, error: Any, message: str) -> None:
    with serving_answers(MODELS, answer) as served, pytest.raises(error, match=message):
        embedder(served.url, client, []).embed(["a"])


def test_a_model_without_a_revision_is_refused_unless_one_is_named(client: httpx.Client) -> None:
    bare = answering(200, {"data": [{"id": "m"}]})
    with serving_answers(bare, bare, vectors([1, 2, 3])) as served:
        with pytest.raises(EmbedderUnavailable, match="name it by LIFTLOCK_EMBEDDINGS_REVISION"):
            embedder(served.url, client, [])
        assert embedder(served.url, client, [], revision="r9").dimension == 3  # measured
    with (
        serving_answers(bare) as served,
        pytest.raises(EmbedderUnavailable, match="serves no model 'other'; it serves m"),
    ):
        HttpEmbedder(Server(served.url, client), "other", count_words)
