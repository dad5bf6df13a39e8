"""A swap on the whole stack: the engine that has clients is replaced, where `up` alone would let it go on."""

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
from tests.fix_stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.stack]
MODEL = "swapped"


def flag(pid: int, name: str) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return words[words.index(name) + 1]


def test_a_swap_replaces_an_engine_that_has_clients(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():  # as the stack is started: other parts are not restarted
        monkeypatch.setenv(name, value)
    assert stack.run("up").returncode == 0
    settings = Settings(state=stack.state)
    first = default_engine(settings)
    gateway = gateway_of(settings, addresses(settings), first)
    gateway.set_stable(MODEL, first.served_name)

    def engine() -> int:
        return Supervisor(stack.state).states()["vllm"].pid

    before = engine()
    try:
        replace_engine(settings, replace(first, max_num_seqs=first.max_num_seqs - 1))
        swapped = engine()
        assert swapped != before
        assert flag(swapped, "--max-num-seqs") == str(first.max_num_seqs - 1)
    finally:
        replace_engine(settings, first)
    asked = {"model": MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": "Where is my parcel?"}]}
    assert httpx.post(f"{stack.gateway}/v1/chat/completions", json=asked, timeout=120).status_code == 200
    assert flag(engine(), "--max-num-seqs") == str(first.max_num_seqs)
    gateway.forget(MODEL)
