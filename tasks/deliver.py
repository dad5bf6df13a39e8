"""deliver: a registered version to the cluster that the settings name, with the delivery of the release.yaml at hand."""

from __future__ import annotations

import mlflow

from tasks.cluster_rollout import delivery_of
from tasks.promote import Promoted, promote_version
from tasks.promotion.recall import find_version, recall_spec
from tasks.register import read_version
from tasks.settings import get_settings
from tasks.spec import DeliverySpec, Release


class TargetInvalid(ValueError):
    """The delivery target is not a cluster's."""


def wanted_delivery(release: Release, target: str | None) -> DeliverySpec:
    """Raises TargetInvalid."""
    delivery = release.delivery.model_copy(update={"target": target} if target else {})
    if delivery.target == "local":
        raise TargetInvalid(
            f"delivery.target of {release.name} is local, which `liftlock release` and `promote` do; say --target gitops or kubernetes"
        )
    return delivery


def deliver_version(model: str, version: str | None, delivery: DeliverySpec, reason: str) -> Promoted:
    """Raises what promote_version raises, DeliveryUnset, VersionNotDeliverable, NotSchedulable, Blocked."""
    return promote_version(model, _number(model, version), "champion", expected=None, reason=reason, delivery=delivery)


def preview(model: str, version: str | None, delivery: DeliverySpec) -> str:
    """The diff of the first step; empty where it is in place already."""
    client, number = mlflow.MlflowClient(), _number(model, version)
    spec = recall_spec(client, model, number).model_copy(update={"delivery": delivery})
    made = delivery_of(get_settings(), spec, read_version(client, model, number), lambda _: None)
    return "" if made.target.stable(model) == made.word else made.target.preview(model)


def _number(model: str, version: str | None) -> str:
    """Raises NoSuchVersion."""
    return find_version(mlflow.MlflowClient(), f"{model}/{version}" if version else f"{model}@staging")[1]
