"""API keys: what is kept of one, and the real Envoy asking for it."""

import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from serving.gateway.keys import Key, KeyRefused, added, new_key, read_keys, revoked, write_keys
from serving.gateway.model import CLIENT_HEADER
from serving.gateway.parts import version_of
from serving.gateway.routes import Table, routes
from serving.gateway.state import GatewayNotApplied
from tasks.gateway_keys import OWN, add_key, own_headers, own_key_file, require_none, revoke_key
from tests.fix_engine import BASE, Behaviour, FakeEngine
from tests.fix_envoy import Envoy, running_envoy

CHAT = "/v1/chat/completions"
STABLE = "tickets-0a1b2c3d4e5f"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, engine_process: FakeEngine) -> Iterator[Envoy]:
    with running_envoy(tmp_path_factory.mktemp("guarded"), engine_process.url) as envoy:
        envoy.gateway.set_stable("tickets", STABLE)
        envoy.gateway.set_stable("invoices", STABLE)
        yield envoy


@pytest.fixture
def open_gateway(guarded: Envoy, engine: FakeEngine) -> Iterator[Envoy]:
    engine.models[STABLE] = Behaviour()
    yield guarded
    require_none(guarded.gateway)


def ask(envoy: Envoy, key: str | None, model: str = "tickets", **headers: str) -> httpx.Response:
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return httpx.post(f"{envoy.url}{CHAT}", json={"model": model, "messages": []}, headers=headers)


def code(answer: httpx.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"]


def test_only_a_digest_is_kept_readable_by_its_owner_alone(tmp_path: Path) -> None:
    clear, key = new_key("billing", ["tickets"], 60)
    write_keys(tmp_path, added(None, key))
    text = (tmp_path / "keys.json").read_text()
    assert clear not in text
    assert json.loads(text)[0]["sha256"] == hashlib.sha256(clear.encode()).hexdigest()
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert read_keys(tmp_path) == (key,)
    assert len(clear) >= 43


def test_keys_are_never_the_same() -> None:
    assert len({new_key("a", None, None)[0] for _ in range(1000)}) == 1000


@pytest.mark.parametrize("client", ["", "-a", "a b", 'a"b', "a" * 65, "ä", "a\nb"])
def test_a_name_that_could_break_out_of_the_gateways_program_is_refused(client: str) -> None:
    with pytest.raises(KeyRefused, match="letters, digits"):
        new_key(client, None, None)


@pytest.mark.parametrize(
    ("models", "per_minute"), [(['a"]=1'], None), ([""], None), (None, 0), (None, -1), (None, 10**7)]
)
def test_a_model_or_a_rate_that_cannot_be_is_refused(models: list[str] | None, per_minute: int | None) -> None:
    with pytest.raises(KeyRefused, match=r"required|only letters"):
        new_key("billing", models, per_minute)


def test_one_key_a_client_and_no_key_of_nobody() -> None:
    _, key = new_key("billing", None, None)
    with pytest.raises(KeyRefused, match="billing has a key"):
        added((key,), key)
    assert revoked((key,), "billing") == ()
    with pytest.raises(KeyRefused, match="clients with a key: billing"):
        revoked((key,), "sales")


def test_a_file_of_keys_that_cannot_be_read_is_an_error_and_no_open_gateway(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("[{")
    with pytest.raises(ValueError):
        read_keys(tmp_path)


def test_the_routes_depend_on_the_keys_and_hold_none() -> None:
    clear, key = new_key("billing", ["tickets"], None)
    open_routes, closed = routes(Table([], BASE)), routes(Table([], BASE, (key,)))
    assert version_of(open_routes) != version_of(closed)
    assert clear not in json.dumps(closed)


def test_the_first_key_closes_the_gateway(open_gateway: Envoy, engine: FakeEngine) -> None:
    assert ask(open_gateway, None).status_code == 200
    clear = add_key(open_gateway.gateway, "billing", None, None)
    engine.forget()
    assert code(ask(open_gateway, None)) == (401, "invalid_api_key")
    for wrong in ("llk-wrong", clear[:-1], clear + "x", clear.upper(), f"{clear} {clear}", "x" * 5000):
        assert code(ask(open_gateway, wrong)) == (401, "invalid_api_key")
    assert httpx.get(f"{open_gateway.url}/v1/models").status_code == 401
    assert httpx.get(f"{open_gateway.url}/metrics").status_code == 401
    assert not engine.paths
    assert ask(open_gateway, clear, **{CLIENT_HEADER: "admin"}).status_code == 200
    seen = engine.asked[0].headers
    assert seen[CLIENT_HEADER] == "billing"
    assert "authorization" not in seen
    files = [file for file in open_gateway.gateway.folder.iterdir() if file.is_file()]
    assert not [file for file in files if clear in file.read_text()]


def test_a_revoked_key_gets_nothing_and_the_last_one_leaves_the_gateway_closed(open_gateway: Envoy) -> None:
    clear = add_key(open_gateway.gateway, "billing", None, None)
    assert ask(open_gateway, clear).status_code == 200
    revoke_key(open_gateway.gateway, "billing")
    assert code(ask(open_gateway, clear)) == (401, "invalid_api_key")
    assert code(ask(open_gateway, None)) == (401, "invalid_api_key")
    with pytest.raises(KeyRefused, match="apikey off"):
        revoke_key(open_gateway.gateway, OWN)
    require_none(open_gateway.gateway)
    assert ask(open_gateway, None).status_code == 200


def test_the_releases_own_requests_have_a_key(open_gateway: Envoy) -> None:
    folder = open_gateway.gateway.folder
    assert own_headers(folder) == {}
    add_key(open_gateway.gateway, "billing", None, None)
    assert stat.S_IMODE(own_key_file(folder).stat().st_mode) == 0o600
    assert ask(open_gateway, None, **own_headers(folder)).status_code == 200
    require_none(open_gateway.gateway)
    assert own_headers(folder) == {}


def test_only_the_release_may_mark_its_requests(open_gateway: Envoy, engine: FakeEngine) -> None:
    clear = add_key(open_gateway.gateway, "billing", None, None)
    ask(open_gateway, clear, **{"x-liftlock-purpose": "canary"})
    ask(open_gateway, None, **{"x-liftlock-purpose": "canary"}, **own_headers(open_gateway.gateway.folder))
    assert [one.headers.get("x-liftlock-purpose") for one in engine.asked] == [None, "canary"]


def test_a_key_made_while_the_gateway_is_down_is_shown_and_holds_later(engine: FakeEngine, tmp_path: Path) -> None:
    shown: list[str] = []
    with running_envoy(tmp_path, engine.url) as envoy:
        envoy.kill()
        with pytest.raises(GatewayNotApplied):
            add_key(envoy.gateway, "billing", None, None, shown.append)
        envoy.ready = f"{envoy.gateway.admin_url}/ready"
        envoy.start()
        assert ask(envoy, None, BASE).status_code == 401
        assert ask(envoy, shown[0], BASE).status_code == 200


def test_a_tenant_reaches_and_sees_what_its_key_allows(open_gateway: Envoy, engine: FakeEngine) -> None:
    clear = add_key(open_gateway.gateway, "billing", ["tickets"], None)
    engine.forget()
    for model in ("invoices", BASE, "nobody"):
        assert code(ask(open_gateway, clear, model)) == (403, "model_not_allowed")
    assert not engine.paths
    assert ask(open_gateway, clear).status_code == 200
    listing = httpx.get(f"{open_gateway.url}/v1/models", headers={"authorization": f"Bearer {clear}"}).json()
    assert [card["id"] for card in listing["data"]] == ["tickets"]
    card = httpx.get(f"{open_gateway.url}/v1/models/invoices", headers={"authorization": f"Bearer {clear}"})
    assert code(card) == (403, "model_not_allowed")
    everything = httpx.get(f"{open_gateway.url}/v1/models", headers=own_headers(open_gateway.gateway.folder)).json()
    assert {card["id"] for card in everything["data"]} == {"tickets", "invoices", BASE}


def test_a_limit_holds_its_own_client_alone(open_gateway: Envoy) -> None:
    limited = add_key(open_gateway.gateway, "batch", None, 3)
    free = add_key(open_gateway.gateway, "billing", None, None)
    assert [ask(open_gateway, limited).status_code for _ in range(3)] == [200, 200, 200]
    answer = ask(open_gateway, limited)
    assert code(answer) == (429, "rate_limit_exceeded")
    assert answer.headers["retry-after"]
    assert [ask(open_gateway, free).status_code for _ in range(5)] == [200] * 5


def test_the_openai_client_with_and_without_a_key(open_gateway: Envoy) -> None:
    clear = add_key(open_gateway.gateway, "billing", ["tickets"], None)
    messages: Any = [{"role": "user", "content": "x"}]
    with openai.OpenAI(base_url=f"{open_gateway.url}/v1", api_key=clear, max_retries=0) as client:
        assert client.chat.completions.create(model="tickets", messages=messages).choices
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="invoices", messages=messages)
    with (
        openai.OpenAI(base_url=f"{open_gateway.url}/v1", api_key="llk-no", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.models.list()
    assert refused.value.code == "invalid_api_key"


def test_a_thousand_keys_are_one_lookup(open_gateway: Envoy) -> None:
    many = [new_key(f"client-{number}", None, None) for number in range(1000)]
    keys = tuple(key for _, key in many)
    open_gateway.gateway.change_keys(lambda _: keys)
    assert [ask(open_gateway, clear).status_code for clear, _ in many[::100]] == [200] * 10


@pytest.mark.parametrize("length", [1, 55, 56, 63, 64, 65, 119, 120, 128])
def test_the_gateways_sha256_is_that_of_the_standard(open_gateway: Envoy, length: int) -> None:
    """By way of the lookup: a key of any length is found by its digest."""
    clear = ("Az09_-" * 30)[:length]
    key = Key("any", hashlib.sha256(clear.encode()).hexdigest(), "now")
    open_gateway.gateway.change_keys(lambda _: (key,))
    assert ask(open_gateway, clear).status_code == 200
