"""A secret in a setting or in the environment stands in nothing that a command prints or writes, be the setting good or bad."""

from __future__ import annotations

import random
import secrets
from pathlib import Path

import pytest
from typer.main import get_command

from flows.cli import app
from tasks.settings import Settings, get_settings
from tests.fix_canaries import PLANTED, Search
from tests.hostile_inputs import arena, arguments, commands
from tests.test_flows_cli_hostile import LEFT_OUT, ended, place

__all__ = ["place"]  # the fixture
SECRET = f"canary-{secrets.token_hex(16)}"
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
EVERY = [words for words, _ in commands(get_command(app)) if words not in LEFT_OUT]


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
    dice, search, known = random.Random(name), Search({name: SECRET}), dict(commands(get_command(app)))
    arena(place)
    for number, words in enumerate(EVERY):
        monkeypatch.setenv(f"LIFTLOCK_{name.upper()}", VALUES[name][number % len(VALUES[name])])
        get_settings.cache_clear()
        leaks(place.parent, [*words, *arguments(known[words], dice)], capfd, search)
    assert not search.found
    assert search.looked > len(EVERY)


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
        for words in (["status"], ["apikey", "list"], ["models"]):
            leaks(place.parent, words, capfd, search)
    shown = {where for where, _ in search.found}
    assert not shown


def test_no_command_shows_a_secret_of_the_environment(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    dice, search, known = random.Random(1), Search(PLANTED), dict(commands(get_command(app)))
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    arena(place)
    for words in EVERY:
        leaks(place.parent, [*words, *arguments(known[words], dice)], capfd, search)
    assert not search.found
