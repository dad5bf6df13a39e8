"""MLflow's webhook, from a real MLflow to the real receiver on a real Postgres; and what is refused, in words."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from tasks.promotion import journal
from tasks.promotion.database import connect
from tasks.promotion.events import EventNotSent
from tasks.promotion.receive import Receiver
from tasks.promotion.webhook import WebhookRefused, read_delivery
from tasks.stack.webhooks import ensure_webhook
from tasks.watch import serve
from tests.fix_promotion import Promotion

SECRET = "only for tests"
NOW = 1_800_000_000


def body(model: str = "m", alias: str = "champion", version: str = "2", **more: Any) -> bytes:
    document = {"entity": "model_version_alias", "action": "created", "timestamp": "2027-01-15T08:00:00+00:00",
                "data": {"name": model, "alias": alias, "version": version}, **more}  # fmt: skip
    return json.dumps(document).encode()


def signed(content: bytes, secret: str = SECRET, at: float = NOW, **replaced: str) -> dict[str, str]:
    """Headers as the page of MLflow's webhooks describes them, written here by themselves."""
    delivery, timestamp = str(uuid.uuid4()), str(int(at))
    digest = hmac.new(secret.encode(), f"{delivery}.{timestamp}.{content.decode()}".encode(), hashlib.sha256).digest()
    made = {"X-MLflow-Delivery-Id": delivery, "X-MLflow-Timestamp": timestamp,
            "X-MLflow-Signature": "v1," + base64.b64encode(digest).decode()}  # fmt: skip
    return {**made, **{f"X-MLflow-{name.replace('_', '-')}": value for name, value in replaced.items()}}


def refused(headers: dict[str, str], content: bytes) -> tuple[int, str]:
    with pytest.raises(WebhookRefused) as caught:
        read_delivery(SECRET, headers, content, NOW)
    return caught.value.status, str(caught.value)


def test_a_delivery_that_mlflow_signed_is_read() -> None:
    found = read_delivery(SECRET, signed(body()), body(), NOW)
    assert (found.model, found.alias, found.version) == ("m", "champion", "2")
    content = body(action="deleted", data={"name": "m", "alias": "staging"})
    assert read_delivery(SECRET, signed(content), content, NOW).version is None


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (signed(body(), secret="another"), "signature: a wrong one"),
        (signed(body(version="3")), "signature: a wrong one"),
        (signed(body(), Signature=""), "signature: none"),
        (signed(body(), Signature="v1,ümläut"), "signature: a wrong one"),
        (signed(body(), Delivery_Id=""), "signature: a wrong one"),
        (signed(body(), Timestamp=str(NOW + 1)), "signature: a wrong one"),
        ({}, "signature: none"),
        (signed(body(), at=NOW - 301), "timestamp: "),
        (signed(body(), at=NOW + 301), "timestamp: "),
    ],
)
def test_a_wrong_signature_or_an_old_timestamp_is_refused_in_words(headers: dict[str, str], said: str) -> None:
    status, words = refused(headers, body())
    assert (status, words.startswith(said)) == (401, True), words
    assert "required" in words


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 9999,
        body(data={"name": "m"}),
        body(data=3),
        body("\0"),
        body("\ud800"),
        body(version="\0"),
    ],
)
def test_a_signed_body_of_another_form_is_refused(content: bytes) -> None:
    """Signed bytes that are no alias event: the sender has the secret, and still nothing breaks."""
    headers = {"X-MLflow-Delivery-Id": "d", "X-MLflow-Timestamp": str(NOW)}
    digest = hmac.new(SECRET.encode(), f"d.{NOW}.".encode() + content, hashlib.sha256).digest()
    headers["X-MLflow-Signature"] = "v1," + base64.b64encode(digest).decode()
    assert refused(headers, content) == (422, "body: not the JSON of an MLflow alias event")


def test_an_event_of_another_kind_is_refused() -> None:
    content = body(entity="model_version")
    assert refused(signed(content), content)[0] == 422


@pytest.fixture
def sent() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def receiver(promotion: Promotion, sent: list[dict[str, Any]]) -> Receiver:
    return Receiver(partial(connect, promotion.dsn), SECRET, sent.append, lambda: NOW)


def take(receiver: Receiver, content: bytes) -> str:
    return receiver.take(signed(content), content)


def test_a_move_by_hand_is_passed_on_once(receiver: Receiver, promotion: Promotion, sent: list[dict[str, Any]]) -> None:
    promotion.move("1", None)
    content = body(promotion.model)
    headers = signed(content)
    assert receiver.take(headers, content) == "passed on to be settled"
    with pytest.raises(WebhookRefused, match="a replay") as caught:
        receiver.take(headers, content)
    assert caught.value.status == 409
    assert [one["payload"] for one in sent] == [{"model": promotion.model, "alias": "champion", "version": "2"}]


def test_an_unknown_model_is_refused_and_another_alias_is_nobodys_business(
    receiver: Receiver, promotion: Promotion, sent: list[dict[str, Any]]
) -> None:
    promotion.move("1", None)
    with pytest.raises(WebhookRefused, match="'nobody' is not in the ledger") as caught:
        take(receiver, body("nobody"))
    assert caught.value.status == 404
    assert "not kept here" in take(receiver, body(promotion.model, alias="mine"))
    assert sent == []


def test_liftlocks_own_moves_start_nothing(
    receiver: Receiver, promotion: Promotion, sent: list[dict[str, Any]]
) -> None:
    promotion.move("1", None)
    assert take(receiver, body(promotion.model, version="1")) == "the ledger says the same"
    with connect(promotion.dsn) as connection:
        journal.open_intent(connection, promotion.wanted("2", "1").line("1", {}), 8)
    assert take(receiver, body(promotion.model)) == "Liftlock's own move, under way"
    assert sent == []


class EndsInBetween:
    """A connection after whose first look at journal or ledger the move that is under way ends."""

    def __init__(self, inner: Any, end: Callable[[], object]) -> None:
        self.inner, self.end = inner, end

    def __enter__(self) -> EndsInBetween:
        return self

    def __exit__(self, *_: object) -> None:
        self.inner.close()

    def transaction(self) -> Any:
        return self.inner.transaction()

    def execute(self, query: str, values: Any = None) -> Any:
        done = self.inner.execute(query, values)
        if "state = 'open'" in query or "FROM ledger" in query:
            self.end, end = (lambda: None), self.end
            end()
        return done


def test_a_move_that_ends_while_it_is_looked_at_is_no_request(
    receiver: Receiver, promotion: Promotion, sent: list[dict[str, Any]]
) -> None:
    promotion.move("1", None)
    with connect(promotion.dsn) as connection:
        intent = journal.open_intent(connection, promotion.wanted("2", "1").line("1", {}), 8)

        def looking() -> Any:
            return EndsInBetween(connect(promotion.dsn), lambda: journal.close(connection, intent))

        assert take(replace(receiver, connect=looking), body(promotion.model)) == "the ledger says the same"
    assert sent == []


def test_what_prefect_did_not_take_may_come_again(receiver: Receiver, promotion: Promotion) -> None:
    promotion.move("1", None)
    content = body(promotion.model)
    headers = signed(content)

    def down(_: object) -> None:
        raise EventNotSent("Prefect is down")

    with pytest.raises(EventNotSent):
        Receiver(receiver.connect, SECRET, down, receiver.now).take(headers, content)
    assert receiver.take(headers, content) == "passed on to be settled"


@pytest.fixture
def address(promotion: Promotion, sent: list[dict[str, Any]]) -> Iterator[str]:
    server = serve(0, Receiver(partial(connect, promotion.dsn), SECRET, sent.append))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "model",
    ["../../etc/passwd", "$(touch PWNED)", "'; DROP TABLE alias_journal; --", "m\n\rSet-Cookie: x", "x" * 60_000],
)
def test_a_signed_name_that_is_none_goes_nowhere(
    receiver: Receiver, promotion: Promotion, sent: list[dict[str, Any]], model: str
) -> None:
    promotion.move("1", None)
    with pytest.raises(WebhookRefused) as caught:
        take(receiver, body(model))
    assert (caught.value.status, sent) == (404, [])
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)
    assert promotion.story() == [("champion", None, "1")]


def test_the_answers_over_http_are_words(address: str, promotion: Promotion) -> None:
    promotion.move("1", None)
    assert httpx.get(f"{address}/health").text == "ready\n"
    content = body(promotion.model)
    old = httpx.post(f"{address}/webhook", content=content, headers=signed(content, at=time.time() - 400))
    assert (old.status_code, old.text.startswith("refused: timestamp: ")) == (401, True)
    assert httpx.post(f"{address}/elsewhere", content=content).status_code == 404
    assert httpx.post(f"{address}/webhook", content=b"x" * 70_000).status_code == 413


def test_mlflow_itself_reports_an_alias_that_is_set_and_one_that_is_deleted(
    address: str, promotion: Promotion, mlflow_client: MlflowClient, sent: list[dict[str, Any]]
) -> None:
    promotion.move("1", None)
    for secret in ("forgotten", SECRET):  # the second call mends the first
        ensure_webhook(promotion.uri, f"{address}/webhook", secret)
    assert len([one for one in mlflow_client.list_webhooks() if one.name == "liftlock"]) == 1
    time.sleep(1.1)  # MLflow knows its webhooks for a second
    mlflow_client.set_registered_model_alias(promotion.model, "champion", "3")
    mlflow_client.delete_registered_model_alias(promotion.model, "champion")
    deadline = time.monotonic() + 20
    while len(sent) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sorted(one["payload"]["version"] for one in sent) == ["", "3"]
    assert {one["event"] for one in sent} == {"liftlock.alias.set-by-hand"}
    mlflow_client.delete_webhook(
        next(one.webhook_id for one in mlflow_client.list_webhooks() if one.name == "liftlock")
    )
