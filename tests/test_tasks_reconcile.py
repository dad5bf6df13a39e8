"""What is done in MLflow by hand: carried out on evidence, taken back without, and told. On a real MLflow and a real Postgres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from mlflow import MlflowClient

from tasks.promotion.evidence import EvidenceRefused
from tasks.reconcile import Found, Reconciler
from tests.fix_promotion import Promotion


class Evidence:
    """Holds for some versions."""

    def __init__(self, *versions: str) -> None:
        self.versions = versions

    def __call__(self, model: str, alias: str, version: str, claimed: Mapping[str, str]) -> Mapping[str, str]:
        if version not in self.versions:
            raise EvidenceRefused(f"{model} version {version} may not become {alias}: modelcar missing")
        return claimed


@pytest.fixture
def sent() -> list[dict[str, Any]]:
    return []


def reconciler(promotion: Promotion, sent: list[dict[str, Any]], *versions: str, served: str = "1") -> Reconciler:
    promoter = replace(promotion.promoter, verify=Evidence(*versions))
    return Reconciler(promoter, lambda _, version: version == served, sent.append)


def done(found: list[Found]) -> list[tuple[str, str]]:
    return [(one.alias, one.done) for one in found]


def test_where_both_agree_nothing_is_done(promotion: Promotion, sent: list[dict[str, Any]]) -> None:
    promotion.move("1", None)
    checker = reconciler(promotion, sent)
    assert checker.model(promotion.model) == []
    assert promotion.model in checker.models()
    assert (len(promotion.lines()), sent) == (1, [])


def test_a_model_that_was_never_released_is_left_alone(
    promotion: Promotion, mlflow_client: MlflowClient, sent: list[dict[str, Any]]
) -> None:
    mlflow_client.set_registered_model_alias(promotion.model, "champion", "2")
    assert reconciler(promotion, sent).models() == []


def test_an_alias_on_a_version_with_evidence_is_carried_out(
    promotion: Promotion, mlflow_client: MlflowClient, sent: list[dict[str, Any]]
) -> None:
    promotion.move("1", None, "staging")
    mlflow_client.set_registered_model_alias(promotion.model, "staging", "2")
    assert done(reconciler(promotion, sent, "2").model(promotion.model)) == [("staging", "accepted")]
    assert promotion.alias("staging") == "2"
    last = promotion.lines()[-1]
    assert (last.kind, last.from_version, last.to_version, last.actor) == ("move", "1", "2", "mlflow")


@pytest.mark.parametrize("alias", ["candidate", "staging", "champion"])
def test_an_alias_on_a_version_without_evidence_goes_back_with_the_reason(
    promotion: Promotion, mlflow_client: MlflowClient, sent: list[dict[str, Any]], alias: str
) -> None:
    promotion.move("1", None, alias)
    mlflow_client.set_registered_model_alias(promotion.model, alias, "3")
    assert done(reconciler(promotion, sent, "1").model(promotion.model)) == [(alias, "put_back")]
    assert promotion.alias(alias) == "1"
    assert "modelcar missing" in mlflow_client.get_model_version(promotion.model, "3").tags["liftlock.refused"]
    assert [line.kind for line in promotion.lines()] == ["move", "put_back", "refused"]
    assert promotion.told == promotion.lines()
    assert reconciler(promotion, sent, "1").model(promotion.model) == []


def test_a_first_alias_without_evidence_is_taken_away(
    promotion: Promotion, mlflow_client: MlflowClient, sent: list[dict[str, Any]]
) -> None:
    promotion.move("1", None, "candidate")
    mlflow_client.set_registered_model_alias(promotion.model, "champion", "3")
    assert done(reconciler(promotion, sent).model(promotion.model)) == [("champion", "put_back")]
    assert promotion.alias() is None
    assert reconciler(promotion, sent).model(promotion.model) == []


def test_a_champion_that_is_not_served_is_asked_for_and_waits(
    promotion: Promotion, mlflow_client: MlflowClient, sent: list[dict[str, Any]]
) -> None:
    """champion names what is served: the alias goes back, and an event asks for the rollout."""
    promotion.move("1", None)
    mlflow_client.set_registered_model_alias(promotion.model, "champion", "2")
    assert done(reconciler(promotion, sent, "1", "2").model(promotion.model)) == [("champion", "requested")]
    assert promotion.alias() == "1"
    assert [(one["event"], one["payload"]["version"]) for one in sent] == [("liftlock.alias.requested", "2")]
    assert sent[0]["resource"]["liftlock.model"] == promotion.model


def test_a_champion_that_is_served_is_accepted(
    promotion: Promotion, mlflow_client: MlflowClient, sent: list[dict[str, Any]]
) -> None:
    promotion.move("1", None)
    mlflow_client.set_registered_model_alias(promotion.model, "champion", "2")
    assert done(reconciler(promotion, sent, "1", "2", served="2").model(promotion.model)) == [("champion", "accepted")]
    assert promotion.alias() == "2"


@pytest.mark.parametrize("alias", ["staging", "champion"])
def test_what_people_must_approve_is_put_back_and_asked_for(
    promotion: Promotion, mlflow_client: MlflowClient, sent: list[dict[str, Any]], alias: str
) -> None:
    """Also where the evidence holds and the version is served: MLflow's page is no way around."""
    promotion.move("1", None, alias)
    mlflow_client.set_registered_model_alias(promotion.model, alias, "2")
    checker = replace(reconciler(promotion, sent, "1", "2", served="2"), waits=lambda *_: True)
    assert done(checker.model(promotion.model)) == [(alias, "requested")]
    assert promotion.alias(alias) == "1"
    assert [(one["payload"]["alias"], one["payload"]["version"]) for one in sent] == [(alias, "2")]


def test_a_deleted_alias_comes_back(
    promotion: Promotion, mlflow_client: MlflowClient, sent: list[dict[str, Any]]
) -> None:
    promotion.move("1", None)
    mlflow_client.delete_registered_model_alias(promotion.model, "champion")
    assert done(reconciler(promotion, sent).model(promotion.model)) == [("champion", "put_back")]
    assert promotion.alias() == "1"
    assert promotion.lines()[-1].reason == "the alias was deleted by hand in MLflow"


def test_a_deleted_version_is_noticed_once(
    promotion: Promotion, mlflow_client: MlflowClient, sent: list[dict[str, Any]]
) -> None:
    promotion.move("1", None)
    mlflow_client.delete_model_version(promotion.model, "1")
    assert done(reconciler(promotion, sent).model(promotion.model)) == [("champion", "removed")]
    assert (promotion.lines()[-1].kind, promotion.lines()[-1].to_version) == ("removed", None)
    assert promotion.told[-1].kind == "removed"
    assert reconciler(promotion, sent).model(promotion.model) == []


def test_what_a_killed_mover_left_is_finished_first(
    promotion: Promotion, mlflow_client: MlflowClient, sent: list[dict[str, Any]]
) -> None:
    """Set by a mover that died before its line: its own reason and actor, not a request by hand."""
    from tasks.promotion import journal
    from tasks.promotion.database import connect

    promotion.move("1", None)
    with connect(promotion.dsn) as connection:
        journal.open_intent(connection, promotion.wanted("2", "1").line("1", {}), 8)
    mlflow_client.set_registered_model_alias(promotion.model, "champion", "2")
    assert reconciler(promotion, sent).model(promotion.model) == []
    assert (promotion.lines()[-1].to_version, promotion.lines()[-1].actor) == ("2", "ada")
