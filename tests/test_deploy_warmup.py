"""The pod's readiness script against an engine on a real socket: cold, failing, slow again, and with a key."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fix_engine import BASE, Behaviour, FakeEngine

SCRIPT = Path(__file__).parents[1] / "deploy" / "warmup" / "ready.sh"
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the script asks with curl")


def probe(engine: FakeEngine, folder: Path, **settings: str) -> tuple[int, str]:
    """One call, as the kubelet makes it."""
    (folder / "short.json").write_text(json.dumps([{"role": "user", "content": "short"}]))
    (folder / "long.json").write_text(json.dumps([{"role": "user", "content": "long " * 500}]))
    environment = {
        "PATH": os.environ["PATH"], "WARM_MODEL": BASE, "WARM_URL": engine.url, "WARM_PROMPTS": str(folder),
        "WARM_DIR": str(folder / "state"), "WARM_REQUESTS": "2", "WARM_FIRST_TOKEN_SECONDS": "0.4", **settings,
    }  # fmt: skip
    done = subprocess.run(["sh", str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.strip()


def test_it_is_ready_after_answers_in_a_row_and_stays_so_without_asking(engine: FakeEngine, tmp_path: Path) -> None:
    assert probe(engine, tmp_path) == (1, "not ready: 1 of 2 completions in a row")
    assert probe(engine, tmp_path) == (0, "")
    assert probe(engine, tmp_path) == (0, "")
    assert [len(json.loads(asked.body)["messages"][0]["content"]) for asked in engine.asked] == [5, 2500]


def test_a_cold_engine_is_not_ready_and_the_count_begins_again(engine: FakeEngine, tmp_path: Path) -> None:
    engine.models[BASE] = Behaviour(cold_requests=1, cold_seconds=0.6)
    code, said = probe(engine, tmp_path)
    assert code == 1
    assert said.startswith("not ready: first token after 0.") and said.endswith("required at most 0.4 s")
    assert probe(engine, tmp_path)[0] == 1
    assert probe(engine, tmp_path) == (0, "")


def test_an_engine_that_fails_is_not_ready(engine: FakeEngine, tmp_path: Path) -> None:
    engine.models[BASE] = Behaviour(error_share=1)
    code, said = probe(engine, tmp_path)
    assert code == 1
    assert "the completion failed (curl 22)" in said


def test_the_key_goes_with_the_request_and_stands_in_no_command_line(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-secret")
    probe(engine, tmp_path, WARM_API_KEY_FILE=str(tmp_path / "key"))
    assert engine.asked[0].headers["authorization"] == "Bearer sk-secret"
    assert (tmp_path / "state" / "curlrc").stat().st_mode & 0o077 == 0
    assert "--config" in SCRIPT.read_text() and "--header" not in SCRIPT.read_text()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(SCRIPT)], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "WARM_MODEL: name of the model or adapter to ask for" in done.stderr
