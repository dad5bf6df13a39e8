"""On the whole stack: `up` with other settings lets an engine that has clients go on, and a swap replaces it."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tasks.settings import Settings
from tasks.stack.addresses import addresses
from tasks.stack.control import default_engine, gateway_of
from tasks.stack.supervisor import Supervisor
from tasks.swap import replace_engine
from tests.fix_canaries import ENVIRONMENT
from tests.fix_stack import ROOT, Stack

pytestmark = [pytest.mark.slow, pytest.mark.stack]
MODEL = "swapped"


@pytest.fixture(scope="module")
def in_use(stack: Stack) -> Iterator[Settings]:
    """The stack with a model behind the gateway: the base model under another name."""
    done = stack.run("up")
    assert done.returncode == 0, done.stderr
    settings = Settings(state=stack.state)
    first = default_engine(settings)
    gateway = gateway_of(settings, addresses(settings), first)
    gateway.set_stable(MODEL, first.served_name)
    yield settings
    gateway.forget(MODEL)


def engine(settings: Settings) -> int:
    return Supervisor(settings.state).states()["vllm"].pid


def flag(pid: int, name: str) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return words[words.index(name) + 1]


def test_other_settings_do_not_restart_an_engine_under_its_clients(stack: Stack, in_use: Settings) -> None:
    before, environment = engine(in_use), {**stack.environment, "LIFTLOCK_OTLP_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [*stack.argv, "up"], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600, check=False
    )
    assert (done.returncode, engine(in_use)) == (0, before), done.stderr
    assert "vllm serves clients and goes on with the settings it was started with" in " ".join(done.stderr.split())
    assert "vllm goes on with the settings it was started with" in " ".join(stack.run("status").stdout.split())
    again = stack.run("up")
    assert (again.returncode, engine(in_use), "goes on with" in again.stderr) == (0, before, False)
    assert "goes on with" not in stack.run("status").stdout


def test_a_swap_replaces_an_engine_that_has_clients(
    stack: Stack, in_use: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():  # as the stack was started: other parts are not restarted
        monkeypatch.setenv(name, value)
    first, before = default_engine(in_use), engine(in_use)
    try:
        replace_engine(in_use, replace(first, max_num_seqs=first.max_num_seqs - 1))
        swapped = engine(in_use)
        assert swapped != before
        assert flag(swapped, "--max-num-seqs") == str(first.max_num_seqs - 1)
    finally:
        replace_engine(in_use, first)
    asked = {"model": MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": "Where is my parcel?"}]}
    assert httpx.post(f"{stack.gateway}/v1/chat/completions", json=asked, timeout=120).status_code == 200
    assert flag(engine(in_use), "--max-num-seqs") == str(first.max_num_seqs)
