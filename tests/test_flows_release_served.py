"""What a release leaves: a client that leaves frees the real engine, the served limits nest, and everything can be taken away."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fix_stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(3600)]  # of a whole release
MODEL = "ticket-router"
LONG = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Count to a thousand."}],
    "max_tokens": 1500,
    "ignore_eos": True,
    "stream": True,
}
RUNNING = re.compile(r"^vllm:num_requests_running\{[^}]*\} ([0-9.]+)$", re.MULTILINE)


def running(stack: Stack) -> float:
    """Requests that the engine computes, by its own counter."""
    text = httpx.get(f"http://127.0.0.1:{stack.ports()['vllm']}/metrics", timeout=30).text
    return sum(float(value) for value in RUNNING.findall(text))


def await_running(stack: Stack, wanted: float, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if running(stack) == wanted:
            return True
        time.sleep(0.2)
    return False


def test_a_client_that_leaves_frees_the_engine(stack: Stack, champion: dict[str, Any]) -> None:
    """1,500 tokens take this engine far longer than the wait: only the cancellation can end the request."""
    assert await_running(stack, 0, 60)
    with httpx.stream("POST", f"{stack.gateway}/v1/chat/completions", json=LONG, timeout=120) as answer:
        assert answer.status_code == 200
        next(answer.iter_lines())
        assert await_running(stack, 1, 10)
        left = time.monotonic()
    assert await_running(stack, 0, 10)
    assert time.monotonic() - left < 10


def test_the_released_chain_is_coherent_with_the_canarys_own_figures(stack: Stack, champion: dict[str, Any]) -> None:
    done = stack.run("coherence", str(stack.state / "gateway"), "--release", MODEL, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    answers = [each for each in told["answers"] if each["alias"] == MODEL]
    assert answers and all(each["rate"] > 0 for each in answers)
    unknown = stack.run("coherence", str(stack.state / "gateway"), "--release", "nobody")
    assert (unknown.returncode, "nobody has no champion" in unknown.stderr) == (2, True)


def test_everything_about_the_champion_can_be_taken_away(
    stack: Stack, champion: dict[str, Any], tmp_path: Path
) -> None:
    done = stack.run("export", MODEL, "--output", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    moves = json.loads(stack.run("history", MODEL, "--json").stdout)
    assert (told["ledger_lines"], told["reports"] >= 1) == (len(moves), True)
    version = tmp_path / "out" / "versions" / champion["model"]["version"]
    assert {"candidate.json", "decision.json", "rollout.json"} <= {
        path.name for path in (version / "evidence").iterdir()
    }
    again = stack.run("import", str(tmp_path / "out"), "--json")  # all of it is there
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) | {"not_brought": []} == {
        "model": MODEL, "versions": 0, "ledger_lines": 0, "aliases": {}, "reports": 0, "not_brought": [],
    }  # fmt: skip
