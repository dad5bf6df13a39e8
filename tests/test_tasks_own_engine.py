"""Strategy pool's second engine on the whole stack: it serves beside the first one, and no other part is restarted for it."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from serving.engine import under_way
from serving.gateway.model import VERSION_HEADER
from tasks.place import end_unused
from tasks.settings import Settings
from tasks.stack.addresses import addresses
from tasks.stack.control import default_engine, gateway_of
from tasks.stack.own_control import await_process, start_own
from tasks.stack.own_engines import OwnEngine, read_own
from tasks.stack.supervisor import Supervisor
from tests.fix_canaries import ENVIRONMENT
from tests.fix_stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.stack]
MODEL = "second-engine"


def test_a_second_engine_serves_and_goes_and_nothing_else_is_restarted(
    stack: Stack, champion: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():  # as the stack was started: a part with other settings is restarted
        monkeypatch.setenv(name, value)
    settings = Settings(state=stack.state)
    first = default_engine(settings)
    before = {name: one.pid for name, one in Supervisor(stack.state).states().items()}
    own = OwnEngine(MODEL, 1, replace(first, max_model_len=first.max_model_len // 2))
    url = start_own(settings, own)
    await_process(settings, own.part)
    gateway = gateway_of(settings, addresses(settings), first)
    gateway.set_stable(MODEL, first.served_name)
    gateway.set_weight(MODEL, first.served_name, 100, url)
    asked = {"model": MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": "Where is my parcel?"}]}
    answer = httpx.post(f"{stack.gateway}/v1/chat/completions", json=asked, timeout=120)
    assert (answer.status_code, answer.headers[VERSION_HEADER]) == (200, first.served_name)
    assert gateway.counters(MODEL, "candidate", url)["upstream_rq_total"] == 1
    assert under_way(url) == 0
    end_unused(settings, MODEL, 5)
    assert read_own(stack.state) == (own,)  # it has traffic
    gateway.forget(MODEL)
    end_unused(settings, MODEL, 5)
    assert read_own(stack.state) == ()
    after = {name: one.pid for name, one in Supervisor(stack.state).states().items()}
    assert after == before
