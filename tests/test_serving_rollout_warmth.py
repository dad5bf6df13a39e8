"""A candidate is warm when it has answered within its budget, and gets no weight before."""

import pytest

from serving.rollout.warmth import WarmUpFailed, short_and_long, warm_up
from tests.fix_engine import Behaviour, FakeEngine
from tests.fix_rollout_scene import CANDIDATE, PROMPTS


def test_warm_up_times_the_first_token(engine: FakeEngine) -> None:
    engine.models[CANDIDATE] = Behaviour(first_token_seconds=0.1, chunk_seconds=0.1, chunks=2)
    warmed = warm_up(engine.url, CANDIDATE, PROMPTS, 3)
    assert len(warmed.first_tokens) == 3
    assert 0.1 <= min(warmed.first_tokens) < 0.2
    assert warmed.load_seconds >= 0.2  # the first answer: first token and one more
    assert warmed.warm_seconds >= 0.4


def test_a_candidate_is_warm_when_enough_answers_in_a_row_kept_the_budget(engine: FakeEngine) -> None:
    """The first answers pay for loading and compiling: they do not count."""
    engine.models[CANDIDATE] = Behaviour(cold_requests=4, cold_seconds=0.3)
    warmed = warm_up(engine.url, CANDIDATE, PROMPTS, 3, budget=0.15)
    assert len(warmed.first_tokens) == 7
    assert min(warmed.first_tokens[:4]) >= 0.3 > 0.15 >= max(warmed.first_tokens[4:])


def test_a_candidate_that_stays_cold_gets_no_weight(engine: FakeEngine) -> None:
    engine.models[CANDIDATE] = Behaviour(first_token_seconds=0.02)
    with pytest.raises(
        WarmUpFailed,
        match=r"is not warm after 25 requests: first token 0\.0\d s among the last 1, required at most 0\.01 s",
    ):
        warm_up(engine.url, CANDIDATE, PROMPTS, 1, budget=0.01)


def test_short_and_long_prompts_take_turns() -> None:
    prompts = [[{"role": "user", "content": "x" * length}] for length in (3, 1, 5, 2, 4)]
    assert [len(one[0]["content"]) for one in short_and_long(prompts)] == [1, 5, 2, 4, 3]


def test_an_engine_that_is_not_there_fails_the_warm_up() -> None:
    with pytest.raises(WarmUpFailed, match="ConnectError"):
        warm_up("http://127.0.0.1:1", CANDIDATE, PROMPTS, 1)
