"""Answers are kept as they come: what is known is not asked, a torn line is no answer, and a sampled one is its repeat's alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evals.answers import Answers, Request


@dataclass
class Asked:
    """lm-eval's request, as far as it is read."""

    args: tuple[Any, ...]


GREEDY: dict[str, Any] = {"until": ["\n"], "temperature": 0}


def requests(*texts: str, **settings: Any) -> list[Request]:
    return [Asked((text, {**GREEDY, **settings})) for text in texts]


def shout(asked: list[Request]) -> list[str]:
    return [request.args[0].upper() for request in asked]


def test_only_what_is_not_known_is_asked_and_the_order_stays(tmp_path: Path) -> None:
    answers, file = Answers(tmp_path / "new" / "a.jsonl"), tmp_path / "new" / "a.jsonl"
    assert answers.through("generate_until", requests("b", "a"), shout) == (["B", "A"], 0)
    again = Answers(file)
    asked: list[str] = []

    def ask(left: list[Request]) -> list[str]:
        asked.extend(request.args[0] for request in left)
        return shout(left)

    assert again.through("generate_until", requests("c", "a", "b", "d"), ask) == (["C", "A", "B", "D"], 2)
    assert asked == ["c", "d"]
    assert len(Answers(file)) == 4


def test_a_sampled_answer_belongs_to_its_repeat(tmp_path: Path) -> None:
    answers, drawn = Answers(tmp_path / "a.jsonl"), requests("a", temperature=1)
    for repeat in (0, 1):
        answers.repeat = repeat
        assert answers.through("generate_until", drawn, lambda _, n=repeat: [f"answer {n}"]) == (
            [f"answer {repeat}"],
            0,
        )  # type: ignore[misc]
    again = Answers(tmp_path / "a.jsonl")
    again.repeat = 1
    assert again.through("generate_until", drawn, shout) == (["answer 1"], 1)
    again.repeat = 2
    assert again.through("generate_until", drawn, shout) == (["A"], 0)
    assert again.through("generate_until", requests("a"), shout)[1] == 0  # greedy: another question


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "a.jsonl"
    Answers(file).through("generate_until", requests("a", "b"), shout)
    file.write_bytes(file.read_bytes()[:-cut])
    found = Answers(file)
    assert len(found) == 1
    assert found.through("generate_until", requests("a", "b"), shout) == (["A", "B"], 1)
    assert len(Answers(file)) == 2


def test_log_likelihoods_stay_pairs(tmp_path: Path) -> None:
    asked: list[Request] = [Asked(("The sea is", " blue"))]
    first = Answers(tmp_path / "a.jsonl").through("loglikelihood", asked, lambda _: [(-1.5, True)])
    again = Answers(tmp_path / "a.jsonl").through("loglikelihood", asked, lambda _: [])
    assert first == ([(-1.5, True)], 0)
    assert again == ([(-1.5, True)], 1)
