"""What a swap keeps between processes, and how long an engine's last start took by its log."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from serving.gateway.model import Split
from serving.gateway.state import Gateway
from tasks.settings import Settings
from tasks.stack.engine import Engine, EngineBusy, write_engine
from tasks.swap import ended, log_seconds, swap_target, unfinished

OLD = Engine("/models/small")
NEW = replace(OLD, max_model_len=8192)
LOG = """\
(APIServer pid=1) INFO 11-28 11:35:05 [api_utils.py:347]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.31.0
(APIServer pid=1) INFO 11-28 11:35:45 [entry.py:140] Starting vLLM server on http://127.0.0.1:1
(APIServer pid=2) INFO 11-28 23:59:50 [api_utils.py:347]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.32.0
(EngineCore pid=3) INFO 11-28 23:59:58 [core.py:402] init engine took 0.42 s
(APIServer pid=2) INFO 11-29 00:00:12 [entry.py:140] Starting vLLM server on http://127.0.0.1:1
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "gateway").mkdir()
    write_engine(tmp_path, OLD)
    return Settings(state=tmp_path)


def gateway(settings: Settings, *splits: Split) -> Gateway:
    (settings.state / "gateway" / "splits.json").write_text(json.dumps([asdict(one) for one in splits]))
    return Gateway(settings.state / "gateway", "", "http://127.0.0.1:1", "small")


def test_the_last_start_counts() -> None:
    assert log_seconds(LOG) == 22
    assert log_seconds(LOG.splitlines()[0]) is None


def test_a_killed_swap_is_known_to_its_own_model_alone(settings: Settings) -> None:
    (settings.state / "swap.json").write_text(json.dumps({"model": "tickets", "old": asdict(OLD)}))
    assert (unfinished(settings, "tickets"), unfinished(settings, "other")) == (True, False)
    ended(settings, "other")
    assert unfinished(settings, "tickets")
    with pytest.raises(EngineBusy, match="tickets has a rollout on this engine"):
        swap_target(settings, "other", gateway(settings), NEW, 1, lambda: None)
    ended(settings, "tickets")
    assert not unfinished(settings, "tickets")


def test_nobody_elses_canary_is_cut_off_and_no_other_base_takes_its_adapters_away(settings: Settings) -> None:
    canary = gateway(settings, Split("tickets", "a"), Split("other", "b", "c", 50))
    with pytest.raises(EngineBusy, match="other has a rollout on this engine"):
        swap_target(settings, "tickets", canary, NEW, 1, lambda: None)
    two = gateway(settings, Split("tickets", "a"), Split("other", "b"))
    with pytest.raises(EngineBusy, match="required: no other model on it"):
        swap_target(settings, "tickets", two, Engine("/models/large"), 1, lambda: None)
    assert swap_target(settings, "tickets", two, NEW, 1, lambda: None).models == ["tickets", "other"]
