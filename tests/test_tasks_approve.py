"""Approval by people: who may say yes, how many must, what ends a request; all of it read back from a real ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from tasks.approve import Answer, ApprovalPending, ApprovalRefused, Approvals, NoSuchRequest
from tasks.artifacts import ModelVersion
from tasks.promotion.approval import request_line, request_of, requests
from tasks.promotion.database import connect
from tasks.promotion.ledger import Line, verify
from tests.fix_promotion import Promotion

START = datetime(2026, 11, 28, tzinfo=UTC)


def version(promotion: Promotion, number: str = "2", digest: str = "d") -> ModelVersion:
    return ModelVersion(promotion.model, number, "r", "s", digest)


def of(promotion: Promotion, now: datetime = START) -> Approvals:
    return Approvals(partial(connect, promotion.dsn), promotion.promoter.note, lambda: now)


def asked(promotion: Promotion, needed: int, number: str = "2", at: datetime = START) -> Line:
    evidence = {"needed": str(needed), "run": "run-1", "version_sha256": "d", "flow_run": "flow-1"}
    return request_line(promotion.model, "champion", number, "ada", at, 72, evidence)


class Form:
    """What people wrote into Prefect's form, by the key of the suspension; another key suspends."""

    def __init__(self, **answers: Answer) -> None:
        self.answers, self.keys = answers, list[str]()

    def __call__(self, key: str, seconds: int) -> Answer:
        self.keys.append(key)
        place = f"n{key.rpartition('-')[2]}"
        if place not in self.answers:
            raise ApprovalPending(key)
        return self.answers[place]


def require(promotion: Promotion, needed: int, form: Form, at: datetime = START, number: str = "2") -> None:
    of(promotion, at).require(version(promotion, number), "champion", asked(promotion, needed, number, at), 72, form)


def kinds(promotion: Promotion) -> list[tuple[str, str]]:
    return [(line.kind, line.actor) for line in promotion.lines()]


def test_one_approval_at_the_command_line_opens_the_way_and_the_move_closes_the_request(promotion: Promotion) -> None:
    with pytest.raises(ApprovalPending):
        require(promotion, 1, Form())
    with pytest.raises(ApprovalPending):
        require(promotion, 1, Form())  # the same command again asks nothing anew
    found = of(promotion)
    assert [one.line.to_version for one in found.open()] == ["2"]
    assert found.answer(found.find("run-1"), "bo", True, "looks good").granted
    require(promotion, 1, Form())
    promotion.move("2", None)
    assert kinds(promotion) == [("approval_requested", "ada"), ("approved", "bo"), ("move", "ada")]
    with pytest.raises(ApprovalPending):
        require(promotion, 1, Form())  # a later move of the same version needs a new yes
    with connect(promotion.dsn) as connection:
        assert verify(connection)[1] == []


@pytest.mark.parametrize("name", ["run-1", "flow-1", "model"])
def test_a_request_is_found_by_its_run_its_flow_run_or_its_model(promotion: Promotion, name: str) -> None:
    with pytest.raises(ApprovalPending):
        require(promotion, 1, Form())
    assert of(promotion).find(promotion.model if name == "model" else name).line.actor == "ada"
    with pytest.raises(NoSuchRequest, match=r"nothing: 0 requests wait under that name; waiting: run-1"):
        of(promotion).find("nothing")


def test_who_asked_cannot_approve_and_cannot_deny(promotion: Promotion) -> None:
    with pytest.raises(ApprovalPending):
        require(promotion, 1, Form())
    found = of(promotion)
    for approve in (True, False):
        with pytest.raises(ApprovalRefused, match="ada asked for it and cannot answer it"):
            found.answer(found.find("run-1"), "ada", approve)
    assert kinds(promotion) == [("approval_requested", "ada")]


def test_two_means_two_people(promotion: Promotion) -> None:
    with pytest.raises(ApprovalPending):
        require(promotion, 2, Form())
    found = of(promotion)
    assert not found.answer(found.find("run-1"), "bo", True).granted
    assert not found.answer(found.find("run-1"), "bo", True).granted
    with pytest.raises(ApprovalPending):
        require(promotion, 2, Form())
    assert found.answer(found.find("run-1"), "cy", True).granted
    require(promotion, 2, Form())
    assert kinds(promotion) == [("approval_requested", "ada"), ("approved", "bo"), ("approved", "cy")]


def test_answers_in_the_form_count_once_in_each_run_of_the_flow(promotion: Promotion) -> None:
    """A suspended flow runs again from its top and gets every answer again."""
    first = Form(n0=Answer(by="ada", approve=True, comment=""), n1=Answer(by="bo", approve=True, comment="yes"))
    for _ in range(2):
        with pytest.raises(ApprovalPending):
            require(promotion, 2, first)
    assert first.keys[-1] == "approve-champion-2-2"
    second = Form(**first.answers, n2=Answer(by="cy", approve=True, comment=""))
    require(promotion, 2, second)
    assert kinds(promotion) == [("approval_requested", "ada"), ("approved", "bo"), ("approved", "cy")]


def test_a_no_is_final_for_that_version(promotion: Promotion) -> None:
    no = Form(n0=Answer(by="bo", approve=False, comment="wrong data"))
    for form in (no, Form()):
        with pytest.raises(ApprovalRefused, match="denied by bo: wrong data; release another version"):
            require(promotion, 1, form)
    assert of(promotion).open() == []
    with pytest.raises(ApprovalPending):
        require(promotion, 1, Form(), number="3")


def test_a_request_expires_and_can_be_asked_anew(promotion: Promotion) -> None:
    late = START + timedelta(hours=72)
    with pytest.raises(ApprovalPending):
        require(promotion, 1, Form())
    assert of(promotion, late - timedelta(seconds=1)).expire() == []
    with pytest.raises(ApprovalRefused, match="0 of 1 approved until 2026-12-01T00:00:00"):
        found = of(promotion, late)
        found.answer(found.find("run-1"), "bo", True)
    assert of(promotion, late).expire() == []
    with pytest.raises(ApprovalPending):
        require(promotion, 1, Form(), late)
    assert kinds(promotion) == [
        ("approval_requested", "ada"),
        ("approval_expired", "liftlock"),
        ("approval_requested", "ada"),
    ]


def test_the_reconciler_ends_what_nobody_comes_back_for(promotion: Promotion) -> None:
    with pytest.raises(ApprovalPending):
        require(promotion, 1, Form())
    assert len(of(promotion, START + timedelta(hours=73)).expire()) == 1
    assert kinds(promotion)[-1] == ("approval_expired", "liftlock")


def test_an_approval_that_was_given_does_not_expire(promotion: Promotion) -> None:
    with pytest.raises(ApprovalPending):
        require(promotion, 1, Form())
    found = of(promotion)
    found.answer(found.find("run-1"), "bo", True)
    require(promotion, 1, Form(), START + timedelta(days=30))


def test_an_approval_is_of_the_evidence_that_was_there(promotion: Promotion) -> None:
    with pytest.raises(ApprovalPending):
        require(promotion, 1, Form())
    found = of(promotion)
    found.answer(found.find("run-1"), "bo", True)
    with pytest.raises(ApprovalRefused, match="its evidence changed since it was asked for"):
        found.require(version(promotion, digest="other"), "champion", asked(promotion, 1), 72, Form())


def line(kind: Any, actor: str, alias: Any = "champion", number: str = "2") -> Line:
    made = request_line("m", alias, number, actor, START, 72, {"needed": "1", "run": "r", "version_sha256": "d"})
    return replace(made, kind=kind)


def test_words_about_another_alias_or_version_do_not_count() -> None:
    story = [line("approved", "zoe"), line("approval_requested", "ada"), line("approved", "bo", "staging"),
             line("approved", "bo", number="3"), line("move", "ada", "staging")]  # fmt: skip
    found = request_of(story, "m", "champion", "2")
    assert found is not None
    assert (found.by, found.granted) == ((), False)
    assert requests([*story, line("rollback", "ada")]) == []
