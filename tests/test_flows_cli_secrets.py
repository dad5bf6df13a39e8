"""A secret in a setting or in the environment stands in nothing that a command prints or writes, be the setting good or bad."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tasks.settings import Settings, SettingsInvalid, get_settings
from tasks.stack.control import PORTS
from tests.fix_canaries import PLANTED, Search
from tests.fix_hostile_cli import COMMANDS, ended
from tests.hostile_inputs import arena, arguments

SECRET = "canary-5f0c1d7a9e3b42864fd1"  # stands in the tests' names, which all processes of a run have to agree on
DATABASES = (
    f"postgresql://ada:{SECRET}@127.0.0.1:1",
    f"postgresql://ada:{SECRET}@[::1",
    f"postgresql://ada:{SECRET}@127.0.0.1:port",
    f"postgresql://ada:{SECRET}@no.such.host.invalid:5432/?sslmode=none",
    f"host=127.0.0.1 port=1 user=ada password={SECRET}",
    f"postgresql:// ada:{SECRET}",
)
REPOSITORIES = (f"https://ada:{SECRET}@127.0.0.1:1/platform.git", f"https://{SECRET}@[::1/platform.git")
ADDRESSES = (f"http://ada:{SECRET}@127.0.0.1:1", f"http://ada:{SECRET}@[::1", f"http://{SECRET}@127.0.0.1:port")
VALUES = {
    "postgres_dsn": DATABASES,
    "platform_repository": REPOSITORIES,
    "platform_token": (SECRET, f"{SECRET}\n"),
    "api_key": (SECRET, f"{SECRET}\r\nx: y", f"💥{SECRET}"),
}
READING = (
    ["status"], ["show", "quick"], ["history", "quick"], ["approvals"], ["ledger", "verify"], ["reconcile"], ["rollout", "status"],
    ["diff", "quick", "1", "2"], ["export", "quick", "--output", "exported"], ["rollback", "quick"], ["ask", "Where?", "--json"],
)  # fmt: skip


def leaks(folder: Path, given: list[str], capfd: pytest.CaptureFixture[str], search: Search) -> None:
    capfd.readouterr()
    _, sentence = ended(given)
    out, err = capfd.readouterr()
    search.look(f"{given} printed {sentence[:300]!r}", f"{out}{err}{sentence}".encode(errors="replace"))
    search.folder(folder)


@pytest.mark.parametrize("name", VALUES)
def test_no_command_shows_a_secret_setting(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    dice, search = random.Random(name), Search({name: SECRET})
    arena(place)
    for number, (words, command) in enumerate(COMMANDS.items()):
        monkeypatch.setenv(f"LIFTLOCK_{name.upper()}", VALUES[name][number % len(VALUES[name])])
        get_settings.cache_clear()
        leaks(place.parent, [*words, *arguments(command, dice)], capfd, search)
    assert not search.found
    assert search.looked > len(COMMANDS)


@pytest.mark.parametrize("dsn", DATABASES)
def test_commands_that_reach_for_the_database_do_not_show_its_password(
    place: Path, dsn: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The stack's addresses are known here, and nobody listens at them."""
    state, search = place.parent / "state", Search({"password": SECRET})
    (state / "version").unlink()
    (state / "ports.json").write_text(json.dumps(dict.fromkeys(PORTS, 1)))
    monkeypatch.setenv("LIFTLOCK_POSTGRES_DSN", dsn)
    monkeypatch.setenv("LIFTLOCK_EMBEDDINGS_URL", "http://127.0.0.1:1")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "PREFECT_CLIENT_MAX_RETRIES"):
        monkeypatch.setenv(name, "0")
    for words in READING:
        get_settings.cache_clear()
        leaks(place.parent, words, capfd, search)
    assert not search.found


@pytest.mark.parametrize("dsn", [*DATABASES[1:], "postgresql://ada@127.0.0.1/prefect", "postgres://ada@127.0.0.1"])
def test_what_is_no_server_is_refused(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFTLOCK_POSTGRES_DSN", dsn)
    get_settings.cache_clear()
    with pytest.raises(
        SettingsInvalid, match=r"LIFTLOCK_POSTGRES_DSN: .* required: postgresql://user:password@host:port"
    ):
        get_settings()
    get_settings.cache_clear()


@pytest.mark.parametrize(
    "dsn", ["postgresql://ada:a%2Fb@db.example:5432", "postgresql://ada@[::1]:5432/", "postgresql://127.0.0.1"]
)
def test_a_server_is_taken(dsn: str) -> None:
    assert Settings(postgres_dsn=dsn).postgres_dsn is not None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", [name for name in Settings.model_fields if name not in {"state", "toolchain", *VALUES}]
)
def test_an_address_with_credentials_is_not_shown(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    search = Search({name: SECRET})
    for value in ADDRESSES:
        monkeypatch.setenv(f"LIFTLOCK_{name.upper()}", value)
        get_settings.cache_clear()
        for words in (["status"], ["apikey", "list"]):
            leaks(place.parent, words, capfd, search)
    assert not search.found


def test_no_command_shows_a_secret_of_the_environment(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    dice, search = random.Random(1), Search(PLANTED)
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    arena(place)
    for words, command in COMMANDS.items():
        leaks(place.parent, [*words, *arguments(command, dice)], capfd, search)
    assert not search.found
