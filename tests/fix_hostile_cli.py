"""Commands that are given what nobody should give, in this process and where nothing can be started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from flows.cli import answer, app, said
from tasks.settings import get_settings
from tests.hostile_inputs import commands

LEFT_OUT = {
    ("modelcar", "shell"),
    ("page",),
}  # one asks apt-get whatever its argument is, one serves until it is interrupted
COMMANDS: dict[tuple[str, ...], Any] = {
    words: command for words, command in commands(get_command(app)) if words not in LEFT_OUT
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to be in, with a state that this Liftlock is too old for: so nothing can be started."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "version").write_text("999\n")
    for name, value in {"STATE": state, "TOOLCHAIN": tmp_path / "none"}.items():
        monkeypatch.setenv(f"LIFTLOCK_{name}", str(value))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    get_settings.cache_clear()
    yield work
    get_settings.cache_clear()


def ended(given: list[str]) -> tuple[int, str]:
    """Code and sentence, as `main` gives them."""
    try:
        return answer(given), ""
    except Exception as error:  # noqa: BLE001 - every one is judged
        code, sentence = said(error, given)
        return code, "its help" if type(error).__name__ == "NoArgsIsHelpError" else sentence  # printed already
